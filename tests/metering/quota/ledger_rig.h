// A ledger over a fake owner of all partitions, which is the store as well.
#pragma once
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>

#include "metering/quota/keys.h"
#include "metering/quota/lease_ledger.h"

namespace tollgate::quota::ledger_test {

using namespace std::chrono_literals;
using Status = ChargeOutcome::Status;
using Answer = LeaseEngine::Answer;

inline constexpr Milliseconds kDay = 86'400'000ms, kMinute = 60'000ms;
inline constexpr Milliseconds kEpoch = 1'764'000'000'000ms;  // the store's clock when the test begins

// Owner and store of all partitions in one: plain sums, no window (a test is shorter than one).
class FakeOwners final : public OwnerPort {
 public:
  struct Book {
    std::uint64_t used = 0, lent = 0, lent_to_others = 0;
    std::uint64_t limit = 0;
  };

  FakeOwners(LeaseTable& table, const MonotonicTime& now) : table_(table), now_(now) {}

  void request(AccountRef account, std::uint32_t units, std::uint64_t rule_limit,
               LeaseEngine::Done done) override {
    ++requests;
    waiting.push_back([this, account, units, rule_limit, done] { done(serve(account, units, rule_limit)); });
    if (at_once) deliver();
  }
  void prefetch(AccountRef account) override {
    ++prefetches;
    prefetched.push_back(account);
  }
  void limit_changed(AccountRef account, std::uint64_t rule_limit) override {
    changes.emplace_back(account->field, rule_limit);
    if (answers_on_change) deliver();
  }
  void take_back(AccountRef account, std::int64_t bucket, std::uint32_t units) override {
    taken_back.push_back({bucket, -std::int64_t{units}});
    if (up) book(*account).used -= units;
  }
  void settle(std::string subject_key, std::function<void(bool)> done) override {
    ++settles;
    if (silent) return;
    if (up)
      for (const AccountRef& account : table_.of_subject(subject_key)) report(*account, 0, false);
    done(up);
  }
  bool store_up(unsigned) const override { return up; }
  void read(std::vector<AccountCharge> accounts,
            std::function<void(Result<std::vector<LeaseState>>&&)> done) override {
    if (!up) return done(fail(Origin::store, "down", true));
    std::vector<LeaseState> states;
    for (const AccountCharge& one : accounts) {
      LeaseState state;
      const Book& stored = books[one.key.subject_key + "\n" + one.key.field];
      state.used = stored.used;
      state.limit = one.limit;
      state.next_free_at = stored.used > 0 ? kEpoch + kDay : 0ms;
      state.next_free_units = stored.used;
      states.push_back(state);
    }
    done(std::move(states));
  }
  void list(std::string subject_key, std::string prefix, Milliseconds, Milliseconds,
            Ledger::ListDone done) override {
    if (!up) return done(fail(Origin::store, "down", true));
    std::vector<Ledger::Listed> listed;
    for (const auto& [name, book] : books)
      if (name.starts_with(subject_key + "\n" + prefix))
        listed.push_back({name.substr(subject_key.size() + 1), book.used});
    done(std::move(listed));
  }
  std::shared_ptr<void> timer(Milliseconds after, std::function<void()> expired) override {
    auto token = std::make_shared<int>(0);
    timers.push_back({now_ + after, token, std::move(expired)});
    return token;
  }

  // ---- for tests
  void deliver() {
    while (!waiting.empty()) answer_next();
  }
  void answer_next() {
    auto next = std::move(waiting.front());
    waiting.pop_front();
    next();
  }
  void expire() {  // everything whose time has come
    auto due = std::move(timers);
    timers.clear();
    for (auto& timer : due) {
      if (timer.at > now_)
        timers.push_back(std::move(timer));
      else if (!timer.token.expired())
        timer.expired();
    }
  }
  void join(unsigned p, Milliseconds store_now) {
    PartitionState& partition = table_.partition(p);
    partition.clock.observe(store_now, now_, now_);
    partition.session_expiry_ms = (kEpoch + 900'000ms).count();
  }
  Milliseconds store_now() const {
    return kEpoch + std::chrono::floor<Milliseconds>(now_ - MonotonicTime(1'000s));
  }
  Book& book(const Account& account) { return books[account.subject->key + "\n" + account.field]; }

  // An op that reports everything and is granted `grant`.
  void report(Account& account, std::uint64_t grant, bool give_up) {
    const std::int64_t bucket = account.shape.bucket_of(store_now());
    Book& book = this->book(account);
    account.cell->snapshot(++seq, bucket, give_up && account.limited);
    for (const BucketUse& use : account.cell->pending_uses(bucket)) {
      book.used += static_cast<std::uint64_t>(use.units);
      if (account.limited) book.lent -= std::min(book.lent, static_cast<std::uint64_t>(use.units));
    }
    book.lent -= account.cell->pending_returned();
    book.lent += grant;
    account.session = table_.partition(account.subject->partition).session.load();
    account.cell->acknowledge(account.limited ? book.lent : 0);
    AccountView view = account.view();
    view.used = book.used;
    view.lent_to_others = book.lent_to_others;
    view.next_free_at = book.used > 0 ? kEpoch + kDay : 0ms;
    view.next_free_units = book.used;
    if (grant > 0) {
      view.lease = account.cell->available();
      view.denied_until = view.fits_at = 0ms;
      view.denied_units = 0;
      account.refill_asked = false;
    }
    account.set_view(view);
  }

  Answer serve(const AccountRef& account, std::uint32_t units, std::uint64_t rule_limit) {
    if (!up) return Answer::unavailable;
    const unsigned p = account->subject->partition;
    if (!table_.partition(p).clock.known()) join(p, store_now());
    if (!account->limited) return Answer::granted;
    Book& book = this->book(*account);
    const bool lowered = book.limit != 0 && rule_limit < book.limit;
    book.limit = rule_limit;
    report(*account, 0, lowered);
    AccountView view = account->view();
    view.limit = view.rule_limit = rule_limit;
    account->set_view(view);
    const std::uint64_t taken = book.used + book.lent + book.lent_to_others;
    if (taken + units > rule_limit) {
      view.denied_until = refuse_until;
      view.fits_at = fits_at;
      view.denied_units = units;
      account->set_view(view);
      return Answer::refused;
    }
    report(*account, std::min<std::uint64_t>(rule_limit - taken, units + extra), false);
    if (steal > 0) {
      std::int64_t bucket = 0;
      --steal;
      while (account->cell->take(account->shape.bucket_of(store_now()), 1, &bucket)) {
      }
    }
    return Answer::granted;
  }

  struct Timer {
    MonotonicTime at;
    std::weak_ptr<int> token;
    std::function<void()> expired;
  };
  bool up = true, at_once = true, silent = false;
  bool answers_on_change = false;
  std::uint64_t extra = 0, seq = 0;
  int steal = 0;  // grants that somebody else takes
  Milliseconds refuse_until = kEpoch + 10'000ms, fits_at = kEpoch + 10'000ms;
  int requests = 0, prefetches = 0, settles = 0;
  std::vector<AccountRef> prefetched;
  std::vector<std::pair<std::string, std::uint64_t>> changes;
  std::vector<BucketUse> taken_back;
  std::map<std::string, Book> books;
  std::deque<std::function<void()>> waiting;
  std::vector<Timer> timers;

 private:
  LeaseTable& table_;
  const MonotonicTime& now_;
};

inline constexpr Status kWaits = static_cast<Status>(99);  // not decided yet

struct LeaseLedgerTest : testing::Test {
  MonotonicTime now{1'000s};
  std::vector<LeaseCell> cells{32};
  LeaseTable table{{cells, 1}};
  FakeOwners owners{table, now};
  LeaseLedgerOptions options{.cache_entries = 16};
  std::unique_ptr<LeaseLedger> ledger = make();

  std::unique_ptr<LeaseLedger> make() {
    return std::make_unique<LeaseLedger>(table, owners, [this] { return now; }, options);
  }
  AccountCharge of(std::string user, std::string field, std::uint64_t limit, std::uint32_t units = 1) {
    return {
        {subject_key({"acme", std::nullopt, user}), std::move(field)}, limit, kDay, kMinute, units, 0, false};
  }
  std::optional<ChargeOutcome> outcome;
  std::vector<AccountCharge> charged;
  void give_back() { ledger->give_back(charged, outcome->receipt); }
  Status charge(std::vector<AccountCharge> charges) {
    outcome.reset();
    charged = std::move(charges);
    ledger->charge(charged, [this](ChargeOutcome&& o) {
      EXPECT_FALSE(outcome.has_value()) << "answered twice";
      outcome = std::move(o);
    });
    return outcome ? outcome->status : kWaits;
  }
  Account& account(const AccountCharge& charge) { return *table.find(charge.key); }
};

}  // namespace tollgate::quota::ledger_test
