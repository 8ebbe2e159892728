// What a Redis Cluster says about itself, read: CLUSTER SLOTS and redirections. Inside this room only. Pure.
//
// All keys of a partition carry its tag ({p017}) and therefore lie in one slot: 256 partitions are at most 256 of
// the 16384 slots, and where a slot lives says where the partition lives.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/redis/reply.h"
#include "metering/redis/store_url.h"

namespace tollgate::redis {

inline constexpr unsigned kSlots = 16'384;

unsigned slot_of_partition(unsigned partition);  // crc16 of the tag's inside, mod 16384

struct SlotRange {
  unsigned first = 0, last = 0;  // both included
  Endpoint primary;
};

// The reply of CLUSTER SLOTS. A node that does not know its own address names "" or nil: then `asked` is meant.
Result<std::vector<SlotRange>> parse_slots(const Reply& reply, const Endpoint& asked);

// "MOVED 3999 127.0.0.1:6381", "ASK 3999 :6381" (the host that was asked, another port). nullopt: neither.
struct Redirection {
  bool ask = false;
  unsigned slot = 0;
  Endpoint to;
};
std::optional<Redirection> parse_redirection(const Reply& reply, const Endpoint& asked);

}  // namespace tollgate::redis
