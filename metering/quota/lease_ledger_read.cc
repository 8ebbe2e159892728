// What a ledger tells of accounts, and what it is given back.
#include <algorithm>

#include "metering/base/check.h"
#include "metering/quota/lease_ledger_impl.h"

namespace tollgate::quota {
namespace {

constexpr Milliseconds kAtOnce{1};
// Reads are for people and reports: they may take longer than a call may wait.
constexpr int kReadPatience = 20;

}  // namespace

AccountState LeaseLedger::Impl::state(const AccountCharge& charge, const Account* account,
                                      const AccountView& view, MonotonicTime now, bool refused) const {
  AccountState out;
  out.limit = charge.limit;
  if (account == nullptr) return out;
  const bool answered = view.rule_limit == charge.limit && view.rule_limit != 0;
  if (answered && charge.limit != kUnlimited) out.limit = view.limit;
  const std::uint64_t unsettled = account->cell->unsettled();
  out.used = view.used + unsettled;
  const PartitionState& state = partition(*account);
  const Milliseconds lo = state.clock.known() ? state.clock.lo(now) : Milliseconds(0);
  if (lo > Milliseconds(0)) {
    std::uint64_t stored = view.used;
    if (view.next_free_at > lo) {
      out.next_free_after = view.next_free_at - lo;
      out.next_free_units = view.next_free_units;
    } else if (view.next_free_at > Milliseconds(0)) {
      const std::uint64_t left = std::min(view.next_free_units, stored);  // by now, whatever else has
      stored -= left;
      out.used -= left;
    }
    if (out.next_free_after == Milliseconds(0) && out.used > 0) {
      // What is next is not known; what is counted now leaves then, at the latest.
      const WindowShape& shape = account->shape;
      out.next_free_after = shape.leaves_at(shape.bucket_of(state.clock.hi(now))) - lo;
      out.next_free_units = out.used;
    }
  }
  if (!refused) return out;
  if (charge.units > kTokensMax || charge.units > out.limit || view.fits_at == Milliseconds::max()) {
    out.admitted_after = Milliseconds::max();
  } else {
    const Milliseconds at = view.fits_at > Milliseconds(0) ? view.fits_at : view.denied_until;
    out.admitted_after = std::max(kAtOnce, lo > Milliseconds(0) ? at - lo : kAtOnce);
  }
  return out;
}

AccountRef LeaseLedger::Impl::cached(const AccountKey& key) {
  if (const AccountRef* found = handles_.find(handles_.hash(key))) return *found;
  return table_.find(key);
}

void LeaseLedger::Impl::give_back(std::span<const AccountCharge> charges, const Receipt& receipt) {
  for (const Receipt::Item& item : receipt.items) {
    CHECK(item.charge < charges.size(), "a receipt goes with its charges");
    const AccountKey& key = charges[item.charge].key;
    ++counters_.given_back;
    if (item.bucket_number == INT64_MIN) {
      // Let through before any clock was known: still owed, or counted meanwhile in a bucket that nobody noted. Then it
      // stays charged.
      auto owed = std::ranges::find_if(
          owed_, [&](const Owed& one) { return one.key == key && one.units == item.units; });
      if (owed != owed_.end()) owed_.erase(owed);
      continue;
    }
    const WindowShape shape{item.window, item.bucket};
    AccountRef account = cached(key);
    if (!account || account->shape.window != shape.window || account->shape.bucket != shape.bucket) {
      // Settled and gone: the store is told. A receipt does not say whether there was a limit, but the field does.
      auto made = table_.find_or_create(key, shape, !key.field.starts_with(kObservationField));
      if (!made || (*made)->shape.window != shape.window || (*made)->shape.bucket != shape.bucket)
        continue;  // stays charged
      owners_.take_back(*made, item.bucket_number, item.units);
      continue;
    }
    put_back(account, item.bucket_number, item.units, item.degraded || !account->limited);
  }
}

// ---- reads

void LeaseLedger::Impl::settled_one(const std::shared_ptr<Settling>& settling, bool settled) {
  if (settling->over) return;
  settling->all = settling->all && settled;
  if (--settling->awaited > 0 && settled) return;
  settling->over = true;
  settling->timer = nullptr;
  settlings_.erase(settling);
  const auto then = std::move(settling->then);
  then(settling->all);
}

// Brings what this proxy has admitted into the store's books, so that the answer that follows is exact for it.
void LeaseLedger::Impl::settle_all(const std::vector<AccountCharge>& accounts,
                                   std::function<void(bool)> then) {
  std::vector<std::string> subjects;
  for (const AccountCharge& one : accounts) subjects.push_back(one.key.subject_key);
  std::ranges::sort(subjects);
  const auto rest = std::ranges::unique(subjects);
  subjects.erase(rest.begin(), rest.end());
  if (subjects.empty()) return then(true);
  auto settling = std::make_shared<Settling>();
  settling->awaited = subjects.size();
  settling->then = std::move(then);
  settlings_.insert(settling);
  settling->timer =
      owners_.timer(options_.timeout * kReadPatience, [alive = alive_, weak = std::weak_ptr(settling)] {
        if (auto late = weak.lock(); late && *alive != nullptr) (*alive)->settled_one(late, false);
      });
  for (std::string& subject : subjects)
    owners_.settle(std::move(subject), [alive = alive_, settling](bool settled) {
      if (*alive != nullptr) (*alive)->settled_one(settling, settled);
    });
}

// While the store is away: what it said last, and what was admitted here since.
Result<std::vector<AccountState>> LeaseLedger::Impl::states_from_memory(
    const std::vector<AccountCharge>& accounts) {
  std::vector<AccountState> states;
  states.reserve(accounts.size());
  for (const AccountCharge& one : accounts) {
    const AccountRef account = cached(one.key);
    if (!account || account->view().rule_limit == 0)
      return fail(Origin::store,
                  "the quota store cannot be asked, and nothing is remembered of " + one.key.field, true);
    const AccountView view = account ? account->view() : AccountView{};
    states.push_back(state(one, account.get(), view, now_(), false));
  }
  return states;
}

void LeaseLedger::Impl::read(std::vector<AccountCharge> accounts, ReadDone done) {
  auto asked = std::make_shared<std::vector<AccountCharge>>(std::move(accounts));
  settle_all(*asked, [this, alive = alive_, asked, done = std::move(done)](bool settled) {
    if (!settled) return done(states_from_memory(*asked));
    owners_.read(*asked, [alive, asked, done](Result<std::vector<LeaseState>>&& answer) {
      if (*alive == nullptr) return done(fail(Origin::self, "the proxy is stopping"));
      Impl& self = **alive;
      if (!answer || answer->size() != asked->size()) return done(self.states_from_memory(*asked));
      std::vector<AccountState> states;
      states.reserve(answer->size());
      for (std::size_t i = 0; i < answer->size(); ++i) {
        const LeaseState& stored = (*answer)[i];
        AccountState one;
        one.used = stored.used;
        one.limit = stored.limit;
        const StoreClock& clock =
            self.table_.partition(tollgate::quota::partition_of((*asked)[i].key.subject_key)).clock;
        if (stored.next_free_at > Milliseconds(0) && clock.known()) {
          one.next_free_after = std::max(kAtOnce, stored.next_free_at - clock.lo(self.now_()));
          one.next_free_units = stored.next_free_units;
        }
        states.push_back(one);
      }
      done(std::move(states));
    });
  });
}

void LeaseLedger::Impl::list(std::string subject_key, std::string prefix, Milliseconds window,
                             Milliseconds bucket, ListDone done) {
  AccountCharge subject;
  subject.key.subject_key = subject_key;
  settle_all({subject}, [this, alive = alive_, subject_key, prefix, window, bucket,
                         done = std::move(done)](bool settled) {
    const auto from_memory = [alive, subject_key, prefix, done] {
      if (*alive == nullptr) return done(fail(Origin::self, "the proxy is stopping"));
      std::vector<Listed> listed;
      for (const AccountRef& account : (*alive)->table_.of_subject(subject_key)) {
        if (!account->field.starts_with(prefix)) continue;
        const std::uint64_t used = account->view().used + account->cell->unsettled();
        if (used > 0) listed.push_back({account->field, used});
      }
      if (listed.empty())
        return done(fail(Origin::store, "the quota store cannot be asked, and nothing is remembered", true));
      done(std::move(listed));
    };
    if (!settled) return from_memory();
    owners_.list(subject_key, prefix, window, bucket,
                 [from_memory, done](Result<std::vector<Listed>>&& answer) {
                   if (!answer) return from_memory();
                   done(std::move(answer));
                 });
  });
}

}  // namespace tollgate::quota
