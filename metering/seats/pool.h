// Seats: who may use a licence when only so many users may. A pool has so many of them, of one of two kinds:
//
//   named        a user takes a seat with the first call that needs one and keeps it until an administrator releases it.
//                "At most 10 000 users of the Self-service Portal."
//   concurrent   a user holds a seat while active, and loses it `idle` after the last call.
//                "At most 40 users at once."
//
// One user has at most one seat of a pool, whatever the number of clients, connections and proxies. Users of different
// tenants with the same name are different users; a pool counts those of all tenants.
//
// Names in the store. NEVER CHANGE: seats are found again only under the same name.
//   s:{p017}:named:self_service          sorted set: member -> ms since 1970: taken at (named), held until (concurrent)
//     |  |     |        +-- pool            ...:gone   sorted set: members released by an administrator -> when
//     |  |     +----------- kind            ...:about  hash: born, run, fence, fence_at (metering/seats/model.h)
//     |  |                              ...:invites hash: member -> ids of invitations under way, each with a "," (store.h)
//     |  |                              ...:clients hash: member -> "client=until;" of each (store.h)
//     |  +----------------- partition = crc16("named:self_service") mod 256: all keys of a pool lie in one Redis slot
//     +-------------------- seats
//   acme:ann                             member: tenant ":" user, both escaped as in metering/quota/keys.h
// Pure; no state.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "metering/base/time.h"

namespace tollgate::seats {

enum class Kind : std::uint8_t { named, concurrent };
std::string_view name(Kind kind);  // "named", "concurrent"

struct Pool {
  std::string id;  // "self_service"; one configuration has no two pools of one id
  Kind kind = Kind::named;
  std::uint64_t capacity = 0;
  // concurrent: how long a seat outlives its holder's last call. At least 2 x lease.
  Milliseconds idle{0};
  // How long a proxy takes a seat for held without having heard of the store. The same on all proxies.
  Milliseconds lease{30'000};
  bool operator==(const Pool&) const = default;
};

// Whose seat. The views live as long as whoever passes them says.
struct Holder {
  std::string_view tenant, user;
};

std::string member_of(const Holder& holder);
struct ParsedMember {
  std::string tenant, user;
};
std::optional<ParsedMember> parse_member(std::string_view member);  // nullopt: no text that member_of writes

unsigned partition_of(const Pool& pool);  // 0..255
std::string seats_key(const Pool& pool);

}  // namespace tollgate::seats
