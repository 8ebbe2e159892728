// Whose the records of the CRM are, as far as this proxy has seen: the requester that a reply named, or who made the
// record. Bounded in number and age; what is not known here is somebody else's (licence rules of Cherwell).
//
// Threads: any. One lock of a 16th part of the table for each call.
#pragma once
#include <array>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "metering/base/time.h"

namespace tollgate::licence {

class OwnerTable {
 public:
  explicit OwnerTable(std::size_t capacity) : shard_capacity_(capacity / kShards + 1) {}

  // upstream: as the settings call it; record: ObjectUse::record. An empty owner: nobody's, which is remembered too.
  void learn(std::string_view upstream, std::string_view record, std::string_view owner, UnixTime now);
  void forget(std::string_view upstream, std::string_view record);
  // nullopt: not known, or older than max_age.
  std::optional<std::string> find(std::string_view upstream, std::string_view record, UnixTime now,
                                  Milliseconds max_age) const;
  std::size_t size() const;

 private:
  struct Entry {
    std::string owner;
    UnixTime learned;
    std::list<std::string>::iterator place;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<std::string, Entry> entries;  // guarded by mutex
    std::list<std::string> order;                    // learned last first; guarded by mutex
  };
  static constexpr std::size_t kShards = 16;
  static std::string key_of(std::string_view upstream, std::string_view record);
  Shard& shard_of(const std::string& key) { return shards_[std::hash<std::string>()(key) % kShards]; }
  const Shard& shard_of(const std::string& key) const {
    return shards_[std::hash<std::string>()(key) % kShards];
  }

  std::size_t shard_capacity_;
  std::array<Shard, kShards> shards_;
};

}  // namespace tollgate::licence
