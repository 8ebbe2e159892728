// What the store of seats is asked, and answers. Behind it stands Redis (metering/redis/redis_seats.h, scripts seat_*.lua);
// in tests their twin in memory (metering/seats/model.h).
//
// All of it may be asked again: to take a seat that one holds renews it, to release one that nobody holds does nothing.
// Answers come once, on the asking thread, possibly before the function returns; an error says that nothing is known.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/seats/pool.h"

namespace tollgate::seats {

inline constexpr Milliseconds kNoEnd = Milliseconds::max();
inline constexpr std::size_t kClientsMax = 32;  // known of a member: the latest; as in seat_take.lua

struct TakeReply {
  enum class Status : std::uint8_t {
    taken,  // a seat that was free
    held,   // the member's own, renewed
    full,   // nobody's is free
    fenced,  // no seat is given before other proxies have had the time to renew those that the store may have forgotten
  } status = Status::full;
  // taken, held: how long the seat is the member's (kNoEnd: named). full: until the earliest may become free (kNoEnd: only
  // by a release). fenced: until seats are given.
  Milliseconds left{0};
  std::uint64_t used = 0;  // seats of the pool that are held now
  std::uint64_t born = 0;  // another number than before: the store has lost everything since
};

struct Renewal {
  std::string member;
  Milliseconds idle_left{0};  // concurrent: how long from now the seat is wanted; never makes it shorter
};

struct RenewReply {
  std::uint64_t used = 0, born = 0;
  Milliseconds fence{0};           // until seats are given; 0: they are
  std::vector<Milliseconds> left;  // of each renewal in its order; 0: the seat is not the member's any more
};

struct Page {
  Milliseconds now{0};  // the store's clock
  std::uint64_t used = 0;
  struct Seat {
    std::string member;
    Milliseconds at{0};  // since 1970. named: taken then; concurrent: held until then
  };
  std::vector<Seat> seats;          // by that time
  std::optional<Milliseconds> own;  // `at` of the member that was asked for
};

// Invitations: seats of members who are invited by somebody else (portal users of Zoho). All of an invitation get a seat, or
// none does; who had one keeps it. Whether they are members then is known only when the CRM has answered, so that a member
// who is new hangs on the invitation until it is settled, or on several: the seat of one whom every invitation lost is free.
// An invitation that is never settled, since its proxy died, keeps its seats: the CRM may have accepted it.
struct InviteReply {
  bool full = false;
  std::uint64_t taken = 0;  // members that had no seat before
  std::uint64_t used = 0;   // seats of the pool that are held now
};

struct Settlement {
  enum class Outcome : std::uint8_t {
    member,   // has a seat from now on, whatever the capacity
    refused,  // did not become one by this invitation
    removed,  // is none any more
  } outcome = Outcome::member;
  std::string member;
};

// Clients of a member: each session for which the seat was taken, or found taken, with the moment at which it
// ends. A log-out ends those that it names; the seat is free when none is left. `client`: in hexadecimal; "":
// none that can log out.
class SeatStore {
 public:
  virtual ~SeatStore() = default;
  // A client holds the seat for pool.idle from now, or until leave() names it.
  virtual void take(const Pool& pool, std::string member, std::string client,
                    std::function<void(Result<TakeReply>&&)> done) = 0;
  // A concurrent pool. True: the seat is free now; false: others of his clients hold it (for a lease at least,
  // so that who believes in it may), or he had none.
  virtual void leave(const Pool& pool, std::string member, std::vector<std::string> clients,
                     std::function<void(Result<bool>&&)> done) = 0;
  virtual void renew(const Pool& pool, std::vector<Renewal> renewals,
                     std::function<void(Result<RenewReply>&&)> done) = 0;
  // A named pool. id: of the invitation, without ","; no other has it.
  virtual void invite(const Pool& pool, std::string id, std::vector<std::string> members,
                      std::function<void(Result<InviteReply>&&)> done) = 0;
  virtual void settle(const Pool& pool, std::string id, std::vector<Settlement> settlements,
                      std::function<void(Result<void>&&)> done) = 0;
  // By an administrator. True: the member had a seat.
  virtual void release(const Pool& pool, std::string member, std::function<void(Result<bool>&&)> done) = 0;
  // `count` seats from the one numbered `offset` on, and that of `member`, if it has one ("": nobody's).
  virtual void list(const Pool& pool, std::uint64_t offset, std::uint64_t count, std::string member,
                    std::function<void(Result<Page>&&)> done) = 0;
};

}  // namespace tollgate::seats
