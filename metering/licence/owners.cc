#include "metering/licence/owners.h"

namespace tollgate::licence {

std::string OwnerTable::key_of(std::string_view upstream, std::string_view record) {
  std::string key(upstream);
  key.append(1, '\0').append(record);
  return key;
}

void OwnerTable::learn(std::string_view upstream, std::string_view record, std::string_view owner,
                       UnixTime now) {
  std::string key = key_of(upstream, record);
  Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  const auto [at, added] = shard.entries.try_emplace(key);
  Entry& entry = at->second;
  if (added) {
    shard.order.push_front(std::move(key));
    entry.place = shard.order.begin();
  } else {
    shard.order.splice(shard.order.begin(), shard.order, entry.place);
  }
  entry.owner = owner;
  entry.learned = now;
  if (shard.entries.size() <= shard_capacity_) return;
  shard.entries.erase(shard.order.back());
  shard.order.pop_back();
}

void OwnerTable::forget(std::string_view upstream, std::string_view record) {
  const std::string key = key_of(upstream, record);
  Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  const auto found = shard.entries.find(key);
  if (found == shard.entries.end()) return;
  shard.order.erase(found->second.place);
  shard.entries.erase(found);
}

std::optional<std::string> OwnerTable::find(std::string_view upstream, std::string_view record, UnixTime now,
                                            Milliseconds max_age) const {
  const std::string key = key_of(upstream, record);
  const Shard& shard = shard_of(key);
  std::lock_guard lock(shard.mutex);
  const auto found = shard.entries.find(key);
  if (found == shard.entries.end()) return std::nullopt;
  const UnixTime learned = found->second.learned;
  if (now - learned > max_age || learned - now > max_age)
    return std::nullopt;  // also when the clock went back
  return found->second.owner;
}

std::size_t OwnerTable::size() const {
  std::size_t all = 0;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    all += shard.entries.size();
  }
  return all;
}

}  // namespace tollgate::licence
