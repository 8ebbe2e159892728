// What each client address holds and does: open connections, and how fast it connects and asks. One table for
// all workers, because the kernel spreads one client's connections over them.
//
// An address is an IPv4 address or an IPv6 /64: what one subscriber gets (RFC 6177), so that the addresses
// inside it cannot be used to multiply a limit.
//
// Rates are judged by the generic cell rate algorithm (ITU-T I.371): a moment per address and rate, no
// history. `burst` requests may come at once after a rest, then `rate` a second.
//
// Memory: an entry for each address with a connection, and kIdleMax more of those that have none, whose debt
// is remembered; the longest idle are forgotten first. About 150 bytes each.
//
// Threads: any. enter() and leave() take one of 64 locks, once a connection; may_request() on an entry takes
// none.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "metering/base/time.h"
#include "proxy/http/address.h"

namespace tollgate::net {

// 0 stands for no limit. A rate of 0 ignores its burst; a burst of 0 is one second's worth.
struct AddressLimits {
  std::uint32_t connections = 0;
  std::uint32_t connection_rate = 0, connection_burst = 0;  // new connections a second
  std::uint32_t request_rate = 0, request_burst = 0;        // requests a second
};

class AddressTable {
 public:
  static constexpr std::size_t kIdleMax = 65'536;

  enum class Verdict : std::uint8_t { ok, too_many, too_fast };
  class Entry;  // of an address with a connection; stays in place until its last leave()
  struct Admission {
    Verdict verdict = Verdict::ok;
    Entry* entry = nullptr;  // only with ok
  };

  explicit AddressTable(std::uint64_t hash_seed, std::size_t idle_max = kIdleMax);
  ~AddressTable();
  AddressTable(const AddressTable&) = delete;
  AddressTable& operator=(const AddressTable&) = delete;

  // A new connection. Refused ones are not counted, but those refused for being too many do not use up the
  // rate.
  Admission enter(const http::IpAddress& address, const AddressLimits& limits, MonotonicTime now);
  void leave(Entry* entry);

  // A request on a connection of this address.
  static bool may_request(Entry& entry, const AddressLimits& limits, MonotonicTime now);
  // A request of an address that a trusted proxy names: it has no connection here.
  bool may_request(const http::IpAddress& address, const AddressLimits& limits, MonotonicTime now);

  std::size_t size() const;  // entries, idle ones included

  // What an address is counted under: the lower half of an IPv6 address is 0.
  static http::IpAddress subscriber(const http::IpAddress& address);

 private:
  struct Shard;
  static constexpr std::size_t kShards = 64;
  Shard& shard_of(const http::IpAddress& subscriber, std::uint64_t& hash) const;

  const std::uint64_t seed_;
  const std::size_t idle_max_;  // per shard
  std::unique_ptr<std::array<Shard, kShards>> shards_;
};

}  // namespace tollgate::net
