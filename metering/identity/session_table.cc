#include "metering/identity/session_table.h"

#include <algorithm>

namespace tollgate::identity {
namespace {

// What ended here is asked of the store again after this long: a new log-in may have been given the same
// credential.
constexpr Milliseconds kEndedBelieved{1'000};

// Also where the clock was set back meanwhile by more than that; workers read it a moment apart.
bool older(UnixTime then, UnixTime now, Milliseconds than) {
  return now - then > than || then - now > than;
}

}  // namespace

SessionTable::SessionTable(SessionSecret secret, std::size_t capacity)
    : secret_(std::move(secret)), shard_capacity_(std::max<std::size_t>(1, capacity / kShards)) {}

SessionTable::Entry& SessionTable::put(Shard& shard, const SessionKey& key) {
  if (auto found = shard.entries.find(key); found != shard.entries.end()) {
    shard.order.splice(shard.order.begin(), shard.order, found->second.place);
    return found->second;
  }
  if (shard.entries.size() >= shard_capacity_) {
    shard.entries.erase(shard.order.back());
    shard.order.pop_back();
  }
  shard.order.push_front(key);
  Entry& entry = shard.entries[key];
  entry.place = shard.order.begin();
  return entry;
}

SessionTable::Found SessionTable::find(const SessionKey& key, UnixTime now, const SessionTimes& times) {
  Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  auto found = shard.entries.find(key);
  if (found == shard.entries.end()) return {};
  Entry& entry = found->second;
  if (entry.record == nullptr)
    return {.state = older(entry.checked, now, kEndedBelieved) ? State::absent : State::ended,
            .record = nullptr};
  // It may have been used elsewhere: the store knows.
  if (now >= entry.record->deadline || older(entry.used, now, times.idle)) return {};
  entry.used = now;
  shard.order.splice(shard.order.begin(), shard.order, entry.place);
  return {.state = older(entry.checked, now, times.recheck) ? State::stale : State::current,
          .record = entry.record};
}

void SessionTable::bind(const SessionKey& key, std::shared_ptr<const SessionRecord> record, UnixTime now) {
  Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  Entry& entry = put(shard, key);
  entry.record = std::move(record);
  entry.used = entry.checked = entry.confirmed = entry.touched = now;
  entry.published = true;
}

void SessionTable::end(const SessionKey& key, UnixTime now) {
  bind(key, nullptr, now);
}

void SessionTable::set_published(const SessionKey& key, bool published) {
  Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  if (auto found = shard.entries.find(key); found != shard.entries.end()) found->second.published = published;
}

SessionTable::Verdict SessionTable::confirmed(const SessionKey& key,
                                              std::shared_ptr<const SessionRecord> record, UnixTime now,
                                              const SessionTimes& times) {
  Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  if (auto known = shard.entries.find(key); known != shard.entries.end() && !known->second.published) {
    known->second.checked = now;
    return {.record = known->second.record};
  }
  if (now >= record->deadline) return {};
  Entry& entry = put(shard, key);
  if (entry.record == nullptr || *entry.record != *record) {
    entry.record = std::move(record);
    entry.touched = {};
  }
  entry.used = entry.checked = entry.confirmed = now;
  const bool touch = older(entry.touched, now, times.idle / 8);
  if (touch) entry.touched = now;
  return {.record = entry.record, .touch = touch};
}

SessionTable::Verdict SessionTable::missing(const SessionKey& key, UnixTime now, const SessionTimes& times) {
  Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  auto found = shard.entries.find(key);
  if (found == shard.entries.end()) return {};
  Entry& entry = found->second;
  // The end of a session stays in the store for as long as one may go unused: later, its absence says
  // nothing.
  const bool unused_everywhere =
      older(entry.used, now, times.idle) || older(entry.confirmed, now, times.idle);
  if (entry.record != nullptr && (unused_everywhere || now >= entry.record->deadline)) {
    shard.order.erase(entry.place);
    shard.entries.erase(found);
    return {};
  }
  entry.checked = now;
  return {.record = entry.record, .publish = entry.record != nullptr};
}

void SessionTable::ended_elsewhere(const SessionKey& key, UnixTime now) {
  Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  auto found = shard.entries.find(key);
  if (found == shard.entries.end()) return;
  found->second.record = nullptr;
  found->second.checked = found->second.confirmed = now;
  found->second.published = true;
}

std::optional<std::shared_ptr<const SessionRecord>> SessionTable::unreachable(const SessionKey& key,
                                                                              UnixTime now) {
  Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  auto found = shard.entries.find(key);
  if (found == shard.entries.end()) return std::nullopt;
  found->second.checked = now;
  return found->second.record;
}

std::optional<std::shared_ptr<const SessionRecord>> SessionTable::peek(const SessionKey& key) const {
  const Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  auto found = shard.entries.find(key);
  if (found == shard.entries.end()) return std::nullopt;
  return found->second.record;
}

std::size_t SessionTable::size() const {
  std::size_t all = 0;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    all += shard.entries.size();
  }
  return all;
}

}  // namespace tollgate::identity
