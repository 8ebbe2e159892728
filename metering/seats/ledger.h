// The seats of one worker: who is known to hold one, so that a holder's call needs no round trip, and who was refused
// lately, so that neither does a storm of those.
//
//                 take()
//   unknown ─────────────────> asking ──── taken, held ────> held ── lease over, not renewed ──> unknown
//      ^    one question for      │                           │ ^
//      │    all who ask meanwhile │ full                      │ └── renewed every sixth of a lease, if active
//      └───── until it may ───────┴──> refused                └── the store says it is not his any more ──> unknown
//             have changed
//
// What is certain: a seat that this ledger takes for held is held in the store. A lease ends by the monotonic clock,
// counted from BEFORE the command was sent that renewed it; the store gives nobody else's seat away within a lease of any
// renewal, not even when it has forgotten the renewal (model.h). So a proxy that is cut off stops serving holders of
// concurrent seats within one lease. Of named seats it does not: nobody gets them but through an administrator's release,
// of which every proxy learns when it next reaches the store, within a lease and a sixth of the holder's next call.
//
// A refusal is repeated from memory until the earliest seat of the pool may become free, at most kRefusedMost. What frees
// a seat before is a release, or another capacity: they are seen by who was refused after kRefusedMost at the latest.
//
// Clients. A user may use one seat with several clients, each with a session of its own. The store knows them
// (store.h): a client's first call asks it although the user's seat is known here, and so does one whose note
// is about to end. So a log-out frees the seat when nobody else of that user holds it, and whoever logs in
// after that is believed by no worker before the store has been asked.
//
//   SeatLedger ledger(store, redis::Connection::now, {});
//   if (auto outcome = ledger.take(pool, {"acme", "ann"}, [](Outcome&&) { later })) at once;
//
// Cost: a holder's call is one hash look-up. Memory: about 150 bytes a user, at most `remembered` of each pool.
// Threads: one worker's. Answers come on its thread, perhaps before take() returns.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "metering/seats/store.h"

namespace tollgate::seats {

inline constexpr Milliseconds kRefusedMost{10'000};

// A client of a user: what tells its session from others, as good as random.
using ClientId = std::uint64_t;
inline constexpr ClientId kNoClient = 0;

struct Outcome {
  enum class Status : std::uint8_t {
    held,
    full,
    unavailable,  // the store did not answer, or gives no seats yet: nothing is known
  } status = Status::unavailable;
  bool taken = false;           // held: since just now, by this call
  Milliseconds retry_after{0};  // before that, the answer will be the same; 0: not known
};

struct SeatLedgerOptions {
  std::size_t remembered = 65'536;  // users of one pool
  std::uint64_t hash_seed = 0;      // random, and told to nobody
};

class SeatLedger {
 public:
  using TakeDone = std::function<void(Outcome&&)>;

  // The store outlives the ledger; its answers that come later are dropped. `now`: a clock that runs on while the machine is
  // suspended, or seats would be believed in for longer than a lease.
  SeatLedger(SeatStore& store, std::function<MonotonicTime()> now, SeatLedgerOptions options);
  ~SeatLedger();  // who waits is answered: unavailable

  // The pools that there are now. They are looked after from the next tick() on; seats of others are forgotten here.
  void configure(std::vector<Pool> pools);
  // nullopt: `done` is called exactly once. Only calls that wait are told so; else `done` is destroyed unused.
  // hold: concurrent, for how long from now the seat is wanted without another call (a session's rest); 0: pool.idle.
  // client: concurrent, of the session that wants it; kNoClient: it has none, and no log-out.
  std::optional<Outcome> take(const Pool& pool, const Holder& holder, TakeDone done,
                              Milliseconds hold = Milliseconds(0), ClientId client = kNoClient);
  // These clients of the holder have logged out: the store is told, once, and frees the seat when it knows of
  // no other; what it does not hear of ends by itself.
  void leave(const Pool& pool, const Holder& holder, const std::vector<ClientId>& clients);
  // Seats for members whom the caller is about to invite (store.h), all or none; asked of the store each time. `held` when
  // they have them, `taken` when one had none before. To be settled whatever the answer: one that was not heard may have
  // given seats. Both answer exactly once, the latest with the ledger's end.
  std::string new_invitation();  // an id that no other proxy and worker gives
  void invite(const Pool& pool, const std::string& invitation, std::vector<std::string> members,
              TakeDone done);
  void settle(const Pool& pool, const std::string& invitation, std::vector<Settlement> settlements,
              TakeDone done);  // the outcome says nothing
  // Released through this proxy: the next call asks.
  void forget(const Pool& pool, const Holder& holder);
  // What the store says of the holder's seat (Page::own) and of the pool; takes nothing.
  void look(const Pool& pool, const Holder& holder, std::function<void(Result<Page>&&)> done);
  // Renews what is due. When to call again.
  MonotonicTime tick();

  struct Status {
    Pool pool;
    std::uint64_t used = 0;  // of the whole pool, as the store last said
    bool known = false;      // it has said so since configure()
    std::size_t remembered = 0;
  };
  std::vector<Status> status() const;

 private:
  struct PoolSeats;
  const std::shared_ptr<PoolSeats>& seats_of(const Pool& pool);
  void took(PoolSeats& seats, const std::string& tenant, const std::string& user, MonotonicTime sent,
            Milliseconds hold, ClientId client, Result<TakeReply>&& reply);
  void renew(const std::shared_ptr<PoolSeats>& seats, MonotonicTime now);

  SeatStore& store_;
  const std::function<MonotonicTime()> now_;
  const SeatLedgerOptions options_;
  std::vector<std::shared_ptr<PoolSeats>> pools_;
  std::uint64_t invitations_ = 0, questions_ = 0;
  std::map<std::uint64_t, TakeDone> unanswered_;  // of invite() and settle()
  std::shared_ptr<void> alive_;                   // answers that find it gone do nothing
};

}  // namespace tollgate::seats
