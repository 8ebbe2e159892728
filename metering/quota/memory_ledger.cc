#include "metering/quota/memory_ledger.h"

#include <algorithm>

#include "metering/base/check.h"

namespace tollgate::quota {
namespace {

std::string map_key(const AccountKey& key) {
  std::string out;
  out.reserve(key.subject_key.size() + key.field.size() + 1);
  return out.append(key.subject_key).append("\n").append(key.field);
}

AccountState state_of(const RollingWindow& window, const WindowShape& shape, Milliseconds now,
                      std::uint64_t limit) {
  AccountState state;
  state.used = window.used();
  state.limit = limit;
  if (const RollingWindow::Bucket oldest = window.oldest(); oldest.count > 0) {
    state.next_free_after = shape.leaves_at(oldest.number) - now;
    state.next_free_units = oldest.count;
  }
  return state;
}

}  // namespace

MemoryLedger::MemoryLedger(std::function<Milliseconds()> store_clock)
    : store_clock_(std::move(store_clock)) {}

Milliseconds MemoryLedger::now() {
  return latest_ = std::max(latest_, store_clock_());
}

MemoryLedger::Account& MemoryLedger::account(const AccountKey& key, const WindowShape& shape,
                                             Milliseconds now) {
  Account& account =
      accounts_.try_emplace(map_key(key), Account{RollingWindow(shape.bucket), std::nullopt}).first->second;
  if (account.window.bucket() != shape.bucket) account.window.rebucket(shape.bucket);
  account.window.prune(shape, now);
  return account;
}

void MemoryLedger::drop_if_empty(const AccountKey& key) {
  auto found = accounts_.find(map_key(key));
  if (found != accounts_.end() && found->second.window.used() == 0 && !found->second.limit_override)
    accounts_.erase(found);
}

void MemoryLedger::charge(std::span<const AccountCharge> charges, ChargeDone done) {
  ChargeOutcome outcome;
  if (!available_) {
    outcome.error = "the store is unavailable";
    return done(std::move(outcome));
  }
  const Milliseconds at = now();
  outcome.states.reserve(charges.size());
  for (std::uint32_t i = 0; i < charges.size(); ++i) {
    const AccountCharge& charge = charges[i];
    CHECK(charge.units > 0, "a charge has units");
    const WindowShape shape{charge.window, charge.bucket};
    const Account& one = account(charge.key, shape, at);
    const std::uint64_t limit = one.limit_override.value_or(charge.limit);
    // The same account twice in one call needs room for the sum of what will be charged.
    std::uint64_t units = charge.units;
    for (std::uint32_t before = 0; before < i; ++before)
      if (charges[before].key == charge.key &&
          std::ranges::find(outcome.shadow_violated, before) == outcome.shadow_violated.end())
        units += charges[before].units;
    AccountState state = state_of(one.window, shape, at, limit);
    if (limit != kUnlimited) state.admitted_after = one.window.fits_after(shape, at, limit, units);
    if (state.admitted_after > Milliseconds(0))
      (charge.shadow ? outcome.shadow_violated : outcome.violated).push_back(i);
    outcome.states.push_back(state);
  }
  if (!outcome.violated.empty()) {
    outcome.status = ChargeOutcome::Status::exceeded;
    for (const AccountCharge& charge : charges) drop_if_empty(charge.key);
    return done(std::move(outcome));
  }
  outcome.status = ChargeOutcome::Status::admitted;
  for (std::uint32_t i = 0; i < charges.size(); ++i) {
    const AccountCharge& charge = charges[i];
    if (std::ranges::find(outcome.shadow_violated, i) != outcome.shadow_violated.end()) continue;
    const WindowShape shape{charge.window, charge.bucket};
    const std::int64_t number = account(charge.key, shape, at).window.add(shape.bucket_of(at), charge.units);
    outcome.receipt.items.push_back({i, number, charge.units, charge.window, charge.bucket});
  }
  for (std::size_t i = 0; i < charges.size(); ++i) {
    const WindowShape shape{charges[i].window, charges[i].bucket};
    const Milliseconds admitted_after =
        outcome.states[i].admitted_after;  // of a candidate limit without room
    outcome.states[i] =
        state_of(account(charges[i].key, shape, at).window, shape, at, outcome.states[i].limit);
    outcome.states[i].admitted_after = admitted_after;
  }
  done(std::move(outcome));
}

void MemoryLedger::give_back(std::span<const AccountCharge> charges, const Receipt& receipt) {
  if (!available_) return;
  const Milliseconds at = now();
  for (const Receipt::Item& item : receipt.items) {
    const WindowShape shape{item.window, item.bucket};
    const AccountKey& key = charges[item.charge].key;
    account(key, shape, at).window.remove(shape, at, item.bucket_number, item.units);
    drop_if_empty(key);
  }
}

void MemoryLedger::read(std::vector<AccountCharge> accounts, ReadDone done) {
  if (!available_) return done(fail(Origin::store, "the store is unavailable", true));
  const Milliseconds at = now();
  std::vector<AccountState> states;
  states.reserve(accounts.size());
  for (const AccountCharge& asked : accounts) {
    const WindowShape shape{asked.window, asked.bucket};
    const Account& one = account(asked.key, shape, at);
    states.push_back(state_of(one.window, shape, at, one.limit_override.value_or(asked.limit)));
    drop_if_empty(asked.key);
  }
  done(std::move(states));
}

void MemoryLedger::list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
                        ListDone done) {
  if (!available_) return done(fail(Origin::store, "the store is unavailable", true));
  const Milliseconds at = now();
  const WindowShape shape{window, bucket};
  const std::size_t field_at = subject_key.size() + 1;
  const std::string first = map_key({std::move(subject_key), std::move(prefix)});
  std::vector<Listed> listed;
  for (auto entry = accounts_.lower_bound(first); entry != accounts_.end() && entry->first.starts_with(first);
       ++entry) {
    RollingWindow window_now = entry->second.window;
    if (window_now.bucket() != bucket) window_now.rebucket(bucket);
    window_now.prune(shape, at);
    if (window_now.used() > 0) listed.push_back({entry->first.substr(field_at), window_now.used()});
  }
  done(std::move(listed));
}

void MemoryLedger::set_override(const AccountKey& key, std::optional<std::uint64_t> limit) {
  auto found =
      accounts_.try_emplace(map_key(key), Account{RollingWindow(Milliseconds(1)), std::nullopt}).first;
  found->second.limit_override = limit;
  drop_if_empty(key);
}

std::string MemoryLedger::record(const AccountKey& key) const {
  auto found = accounts_.find(map_key(key));
  return found == accounts_.end() ? std::string() : found->second.window.encode();
}

}  // namespace tollgate::quota
