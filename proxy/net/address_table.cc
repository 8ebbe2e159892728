#include "proxy/net/address_table.h"

#include <cstring>
#include <list>
#include <mutex>
#include <unordered_map>

#include "metering/base/check.h"

namespace tollgate::net {

namespace {

using Key = std::pair<http::IpAddress, std::uint64_t>;  // with its hash, which is keyed

struct KeyHash {
  std::size_t operator()(const Key& key) const { return key.second; }
};

std::uint64_t mix(std::uint64_t value) {  // finaliser of SplitMix64
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

// One cell of the generic cell rate algorithm: `arrival` is when the next one would be due.
bool conforms(std::atomic<std::int64_t>& arrival, std::uint32_t rate, std::uint32_t burst,
              MonotonicTime now) {
  if (rate == 0) return true;
  const std::int64_t interval = 1'000'000'000 / rate;
  const std::int64_t slack = interval * (burst == 0 ? rate : burst) - interval;
  const std::int64_t moment = now.time_since_epoch().count();
  std::int64_t due = arrival.load(std::memory_order_relaxed);
  for (;;) {
    if (due - moment > slack) return false;
    if (arrival.compare_exchange_weak(due, std::max(due, moment) + interval, std::memory_order_relaxed))
      return true;
  }
}

}  // namespace

class AddressTable::Entry {
 public:
  std::atomic<std::int64_t> next_connection{0}, next_request{0};  // nanoseconds of MonotonicTime
  Key key{};
  std::uint32_t connections = 0;  // guarded by the shard's lock
  std::list<Entry*>::iterator idle{};
  bool is_idle = false;
};

struct AddressTable::Shard {
  mutable std::mutex mutex;
  std::unordered_map<Key, Entry, KeyHash> entries;
  std::list<Entry*> idle;  // the longest first

  Entry& find_or_make(const Key& key) {
    auto [at, made] = entries.try_emplace(key);
    if (made) at->second.key = key;
    return at->second;
  }
  void make_idle(Entry& entry, std::size_t idle_max) {
    if (entry.connections > 0) return;
    if (entry.is_idle)
      idle.splice(idle.end(), idle, entry.idle);
    else
      entry.idle = idle.insert(idle.end(), &entry);
    entry.is_idle = true;
    while (idle.size() > idle_max) {
      const Key oldest = idle.front()->key;
      idle.pop_front();
      entries.erase(oldest);
    }
  }
  void make_busy(Entry& entry) {
    if (entry.is_idle) idle.erase(entry.idle);
    entry.is_idle = false;
  }
};

AddressTable::AddressTable(std::uint64_t hash_seed, std::size_t idle_max)
    : seed_(hash_seed),
      idle_max_(std::max<std::size_t>(idle_max / kShards, 1)),
      shards_(std::make_unique<std::array<Shard, kShards>>()) {}

AddressTable::~AddressTable() = default;

http::IpAddress AddressTable::subscriber(const http::IpAddress& address) {
  http::IpAddress cut = address;
  if (!cut.is_v4()) std::fill(cut.bytes.begin() + 8, cut.bytes.end(), std::uint8_t{0});
  return cut;
}

AddressTable::Shard& AddressTable::shard_of(const http::IpAddress& subscriber, std::uint64_t& hash) const {
  std::uint64_t halves[2];
  static_assert(sizeof halves == sizeof subscriber.bytes);
  std::memcpy(halves, subscriber.bytes.data(), sizeof halves);
  hash = mix(mix(halves[0] ^ seed_) ^ halves[1]);
  return (*shards_)[hash % kShards];
}

AddressTable::Admission AddressTable::enter(const http::IpAddress& address, const AddressLimits& limits,
                                            MonotonicTime now) {
  Key key{subscriber(address), 0};
  Shard& shard = shard_of(key.first, key.second);
  std::lock_guard lock(shard.mutex);
  Entry& entry = shard.find_or_make(key);
  Verdict verdict = Verdict::ok;
  if (limits.connections != 0 && entry.connections >= limits.connections)
    verdict = Verdict::too_many;
  else if (!conforms(entry.next_connection, limits.connection_rate, limits.connection_burst, now))
    verdict = Verdict::too_fast;
  if (verdict != Verdict::ok) {
    shard.make_idle(entry, idle_max_);
    return {verdict, nullptr};
  }
  ++entry.connections;
  shard.make_busy(entry);
  return {Verdict::ok, &entry};
}

void AddressTable::leave(Entry* entry) {
  std::uint64_t hash = 0;
  Shard& shard = shard_of(entry->key.first, hash);
  std::lock_guard lock(shard.mutex);
  CHECK(entry->connections > 0, "who leaves has entered");
  --entry->connections;
  shard.make_idle(*entry, idle_max_);
}

bool AddressTable::may_request(Entry& entry, const AddressLimits& limits, MonotonicTime now) {
  return conforms(entry.next_request, limits.request_rate, limits.request_burst, now);
}

bool AddressTable::may_request(const http::IpAddress& address, const AddressLimits& limits,
                               MonotonicTime now) {
  Key key{subscriber(address), 0};
  Shard& shard = shard_of(key.first, key.second);
  std::lock_guard lock(shard.mutex);
  Entry& entry = shard.find_or_make(key);
  const bool ok = may_request(entry, limits, now);
  shard.make_idle(entry, idle_max_);
  return ok;
}

std::size_t AddressTable::size() const {
  std::size_t sum = 0;
  for (const Shard& shard : *shards_) {
    std::lock_guard lock(shard.mutex);
    sum += shard.entries.size();
  }
  return sum;
}

}  // namespace tollgate::net
