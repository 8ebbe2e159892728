#include "tests/sim/truth.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/check.h"

namespace tollgate::sim {

std::string name_of(const quota::AccountKey& key) {
  return key.subject_key + "\n" + key.field;
}

std::uint64_t TruthAccount::highest_limit(Duration from, Duration to) const {
  std::uint64_t highest = 0;
  for (std::size_t i = 0; i < limits.size(); ++i) {
    const bool over_before = i + 1 < limits.size() && limits[i + 1].at <= from;
    if (!over_before && limits[i].at <= to) highest = std::max(highest, limits[i].limit);
  }
  return highest;
}

std::uint64_t TruthAccount::lowest_limit(Duration from, Duration to) const {
  std::uint64_t lowest = UINT64_MAX;
  for (std::size_t i = 0; i < limits.size(); ++i) {
    const bool over_before = i + 1 < limits.size() && limits[i + 1].at <= from;
    if (!over_before && limits[i].at <= to) lowest = std::min(lowest, limits[i].limit);
  }
  return lowest;
}

std::int64_t TruthAccount::between(Duration from, Duration to) const {
  std::int64_t sum = 0;
  for (auto entry = entries.rbegin(); entry != entries.rend() && entry->at > from; ++entry)
    if (!entry->gone && entry->at <= to) sum += entry->units;
  return sum;
}

std::int64_t TruthAccount::live_at(Milliseconds store_now) const {
  std::int64_t sum = 0;
  for (const Entry& entry : entries)
    if (!entry.gone && shape.live(entry.bucket, store_now)) sum += entry.units;
  return sum;
}

TruthAccount& Truth::add(const quota::AccountKey& key, const quota::WindowShape& shape, bool limited,
                         bool shadow, std::uint64_t limit) {
  TruthAccount& account = accounts_[name_of(key)];
  account.key = key;
  account.shape = shape;
  account.limited = limited;
  account.shadow = shadow;
  account.rule_limit = limit;
  account.limits = {{Duration(0), limit}};
  return account;
}

TruthAccount* Truth::find(const quota::AccountKey& key) {
  auto found = accounts_.find(name_of(key));
  return found == accounts_.end() ? nullptr : &found->second;
}

void Truth::set_limit(TruthAccount& account, Duration now, std::uint64_t limit) {
  if (account.limits.back().limit != limit) account.limits.push_back({now, limit});
}

void Truth::advance(TruthAccount& account, Duration now) const {
  const Duration window = account.shape.window;
  while (account.window_begin < account.entries.size() &&
         account.entries[account.window_begin].at <= now - window) {
    const auto& entry = account.entries[account.window_begin++];
    if (!entry.gone && !entry.degraded) account.in_window -= entry.units;
  }
  while (account.window_begin > 0 && account.entries.front().at <= now - 3 * window - 4 * settle_time_) {
    account.entries.pop_front();
    --account.window_begin;
  }
}

std::optional<std::string> Truth::admitted(TruthAccount& account, Duration now, std::uint64_t id,
                                           std::int64_t units, std::int64_t bucket, bool degraded) {
  advance(account, now);
  account.entries.push_back({now, id, units, bucket, degraded, false});
  account.total += units;
  units_ += static_cast<std::uint64_t>(units);
  if (degraded) return std::nullopt;
  account.in_window += units;
  account.most = std::max(account.most, account.in_window);
  if (!account.limited) return std::nullopt;
  if (account.in_window <= static_cast<std::int64_t>(account.limit_now())) return std::nullopt;
  const std::uint64_t bound =
      account.highest_limit(now - account.shape.window - settle_time_ - account.shape.window / 4, now);
  if (account.in_window <= static_cast<std::int64_t>(bound)) return std::nullopt;
  return fmt::format("safety: {} {} admitted {} units in {} ms, the limit is {}", account.key.subject_key,
                     account.key.field, account.in_window, account.shape.window.count(), bound);
}

void Truth::given_back(TruthAccount& account, std::uint64_t id) {
  for (std::size_t i = account.entries.size(); i-- > 0;) {
    auto& entry = account.entries[i];
    if (entry.id != id || entry.gone) continue;
    entry.gone = true;
    account.total -= entry.units;
    units_ -= static_cast<std::uint64_t>(entry.units);
    if (!entry.degraded && i >= account.window_begin) account.in_window -= entry.units;
    return;
  }
}

}  // namespace tollgate::sim
