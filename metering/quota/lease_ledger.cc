#include "metering/quota/lease_ledger.h"

#include <algorithm>

#include "metering/base/check.h"
#include "metering/quota/lease_ledger_impl.h"

namespace tollgate::quota {
namespace {

// Asking again has an end even when every answer is `granted` and comes at once.
constexpr unsigned kRoundsMax = 32;
constexpr std::size_t kOwedMax = 100'000;
constexpr std::size_t kKeptCharges = 8;  // one large batch must not make the worker large

}  // namespace

LeaseLedger::Impl::Impl(LeaseTable& table, OwnerPort& owners, std::function<MonotonicTime()> now,
                        LeaseLedgerOptions options)
    : options_(options),
      table_(table),
      owners_(owners),
      now_(std::move(now)),
      handles_(options.cache_entries, options.hash_seed),
      alive_(std::make_shared<Impl*>(this)) {
  table_.announce(options_.worker);
}

LeaseLedger::Impl::~Impl() {
  *alive_ = nullptr;
  while (!calls_.empty()) unavailable(*calls_.begin(), "the proxy is stopping");
  table_.leave(options_.worker);
}

void LeaseLedger::Impl::tick() {
  std::erase_if(owed_, [&](Owed& one) {
    std::string error;
    std::int64_t bucket = 0;
    if (admit_forced(*one.account, partition(*one.account), one.units, now_(), bucket)) return true;
    if (!one.account->retired.load()) return false;
    auto again = table_.find_or_create(one.key, one.account->shape, one.account->limited);
    if (again) one.account = *again;
    return false;
  });
  table_.announce(options_.worker);
}

void LeaseLedger::Impl::charge(std::span<const AccountCharge> charges, ChargeDone done) {
  CallRef call = spare_ ? std::move(spare_) : std::make_shared<Call>();
  spare_ = nullptr;
  call->charges.assign(charges.begin(), charges.end());  // into the texts of the charges before, where it can
  call->done = std::move(done);
  call->asked.clear();
  call->round = 0;
  if (options_.on_outage == OutagePolicy::deny)
    for (const AccountCharge& one : call->charges)
      if (!one.shadow && !owners_.store_up(partition_of(one.key.subject_key)))
        return unavailable(call, "the quota store is down");
  run(call, false);
}

// ---- one attempt

AccountRef LeaseLedger::Impl::look_up(const AccountCharge& charge, std::string& error) {
  const LeaseHandles::Hash hash = handles_.hash(charge.key);
  const bool limited = charge.limit != kUnlimited;
  if (const AccountRef* found = handles_.find(hash))
    if ((*found)->shape.window == charge.window && (*found)->shape.bucket == charge.bucket &&
        (*found)->limited == limited)
      return *found;
  auto made = table_.find_or_create(charge.key, {charge.window, charge.bucket}, limited);
  if (!made) {
    ++counters_.table_full;
    error = made.error().message;
    return nullptr;
  }
  if (handles_.find(hash) == nullptr) handles_.insert(hash, *made);
  return *std::move(made);
}

void LeaseLedger::Impl::attempt_one(const AccountCharge& charge, Slot& slot, MonotonicTime now) {
  Account& account = *slot.account;
  slot.forced = charge.limit == kUnlimited || !account.limited;
  if (charge.limit == kUnlimited) {  // also where an account of the old configuration still has a limit
    if (admit_forced(account, partition(account), charge.units, now, slot.bucket)) {
      slot.state = Slot::State::taken;
    } else if (partition(account).clock.known() && !account.retired.load(std::memory_order_acquire)) {
      slot.state =
          Slot::State::uncounted;  // the cell is full: nothing of a thousand million has been settled
      ++counters_.table_full;
    }
    return;
  }
  slot.view = account.view();
  if (!account.limited)
    return;  // had no limit until now: uncounted against this one, so the owner must retire it first
  if (slot.view.rule_limit != 0 && slot.view.rule_limit != charge.limit) {
    if (account.limit_told.exchange(charge.limit, std::memory_order_relaxed) != charge.limit)
      owners_.limit_changed(slot.account, charge.limit);
    if (charge.limit < slot.view.rule_limit && account.view().rule_limit != charge.limit) return;
  }
  if (admit(account, partition(account), charge.units, now, slot.bucket) == Admission::admitted)
    slot.state = Slot::State::taken;
}

// False: an account that must be counted has no place.
bool LeaseLedger::Impl::attempt(Call& call, MonotonicTime now, std::string& error) {
  call.slots.assign(call.charges.size(), Slot{});
  bool places = true;
  for (std::size_t i = 0; i < call.charges.size(); ++i) {
    const AccountCharge& charge = call.charges[i];
    CHECK(charge.units > 0, "a charge has units");
    Slot& slot = call.slots[i];
    slot.account = look_up(charge, error);
    if (slot.account) {
      attempt_one(charge, slot, now);
      if (slot.state != Slot::State::lacking || !slot.account->retired.load(std::memory_order_acquire))
        continue;
      slot.account = look_up(charge, error);  // retired since we looked
      if (slot.account) {
        attempt_one(charge, slot, now);
        continue;
      }
    }
    slot.state = Slot::State::uncounted;
    if (charge.limit != kUnlimited && !charge.shadow) places = false;
  }
  return places;
}

// Lacking, and asking would not help: the store has just refused it, or did lately and it still holds.
bool LeaseLedger::Impl::denied(const Call& call, std::size_t index) const {
  const AccountCharge& charge = call.charges[index];
  const Slot& slot = call.slots[index];
  if (slot.state != Slot::State::lacking || charge.limit == kUnlimited) return false;
  if (charge.units > kTokensMax) return true;
  if (answer_of(call, slot.account) == Answer::refused) return true;
  const AccountView view = slot.account->view();
  if (view.rule_limit != charge.limit || view.denied_units == 0) return false;
  const MonotonicTime now = now_();
  const PartitionState& state = partition(*slot.account);
  const auto hi = state.clock.hi_if_known(now);
  if (!hi || *hi >= view.denied_until) return false;
  const std::uint32_t held = tokens_valid(*slot.account, state, now);
  return charge.units > held && charge.units - held >= view.denied_units;
}

void LeaseLedger::Impl::undo(Call& call) {
  for (std::size_t i = call.slots.size(); i-- > 0;) {
    Slot& slot = call.slots[i];
    if (slot.state != Slot::State::taken) continue;
    put_back(slot.account, slot.bucket, call.charges[i].units, slot.forced);
    slot.state = Slot::State::lacking;
  }
}

void LeaseLedger::Impl::put_back(const AccountRef& account, std::int64_t bucket, std::uint32_t units,
                                 bool forced) {
  if (!account->retired.load(std::memory_order_acquire)) {
    if (!account->cell->put_back(bucket, units, forced)) owners_.take_back(account, bucket, units);
    return;
  }
  // Without a place for it the units stay charged: the safe side.
  auto again =
      table_.find_or_create({account->subject->key, account->field}, account->shape, account->limited);
  if (again) owners_.take_back(*again, bucket, units);
}

// ---- a call from attempt to attempt

// One attempt and what follows from it. `last`: nothing more can be waited for.
void LeaseLedger::Impl::run(const CallRef& call, bool last) {
  // What is told to owners below may bring answers at once; this call is decided without them.
  call->awaited = 0;
  std::string error;
  const MonotonicTime now = now_();
  const bool places = attempt(*call, now, error);
  const bool allow = options_.on_outage == OutagePolicy::allow;
  if (!places && !allow) {
    undo(*call);
    return unavailable(call, std::move(error));
  }
  bool lacking = false, refused = false, away = false, shadow_lacking = false;
  for (std::size_t i = 0; i < call->slots.size(); ++i) {
    Slot& slot = call->slots[i];
    if (slot.state != Slot::State::lacking) continue;
    slot.denied = denied(*call, i);
    const bool no_answer = last || answer_of(*call, slot.account) == Answer::unavailable;
    if (call->charges[i].shadow) {
      // What nobody can say of a candidate limit holds nobody up.
      shadow_lacking = shadow_lacking || (!slot.denied && !no_answer);
      continue;
    }
    lacking = true;
    refused = refused || slot.denied;
    away = away || no_answer;
  }
  if (refused) {
    bool more = false;
    for (std::size_t i = 0; i < call->slots.size() && !last; ++i)
      more = more || (call->slots[i].state == Slot::State::lacking && may_refuse_too(*call, i));
    undo(*call);
    return more ? ask(call, true) : refuse(call);
  }
  if (lacking && away) {
    if (!allow) {
      undo(*call);
      if (last) ++counters_.timeouts;
      return unavailable(call, last ? "the quota store did not answer in time" : "the quota store is down");
    }
    let_through(*call);
    return admit_call(call, now);
  }
  if (!lacking && !shadow_lacking) return admit_call(call, now);
  undo(*call);
  ask(call, false);
}

// Counts what lacks all the same (on_outage: allow).
void LeaseLedger::Impl::let_through(Call& call) {
  for (std::size_t i = 0; i < call.slots.size(); ++i) {
    Slot& slot = call.slots[i];
    if (slot.state != Slot::State::lacking || call.charges[i].shadow) continue;
    slot.forced = true;
    if (admit_forced(*slot.account, partition(*slot.account), call.charges[i].units, now_(), slot.bucket)) {
      slot.state = Slot::State::taken;
    } else if (owed_.size() < kOwedMax) {
      slot.state = Slot::State::owed;
      owed_.push_back({slot.account, call.charges[i].key, call.charges[i].units});
    } else {
      slot.state = Slot::State::uncounted;
    }
  }
}

std::optional<LeaseLedger::Impl::Answer> LeaseLedger::Impl::answer_of(const Call& call,
                                                                      const AccountRef& account) const {
  const auto found = std::ranges::find(call.asked, account, &Asked::account);
  return found == call.asked.end() ? std::nullopt : found->answer;
}

// Of a call that is refused anyway: whether this charge may lack room as well, and for longer. Asked once a call.
bool LeaseLedger::Impl::may_refuse_too(const Call& call, std::size_t index) const {
  const AccountCharge& charge = call.charges[index];
  const Slot& slot = call.slots[index];
  return !charge.shadow && charge.limit != kUnlimited && slot.account && !slot.denied &&
         !answer_of(call, slot.account) && owners_.store_up(slot.account->partition);
}

// `refused`: the call will not be admitted; only what may_refuse_too() is asked.
void LeaseLedger::Impl::ask(const CallRef& call, bool refused) {
  struct Need {
    std::uint64_t units = 0, limit = 0;
    bool enforced = false;
  };
  std::vector<std::pair<AccountRef, Need>> needs;
  for (std::size_t i = 0; i < call->slots.size(); ++i) {
    const Slot& slot = call->slots[i];
    if (!slot.account || slot.denied || (refused && !may_refuse_too(*call, i))) continue;
    auto found = std::ranges::find(needs, slot.account, &std::pair<AccountRef, Need>::first);
    if (found == needs.end()) found = needs.insert(needs.end(), {slot.account, {}});
    const AccountCharge& charge = call->charges[i];
    found->second.units += charge.units;
    found->second.limit = charge.limit;
    found->second.enforced = found->second.enforced || (!charge.shadow && charge.limit != kUnlimited);
  }
  const MonotonicTime now = now_();
  std::erase_if(needs, [&](auto& one) {
    const Account& account = *one.first;
    const PartitionState& state = partition(account);
    if (!account.limited && one.second.limit == kUnlimited) return state.clock.known();
    const AccountView view = account.view();
    const bool lowered = view.rule_limit != 0 && one.second.limit < view.rule_limit;
    const std::uint64_t held = lowered ? 0 : tokens_valid(account, state, now);
    if (held >= one.second.units) return true;
    one.second.units -= held;
    return false;
  });
  if (++call->round > kRoundsMax) return run(call, true);
  if (!call->timer) {
    ++counters_.waited;
    calls_.insert(call);
    std::weak_ptr<Call> waiting = call;
    call->timer = owners_.timer(options_.timeout, [this, waiting] {
      const CallRef late = waiting.lock();
      if (late && calls_.contains(late)) run(late, true);
    });
  }
  if (needs.empty()) return run(call, false);  // they came back meanwhile
  for (const auto& [account, need] : needs) {
    std::erase_if(call->asked, [&](const Asked& one) { return one.account == account; });
    call->asked.push_back({account, need.enforced, std::nullopt});
  }
  call->awaited = needs.size();
  const unsigned round = call->round;
  for (auto& [account, need] : needs) {
    if (!calls_.contains(call) || call->round != round) return;  // decided by an earlier answer
    const auto units = static_cast<std::uint32_t>(std::min<std::uint64_t>(need.units, UINT32_MAX));
    owners_.request(account, units, need.limit,
                    [alive = alive_, waiting = std::weak_ptr<Call>(call), round, account](Answer answer) {
                      const CallRef asked = waiting.lock();
                      if (*alive != nullptr && asked) (*alive)->on_answer(asked, round, account, answer);
                    });
  }
}

void LeaseLedger::Impl::on_answer(const CallRef& call, unsigned round, const AccountRef& account,
                                  Answer answer) {
  if (call->round != round || call->awaited == 0 || !calls_.contains(call)) return;
  const auto found = std::ranges::find(call->asked, account, &Asked::account);
  CHECK(found != call->asked.end(), "an answer was asked for");
  found->answer = answer;
  if (--call->awaited == 0) return run(call, false);
  // A refused call waits for those that may refuse it as well and for longer, not for candidate limits.
  bool refused = false, open = false;
  for (const Asked& one : call->asked) {
    refused = refused || (one.enforced && one.answer == Answer::refused);
    open = open || (one.enforced && !one.answer);
  }
  if (refused && !open) run(call, false);
}

// ---- the three ends

void LeaseLedger::Impl::admit_call(const CallRef& call, MonotonicTime now) {
  ChargeOutcome& outcome = call->outcome;
  outcome.clear();
  outcome.status = ChargeOutcome::Status::admitted;
  outcome.states.reserve(call->charges.size());
  outcome.receipt.items.reserve(call->charges.size());
  for (std::size_t i = 0; i < call->charges.size(); ++i) {
    const AccountCharge& charge = call->charges[i];
    Slot& slot = call->slots[i];
    const bool limited = charge.limit != kUnlimited;
    const bool left_out = charge.shadow && slot.state == Slot::State::lacking;
    if (limited)
      outcome.states.push_back(state(charge, slot.account.get(), slot.view, now, left_out && slot.denied));
    else
      outcome.states.push_back({.limit = kUnlimited});
    if (left_out) {
      if (slot.denied) outcome.shadow_violated.push_back(static_cast<std::uint32_t>(i));
      continue;
    }
    const bool degraded = limited && (slot.state != Slot::State::taken || slot.forced) &&
                          !(charge.shadow && slot.state == Slot::State::uncounted);
    outcome.degraded = outcome.degraded || degraded;
    if (slot.state == Slot::State::uncounted) continue;
    const std::int64_t bucket = slot.state == Slot::State::taken ? slot.bucket : INT64_MIN;
    outcome.receipt.items.push_back({static_cast<std::uint32_t>(i), bucket, charge.units,
                                     slot.account->shape.window, slot.account->shape.bucket, degraded});
    Account& account = *slot.account;
    if (!account.limited || slot.forced || account.cell->available() > slot.view.lease / 4) continue;
    // Known to be full: a prefetch would only be refused.
    const auto hi = partition(account).clock.hi_if_known(now);
    if (hi && *hi < slot.view.denied_until) continue;
    if (!account.refill_asked.exchange(true, std::memory_order_relaxed)) {
      ++counters_.prefetches;
      owners_.prefetch(slot.account);
    }
  }
  if (outcome.degraded) ++counters_.degraded;
  finish(call);
}

void LeaseLedger::Impl::refuse(const CallRef& call) {
  ChargeOutcome& outcome = call->outcome;
  outcome.clear();
  outcome.status = ChargeOutcome::Status::exceeded;
  const MonotonicTime now = now_();
  for (std::size_t i = 0; i < call->charges.size(); ++i) {
    const Slot& slot = call->slots[i];
    if (slot.denied)
      (call->charges[i].shadow ? outcome.shadow_violated : outcome.violated)
          .push_back(static_cast<std::uint32_t>(i));
    const AccountView view = slot.account ? slot.account->view() : AccountView{};
    outcome.states.push_back(state(call->charges[i], slot.account.get(), view, now, slot.denied));
  }
  if (!call->timer) ++counters_.denied_locally;
  finish(call);
}

void LeaseLedger::Impl::unavailable(const CallRef& call, std::string why) {
  call->outcome.clear();
  call->outcome.error = std::move(why);
  ++counters_.unavailable;
  finish(call);
}

void LeaseLedger::Impl::finish(const CallRef& call) {
  const CallRef held = call;
  ChargeDone done = std::move(held->done);
  ChargeOutcome outcome = std::move(held->outcome);  // another charge may use `held` before done() is back
  if (!held->timer) {
    ++counters_.local;
    held->slots.clear();
    if (held->charges.size() > kKeptCharges) held->charges.clear();
    if (held.use_count() <= 2) spare_ = held;  // nobody but our callers knows it
  } else {
    calls_.erase(held);
    held->timer = nullptr;
    held->awaited = 0;
  }
  done(std::move(outcome));
  held->outcome = std::move(outcome);
}

// ---- the class

LeaseLedger::LeaseLedger(LeaseTable& table, OwnerPort& owners, std::function<MonotonicTime()> now,
                         LeaseLedgerOptions options)
    : impl_(std::make_unique<Impl>(table, owners, std::move(now), options)) {}
LeaseLedger::~LeaseLedger() = default;
void LeaseLedger::charge(std::span<const AccountCharge> charges, ChargeDone done) {
  impl_->charge(charges, std::move(done));
}
void LeaseLedger::give_back(std::span<const AccountCharge> charges, const Receipt& receipt) {
  impl_->give_back(charges, receipt);
}
void LeaseLedger::read(std::vector<AccountCharge> accounts, ReadDone done) {
  impl_->read(std::move(accounts), std::move(done));
}
void LeaseLedger::list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
                       ListDone done) {
  impl_->list(std::move(subject_key), std::move(prefix), window, bucket, std::move(done));
}
void LeaseLedger::set_outage_policy(OutagePolicy policy) {
  impl_->options_.on_outage = policy;
}
void LeaseLedger::tick() {
  impl_->tick();
}
const LeaseLedger::Counters& LeaseLedger::counters() const {
  return impl_->counters_;
}

}  // namespace tollgate::quota
