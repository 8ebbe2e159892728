// What look-ups have settled, shared by the workers of a proxy: whose a credential is, or that it is nobody's.
//
//   LookupTable table(random_32_bytes, 100'000);
//   const SessionKey key = table.key_of(lookup_identity(source), token);
//   if (auto verdict = table.find(key, now)) ...        // nullptr: has to be asked
//
// Credentials are kept nowhere: the key is HMAC-SHA256 under a secret of this process's own. It holds the source too,
// so that one table serves all sources, and a source that a reload changes is asked anew.
// Bounded: when a shard is full, what was used longest ago makes room. A verdict is gone at its `until`.
// Threads: any. One lock of a 16th part of the table for each call.
#pragma once
#include <array>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "metering/identity/lookup.h"
#include "metering/identity/session.h"

namespace tollgate::identity {

class LookupTable {
 public:
  LookupTable(std::string secret, std::size_t entries);

  SessionKey key_of(std::string_view source_identity, std::string_view credential) const;  // 1 us

  std::shared_ptr<const LookupVerdict> find(const SessionKey& key, UnixTime now);
  void store(const SessionKey& key, std::shared_ptr<const LookupVerdict> verdict);
  std::size_t size() const;

 private:
  struct Entry {
    std::shared_ptr<const LookupVerdict> verdict;
    std::list<SessionKey>::iterator place;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<SessionKey, Entry, SessionKeyHash> entries;  // guarded by mutex
    std::list<SessionKey> order;                                    // the latest use first; guarded by mutex
  };
  static constexpr std::size_t kShards = 16;
  Shard& shard_of(const SessionKey& key) { return shards_[key.back() % kShards]; }

  const std::string secret_;
  const std::size_t shard_capacity_;
  std::array<Shard, kShards> shards_;
};

}  // namespace tollgate::identity
