#include "metering/quota/lease_ledger.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>

#include "metering/base/random.h"
#include "metering/quota/keys.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;
using Status = ChargeOutcome::Status;
using Answer = LeaseEngine::Answer;

constexpr Milliseconds kDay = 86'400'000ms, kMinute = 60'000ms;
constexpr Milliseconds kEpoch = 1'764'000'000'000ms;  // the store's clock when the test begins

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
    while (!waiting.empty()) {
      auto next = std::move(waiting.front());
      waiting.pop_front();
      next();
    }
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
    return outcome ? outcome->status : static_cast<Status>(99);
  }
  Account& account(const AccountCharge& charge) { return *table.find(charge.key); }
};
constexpr Status kWaits = static_cast<Status>(99);

TEST_F(LeaseLedgerTest, TheFirstCallAsksTheOthersAreAdmittedFromTheLease) {
  owners.extra = 9;
  ASSERT_EQ(charge({of("ann", "daily", 100)}), Status::admitted);
  EXPECT_EQ(owners.requests, 1);
  for (std::uint64_t i = 2; i <= 8; ++i) {
    ASSERT_EQ(charge({of("ann", "daily", 100)}), Status::admitted);
    EXPECT_EQ(outcome->states[0].used, i);
    EXPECT_EQ(outcome->states[0].remaining(), 100 - i);
  }
  EXPECT_EQ(owners.requests, 1);
  EXPECT_EQ(ledger->counters().waited, 1U);
  EXPECT_EQ(ledger->counters().local, 7U);
  ASSERT_EQ(outcome->receipt.items.size(), 1U);
  EXPECT_EQ(outcome->receipt.items[0].bucket_number, kEpoch / kMinute);
  EXPECT_FALSE(outcome->receipt.items[0].degraded);
}

TEST_F(LeaseLedgerTest, EitherAllAccountsAreChargedOrNone) {
  owners.extra = 5;
  ASSERT_EQ(charge({of("ann", "daily", 100), of("ann", "burst", 2), of("org", "all", 100)}),
            Status::admitted);
  ASSERT_EQ(charge({of("ann", "daily", 100), of("ann", "burst", 2), of("org", "all", 100)}),
            Status::admitted);
  ASSERT_EQ(charge({of("ann", "daily", 100), of("ann", "burst", 2), of("org", "all", 100)}),
            Status::exceeded);
  EXPECT_EQ(outcome->violated, std::vector<std::uint32_t>{1});
  EXPECT_EQ(outcome->states[0].used, 2U);
  EXPECT_EQ(outcome->states[1].used, 2U);
  EXPECT_EQ(outcome->states[2].used, 2U);
  EXPECT_GT(outcome->states[1].admitted_after, 0ms);
  EXPECT_EQ(outcome->states[0].admitted_after, 0ms);
  EXPECT_TRUE(outcome->receipt.items.empty());
}

TEST_F(LeaseLedgerTest, AStormOverTheLimitAsksOnceUntilTheStatedMoment) {
  charge({of("ann", "daily", 3, 3)});
  ASSERT_EQ(charge({of("ann", "daily", 3)}), Status::exceeded);
  const int asked = owners.requests;
  const Milliseconds wait = outcome->states[0].admitted_after;
  EXPECT_GE(wait, 10'000ms);
  EXPECT_LE(wait, 10'010ms);
  for (int i = 0; i < 1'000; ++i) ASSERT_EQ(charge({of("ann", "daily", 3)}), Status::exceeded);
  EXPECT_EQ(owners.requests, asked);
  EXPECT_EQ(ledger->counters().denied_locally, 1'000U);
  now += wait;
  owners.book(account(of("ann", "daily", 3))).used = 0;  // the window went on
  EXPECT_EQ(charge({of("ann", "daily", 3)}), Status::admitted) << "who waits that long is served";
  EXPECT_EQ(owners.requests, asked + 1);
}

TEST_F(LeaseLedgerTest, FewerUnitsThanWereRefusedAreAskedForAndMoreAreNot) {
  charge({of("ann", "daily", 10, 7)});
  ASSERT_EQ(charge({of("ann", "daily", 10, 5)}), Status::exceeded);
  const int asked = owners.requests;
  EXPECT_EQ(charge({of("ann", "daily", 10, 6)}), Status::exceeded);
  EXPECT_EQ(owners.requests, asked);
  EXPECT_EQ(charge({of("ann", "daily", 10, 3)}), Status::admitted);
  EXPECT_EQ(owners.requests, asked + 1);
  EXPECT_EQ(charge({of("ann", "daily", 10, 11)}), Status::exceeded);
  EXPECT_EQ(outcome->states[0].admitted_after, Milliseconds::max());
}

TEST_F(LeaseLedgerTest, TokensThatOthersTookFirstAreAskedForAgain) {
  owners.steal = 2;
  EXPECT_EQ(charge({of("ann", "daily", 100)}), Status::admitted);
  EXPECT_EQ(owners.requests, 3);
}

TEST_F(LeaseLedgerTest, AnAnswerThatNeverHelpsEndsAsUnavailable) {
  owners.steal = 1'000;
  EXPECT_EQ(charge({of("ann", "daily", 1'000'000)}), Status::unavailable);
  EXPECT_FALSE(outcome->error.empty());
}

TEST_F(LeaseLedgerTest, AccountsOfSeveralOwnersAreAskedAtTheSameTime) {
  owners.at_once = false;
  EXPECT_EQ(charge({of("ann", "daily", 9), of("org", "all", 9), of("t", "all", 9)}), kWaits);
  EXPECT_EQ(owners.requests, 3);
  EXPECT_EQ(owners.timers.size(), 1U);
  owners.deliver();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::admitted);
  EXPECT_TRUE(owners.timers[0].token.expired());
}

TEST_F(LeaseLedgerTest, OneRefusalIsEnoughAndTheOthersAreNotWaitedFor) {
  owners.at_once = false;
  charge({of("ann", "daily", 0), of("org", "all", 9)});
  auto first = std::move(owners.waiting.front());
  owners.waiting.pop_front();
  first();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::exceeded);
  EXPECT_EQ(outcome->violated, std::vector<std::uint32_t>{0});
  owners.deliver();  // the late answer changes nothing, its tokens stay for the next call
  EXPECT_EQ(account(of("org", "all", 9)).cell->available(), 1U);
}

TEST_F(LeaseLedgerTest, TheDeadlineIsOneForAllAndALateGrantServesTheNextCall) {
  owners.at_once = false;
  charge({of("ann", "daily", 9), of("org", "all", 9)});
  now += 49ms;
  owners.expire();
  EXPECT_FALSE(outcome);
  now += 1ms;
  owners.expire();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::unavailable);
  EXPECT_EQ(ledger->counters().timeouts, 1U);
  EXPECT_TRUE(outcome->states.empty());
  owners.deliver();
  EXPECT_EQ(charge({of("ann", "daily", 9), of("org", "all", 9)}), Status::admitted);
  EXPECT_EQ(owners.requests, 2);
}

TEST_F(LeaseLedgerTest, WithoutTheStoreTokensAreSpentThenCallsAreUnavailable) {
  owners.extra = 1;
  charge({of("ann", "daily", 9)});
  owners.up = false;
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::admitted);
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::unavailable);
  EXPECT_EQ(ledger->counters().unavailable, 1U);
  owners.up = true;
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::admitted);
}

TEST_F(LeaseLedgerTest, PolicyDenyAdmitsNothingWhileTheStoreIsDown) {
  owners.extra = 5;
  charge({of("ann", "daily", 9)});
  ledger->set_outage_policy(OutagePolicy::deny);
  owners.up = false;
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::unavailable);
  EXPECT_EQ(owners.requests, 1);
  owners.up = true;
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::admitted);
}

TEST_F(LeaseLedgerTest, PolicyAllowLetsThroughWhatLacksAndCountsIt) {
  charge({of("ann", "daily", 5)});
  ledger->set_outage_policy(OutagePolicy::allow);
  owners.up = false;
  ASSERT_EQ(charge({of("ann", "daily", 5, 3)}), Status::admitted);
  EXPECT_TRUE(outcome->degraded);
  ASSERT_EQ(outcome->receipt.items.size(), 1U);
  EXPECT_TRUE(outcome->receipt.items[0].degraded);
  EXPECT_EQ(outcome->states[0].used, 4U);
  ASSERT_EQ(charge({of("ann", "daily", 5, 2)}), Status::admitted);
  give_back();
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->available(), 0U) << "what was forced gives no token back";
  owners.up = true;
  owners.report(account(of("ann", "daily", 5)), 0, false);
  EXPECT_EQ(owners.book(account(of("ann", "daily", 5))).used, 4U);
  EXPECT_EQ(charge({of("ann", "daily", 5, 2)}), Status::exceeded);
  EXPECT_FALSE(outcome->degraded);
  owners.up = false;
  EXPECT_EQ(charge({of("ann", "daily", 5, 2)}), Status::exceeded) << "a refusal that is remembered stands";
  EXPECT_EQ(ledger->counters().degraded, 2U);
}

TEST_F(LeaseLedgerTest, PolicyAllowBeforeAnyClockCountsOnceTheTimeIsKnown) {
  ledger->set_outage_policy(OutagePolicy::allow);
  owners.up = false;
  ASSERT_EQ(charge({of("ann", "daily", 5, 3)}), Status::admitted);
  ASSERT_EQ(charge({of("ann", "daily", 5, 2)}), Status::admitted);
  EXPECT_TRUE(outcome->degraded);
  give_back();
  ledger->tick();
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->unsettled(), 0U);
  owners.join(partition_of(of("ann", "daily", 5).key.subject_key), kEpoch);
  ledger->tick();
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->unsettled(), 3U);
  ledger->tick();
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->unsettled(), 3U);
}

TEST_F(LeaseLedgerTest, AShadowLimitIsChargedAndReportedAndRefusesNothing) {
  AccountCharge candidate = of("ann", "candidate", 2);
  candidate.shadow = true;
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(charge({of("ann", "daily", 9), candidate}), Status::admitted);
    EXPECT_TRUE(outcome->shadow_violated.empty());
    EXPECT_EQ(outcome->receipt.items.size(), 2U);
  }
  ASSERT_EQ(charge({of("ann", "daily", 9), candidate}), Status::admitted);
  EXPECT_EQ(outcome->shadow_violated, std::vector<std::uint32_t>{1});
  EXPECT_TRUE(outcome->violated.empty());
  EXPECT_EQ(outcome->receipt.items.size(), 1U);
  EXPECT_EQ(outcome->states[1].used, 2U);
  EXPECT_GT(outcome->states[1].admitted_after, 0ms);
  owners.up = false;
  AccountCharge unheard = of("bob", "candidate", 2);
  unheard.shadow = true;
  owners.up = true;
  charge({of("ann", "daily", 9, 2)});
  give_back();  // tokens for the next
  owners.up = false;
  ASSERT_EQ(charge({of("ann", "daily", 9), unheard}), Status::admitted)
      << "what nobody can say holds nobody up";
  EXPECT_TRUE(outcome->shadow_violated.empty());
  EXPECT_FALSE(outcome->degraded);
}

// An owner on the same thread answers what it can while it is told of something else.
TEST_F(LeaseLedgerTest, AnAnswerInTheMiddleOfTheLastAttemptDoesNotDecideTheCallTwice) {
  const AccountCharge daily = of("ann", "daily", 10), burst = of("ann", "burst", 5);
  ASSERT_EQ(charge({daily}), Status::admitted);
  owners.at_once = false;
  AccountCharge raised = daily;
  raised.limit = 20;
  ASSERT_EQ(charge({raised, burst}), kWaits);
  owners.answers_on_change = true;
  account(daily).limit_told = 0;  // so that the last attempt tells it again
  now += 60s;
  owners.expire();
  owners.deliver();
  ASSERT_TRUE(outcome.has_value());
}

TEST_F(LeaseLedgerTest, ALowerLimitAdmitsNothingFromOldTokens) {
  owners.extra = 50;
  charge({of("ann", "daily", 100, 5)});
  ASSERT_EQ(charge({of("ann", "daily", 6)}), Status::admitted);
  EXPECT_EQ(owners.requests, 2) << "the owner was asked under the new limit";
  ASSERT_EQ(owners.changes.size(), 1U);
  EXPECT_EQ(owners.changes[0].second, 6U);
  EXPECT_EQ(charge({of("ann", "daily", 6)}), Status::exceeded);
  EXPECT_EQ(outcome->states[0].limit, 6U);
}

TEST_F(LeaseLedgerTest, AHigherLimitActsOnTheNextCallInSpiteOfARememberedRefusal) {
  charge({of("ann", "daily", 2, 2)});
  ASSERT_EQ(charge({of("ann", "daily", 2)}), Status::exceeded);
  ASSERT_EQ(charge({of("ann", "daily", 3)}), Status::admitted);
  EXPECT_EQ(outcome->states[0].limit, 3U);
}

TEST_F(LeaseLedgerTest, WhatIsGivenBackCanBeUsedAgainAtOnce) {
  charge({of("ann", "daily", 2, 2)});
  const Receipt receipt = outcome->receipt;
  ledger->give_back(charged, receipt);
  EXPECT_EQ(charge({of("ann", "daily", 2, 2)}), Status::admitted);
  EXPECT_EQ(owners.requests, 1);
  EXPECT_EQ(ledger->counters().given_back, 1U);
  owners.report(account(of("ann", "daily", 2)), 0, false);  // settled: the store must be told
  give_back();
  EXPECT_EQ(owners.taken_back, (std::vector<BucketUse>{{kEpoch / kMinute, -2}}));
}

TEST_F(LeaseLedgerTest, ObservationsNeverAskAndNeverRefuse) {
  owners.extra = 50;
  charge({of("ann", "daily", 100)});
  const int asked = owners.requests;
  owners.up = false;
  ASSERT_EQ(charge({of("ann", "daily", 100), of("ann", "#|Case|read", kUnlimited)}), Status::admitted);
  EXPECT_EQ(owners.requests, asked);
  EXPECT_EQ(outcome->states[1].limit, kUnlimited);
  EXPECT_EQ(outcome->states[1].used, 1U);
  EXPECT_EQ(outcome->receipt.items.size(), 2U);
  give_back();
  EXPECT_EQ(account(of("ann", "#|Case|read", kUnlimited)).cell->unsettled(), 0U);
}

TEST_F(LeaseLedgerTest, AnObservationBeforeAnyClockWaitsForTheTimeOnly) {
  owners.at_once = false;
  EXPECT_EQ(charge({of("ann", "#|Case|read", kUnlimited)}), kWaits);
  owners.deliver();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::admitted);
  EXPECT_FALSE(outcome->degraded);
}

TEST_F(LeaseLedgerTest, AFullTableRefusesLimitsAndLetsObservationsThrough) {
  owners.extra = 1;
  for (int i = 0; i < 32; ++i) ASSERT_EQ(charge({of("ann", "r" + std::to_string(i), 9)}), Status::admitted);
  EXPECT_EQ(charge({of("ann", "one-more", 9)}), Status::unavailable);
  EXPECT_NE(outcome->error.find("32"), std::string::npos);
  ASSERT_EQ(charge({of("ann", "r0", 9), of("ann", "#|Case|read", kUnlimited)}), Status::admitted);
  EXPECT_EQ(outcome->states.size(), 2U);
  EXPECT_EQ(outcome->receipt.items.size(), 1U);
  EXPECT_FALSE(outcome->degraded);
  EXPECT_EQ(ledger->counters().table_full, 2U);
  ledger->set_outage_policy(OutagePolicy::allow);
  ASSERT_EQ(charge({of("ann", "one-more", 9)}), Status::admitted);
  EXPECT_TRUE(outcome->degraded);
  EXPECT_TRUE(outcome->receipt.items.empty());
}

TEST_F(LeaseLedgerTest, AQuarterLeftIsPrefetchedOnce) {
  owners.extra = 7;
  charge({of("ann", "daily", 100)});  // 8 lent
  for (int i = 0; i < 4; ++i) charge({of("ann", "daily", 100)});
  EXPECT_EQ(owners.prefetches, 0);
  charge({of("ann", "daily", 100)});
  EXPECT_EQ(owners.prefetches, 1);
  charge({of("ann", "daily", 100)});
  EXPECT_EQ(owners.prefetches, 1) << "one is under way";
  owners.report(*owners.prefetched[0], 20, false);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(charge({of("ann", "daily", 100)}), Status::admitted);
  EXPECT_EQ(owners.prefetches, 2);
  EXPECT_EQ(owners.requests, 1);
}

TEST_F(LeaseLedgerTest, ASessionThatEndedMustBeAskedFor) {
  owners.extra = 50;
  charge({of("ann", "daily", 100)});
  table.partition(partition_of(of("ann", "daily", 1).key.subject_key)).session.fetch_add(1);
  owners.up = false;
  EXPECT_EQ(charge({of("ann", "daily", 100)}), Status::unavailable);
}

TEST_F(LeaseLedgerTest, TheSameAccountTwiceNeedsRoomForTheSum) {
  EXPECT_EQ(charge({of("ann", "daily", 5, 3), of("ann", "daily", 5, 3)}), Status::exceeded);
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->unsettled(), 0U);
  EXPECT_EQ(charge({of("ann", "daily", 5, 3), of("ann", "daily", 5, 2)}), Status::admitted);
  EXPECT_EQ(outcome->states[0].used, 5U);
}

TEST_F(LeaseLedgerTest, DozensOfAccountsAreOneCharge) {
  std::vector<AccountCharge> charges;
  for (int i = 0; i < 30; ++i) charges.push_back(of("user" + std::to_string(i), "daily", 1));
  ASSERT_EQ(charge(charges), Status::admitted);
  EXPECT_EQ(outcome->receipt.items.size(), 30U);
  charges[3].limit = 2;
  ASSERT_EQ(charge(charges), Status::exceeded);
  EXPECT_EQ(outcome->states.size(), 30U);
  EXPECT_EQ(outcome->states[3].used, 1U);
}

TEST_F(LeaseLedgerTest, AReadSettlesFirstAndIsExact) {
  owners.extra = 9;
  charge({of("ann", "daily", 100, 4)});
  std::vector<AccountState> states;
  const auto read = [&](AccountCharge one) {
    states.clear();
    std::string error;
    ledger->read({one, one}, [&](Result<std::vector<AccountState>>&& answer) {
      if (answer)
        states = *answer;
      else
        error = answer.error().message;
    });
    return error;
  };
  EXPECT_EQ(read(of("ann", "daily", 100)), "");
  ASSERT_EQ(states.size(), 2U);
  EXPECT_EQ(states[0].used, 4U);
  EXPECT_GE(states[0].next_free_after, kDay);
  EXPECT_EQ(owners.settles, 1);
  charge({of("ann", "daily", 100, 2)});
  owners.up = false;
  EXPECT_EQ(read(of("ann", "daily", 100)), "");
  ASSERT_EQ(states.size(), 2U);
  EXPECT_EQ(states[0].used, 6U) << "from memory: what was settled and what came since";
  EXPECT_NE(read(of("bob", "daily", 100)), "");
}

TEST_F(LeaseLedgerTest, AListHasWhatTheStoreHasOrElseWhatIsRemembered) {
  owners.extra = 9;
  charge({of("ann", "daily", 100), of("ann", "#|Case|read", kUnlimited),
          of("ann", "#|Contact|read", kUnlimited, 3)});
  std::vector<Ledger::Listed> listed;
  const auto list = [&] {
    listed.clear();
    ledger->list(of("ann", "", 0).key.subject_key, "#|", kDay, kMinute,
                 [&](Result<std::vector<Ledger::Listed>>&& answer) {
                   if (answer) listed = *answer;
                 });
  };
  for (bool up : {true, false}) {
    owners.up = up;
    list();
    ASSERT_EQ(listed.size(), 2U);
    EXPECT_EQ(listed[0].field, "#|Case|read");
    EXPECT_EQ(listed[1].used, 3U);
  }
}

TEST_F(LeaseLedgerTest, AReadThatIsNotAnsweredEndsAndTellsWhatIsRemembered) {
  charge({of("ann", "daily", 100, 4)});
  owners.silent = true;
  std::optional<std::uint64_t> used;
  ledger->read({of("ann", "daily", 100)},
               [&](Result<std::vector<AccountState>>&& answer) { used = answer->at(0).used; });
  EXPECT_FALSE(used);
  now += 10s;
  owners.expire();
  EXPECT_EQ(used, 4U);
}

TEST_F(LeaseLedgerTest, ChargesThatWaitAreAnsweredWhenTheLedgerEnds) {
  owners.at_once = false;
  charge({of("ann", "daily", 9)});
  ledger = nullptr;
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::unavailable);
  owners.deliver();
}

TEST_F(LeaseLedgerTest, AChangedWindowIsTakenUpOnceTheOldAccountIsRetired) {
  owners.extra = 5;
  AccountCharge daily = of("ann", "daily", 9);
  charge({daily});
  AccountCharge hourly = daily;
  hourly.window = 3'600'000ms;
  hourly.bucket = 2'500ms;
  ASSERT_EQ(charge({hourly}), Status::admitted);
  const AccountRef old = table.find(daily.key);
  EXPECT_TRUE(old->outdated);
  owners.report(*old, 0, true);
  table.retire(old);
  ASSERT_EQ(charge({hourly}), Status::admitted);
  EXPECT_EQ(table.find(daily.key)->shape.window, hourly.window);
}

TEST_F(LeaseLedgerTest, RandomChargesAndGivingBackAgreeWithAPlainSum) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    ledger = nullptr;
    Random random(seed);
    std::vector<LeaseCell> own_cells(64);
    // On the heap: GCC 12's address sanitizer puts no local variable at a boundary of 64 bytes.
    const auto placed = std::make_unique<LeaseTable>(TableOptions{own_cells, 1});
    LeaseTable& own_table = *placed;
    FakeOwners own(own_table, now);
    own.extra = random.below(5);
    own.refuse_until = own.fits_at = owners.store_now() + 50ms;
    LeaseLedger one(own_table, own, [this] { return now; }, {.cache_entries = 8});
    const auto pick = [&] {
      return of("u" + std::to_string(random.below(4)), "r" + std::to_string(random.below(3)), 5,
                static_cast<std::uint32_t>(1 + random.below(2)));
    };
    std::map<std::string, std::uint64_t> truth;
    std::vector<std::pair<std::vector<AccountCharge>, Receipt>> receipts;
    for (int step = 0; step < 300; ++step) {
      own.at_once = random.one_in(2);
      own.up = !random.one_in(15);
      if (random.one_in(10)) now += 30ms;
      std::vector<AccountCharge> charges;
      for (std::uint64_t n = 1 + random.below(4); n > 0; --n) charges.push_back(pick());
      std::optional<ChargeOutcome> said;
      one.charge(charges, [&](ChargeOutcome&& o) { said = std::move(o); });
      if (random.one_in(3) && !own.at_once) now += 60ms;
      own.expire();
      own.up = true;
      own.deliver();
      own.at_once = true;
      now += 60ms;
      own.expire();
      ASSERT_TRUE(said) << "every charge is answered by its deadline";
      if (said->status == Status::admitted) {
        for (const AccountCharge& c : charges) truth[c.key.subject_key + "\n" + c.key.field] += c.units;
        receipts.emplace_back(charges, said->receipt);
      }
      if (!receipts.empty() && random.one_in(4)) {
        const std::size_t which = random.below(receipts.size());
        const auto& [given, receipt] = receipts[which];
        for (const auto& item : receipt.items)
          truth[given[item.charge].key.subject_key + "\n" + given[item.charge].key.field] -= item.units;
        one.give_back(given, receipt);
        receipts.erase(receipts.begin() + static_cast<std::ptrdiff_t>(which));
      }
      if (random.one_in(6)) one.read({pick()}, [](auto&&) {});
      for (auto& [name, sum] : truth) {
        const std::size_t cut = name.find('\n');
        const AccountRef account = own_table.find({name.substr(0, cut), name.substr(cut + 1)});
        ASSERT_EQ(own.books[name].used + account->cell->unsettled(), sum) << name;
        ASSERT_LE(sum, 5U) << name;
        ASSERT_EQ(own.books[name].lent, account->cell->available() + account->cell->unsettled()) << name;
      }
    }
  }
}

}  // namespace
}  // namespace tollgate::quota
