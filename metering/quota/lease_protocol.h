// What proxies and the store say to each other about leases: the messages, as plain values. Spoken by lease_engine.h
// on one side; answered by the scripts on Redis (metering/redis/*.lua) and by their twin in memory (store_model.h).
//
// Problem: an exact count wants one answer from one place for every call, which is a round trip a call.
// Idea: the store lends tokens. A lent token is charged from the grant until the proxy says in which bucket it was
// really used, or that it was not. So at every moment
//
//     used in the window + lent to all proxies  <=  limit            (I1, after every grant)
//
// and a call is admitted from tokens already lent, without asking. A token is never charged at its grant (it would be
// forgotten a window after the grant, not after the use) and never freed at a deadline (it may have been used).
//
//   proxy (incarnation, partition)                      store
//     Op seq 7: settles uses, returns, asks  ─────────>  seq == hwm + 1 ? apply : duplicate | gap
//     <───────── lease as it stands, what is used, when more comes
//     Op seq 8 ...
//
// Numbers: every incarnation (a journal of one proxy) numbers its ops per partition without gaps. The store keeps the
// highest number it has applied (the high-water mark, hwm), for as long as it could matter: until 48 h, or the longest
// window counted in the partition, after the last session of the incarnation. A repeated op is answered and not applied; a gap means that
// the store forgot acknowledged ops (failover, restore, flush): the proxy replays them from its journal as facts.
//
// Sessions: leases of an incarnation in a partition may be used until the session expires, by the store's clock. Every
// op and every Ping renews it. After expiry + window + guard the store forgets the lease.
//
// Fence: grants are given only in the run of the server (`run`) that all members of the partition have agreed on by
// Ping votes, so that a server which lost data grants nothing before everybody alive has replayed. It opens when every
// incarnation with a live session has voted and at least as many votes are there as proxies were listening when the
// fence was raised (both its raising and its opening are published), but not before `fence_settle` after its raising or
// the last replay, so that who reconnects a little later than the first, with a journal nobody else knows of, is not too
// late; or `fence_wait` after the last replay or vote-less ping of a member. A partition never seen before, by the store
// or by who pings, is fenced too, but has nothing to settle: a single proxy opens it with its first vote. The first Ping
// of a run raises the fence and clears all votes: a server that comes back under an old run id finds none of its old ones.
//
// Clock: an op carries the sender's estimate of the store's clock, which runs by the sender's monotonic clock. If the
// store's clock is further from it than kClockGuard, uses are settled and nothing is granted: one of the two has jumped.
// Nor is it while the store's clock is that far behind the newest time it believed. A message of somebody who knows no
// clock moves that time nowhere.
//
// Pure values; no state.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "metering/base/time.h"
#include "metering/quota/ledger.h"
#include "metering/quota/record.h"
#include "metering/quota/store_clock.h"

namespace tollgate::quota {

// Units admitted (or, negative, given back) in one bucket.
struct BucketUse {
  std::int64_t bucket = 0;
  std::int64_t units = 0;
  bool operator==(const BucketUse&) const = default;
};

// One account of an op. All accounts of an op are of one subject.
struct OpAccount {
  std::string field;  // AccountKey::field
  Milliseconds window{0}, bucket{0};
  std::uint64_t limit =
      0;  // the rule's; an override in the store wins; kUnlimited: only counted, nothing is lent
  // Since the last op, ascending buckets. Admitted units (> 0) come out of what is lent to this incarnation; units given
  // back (< 0) had been settled before and leave the window, not the lease: a bucket with both has two entries.
  std::vector<BucketUse> uses;
  std::uint64_t returned = 0;  // unused tokens handed back
  bool forget =
      false;  // after a restart: what was lent to this incarnation before is void (uses say what was used)
  std::uint32_t need = 0;  // tokens without which the waiting call cannot be admitted: all of them or none
  std::uint32_t want = 0;  // tokens that would be useful, >= need; the store gives between need and want
  bool operator==(const OpAccount&) const = default;
};

struct Op {
  Incarnation incarnation = 0;
  unsigned partition = 0;
  std::uint64_t seq = 0;  // from 1
  std::string subject_key;
  std::vector<OpAccount> accounts;
  bool operator==(const Op&) const = default;
};

// What is not part of the numbered, immutable op, but of the moment in which it is sent.
struct SendContext {
  std::string run;              // the server's run id, as read when connecting
  Milliseconds clock{0};        // sender's estimate of the store's clock, ms since 1970
  Milliseconds session_ttl{0};  // asked for
  Milliseconds fence_wait{0};
  std::uint32_t lease_max = 0;   // generous grants, beyond `want`, end here (store_model.h)
  Milliseconds fence_settle{0};  // <= fence_wait
};

enum class OpStatus : std::uint8_t {
  applied = 0,    // this alone (and a Ping) renews the session
  duplicate = 3,  // seq <= hwm: applied before. States show the leases as they stand
  gap = 4,        // seq > hwm + 1: not applied, replay from hwm + 1. No states
};

// One account after an op; in the order of the op's accounts.
struct LeaseState {
  std::uint64_t outstanding = 0;  // tokens lent to this incarnation now, by the store's books
  std::uint64_t granted = 0;      // of these, newly lent by this op (0 in a duplicate)
  std::uint64_t used = 0;         // units in the window
  std::uint64_t lent_to_others = 0;
  std::uint64_t limit = 0;       // effective: override and temporary grants included
  Milliseconds next_free_at{0};  // store's clock: when the oldest bucket leaves; 0 when nothing is counted
  std::uint64_t next_free_units = 0;
  Milliseconds fits_at{0};  // refused: when `need` would fit if others return everything; 0: fits when others
                            // return; max(): never (need > limit)
  bool over = false;        // more use was reported than had been lent: counted; an alarm (double failure)
  bool operator==(const LeaseState&) const = default;
};

struct OpReply {
  OpStatus status = OpStatus::applied;
  bool fenced = false;     // settled, but nothing granted: this run is not agreed on yet
  bool clock_off = false;  // settled, but nothing granted: clocks disagree
  std::uint64_t hwm = 0;
  Milliseconds now{0};             // the store's clock
  Milliseconds session_expiry{0};  // store's clock
  std::vector<LeaseState> states;
  bool operator==(const OpReply&) const = default;
};

// A journalled op as a fact: never refused for want of room, never grants. `outstanding` is what the incarnation holds
// of the account now, by its own books. Same numbering rule as Op; `base` permits a first number > hwm + 1, where older
// entries are no longer kept.
struct Replay {
  Op op;
  std::vector<std::uint64_t> outstanding;  // one an account of the op
  Milliseconds session_expiry{0};
  bool base = false;
};

// Session keep-alive, high-water mark and vote of one incarnation in one partition.
struct Ping {
  Incarnation incarnation = 0;
  unsigned partition = 0;
  std::uint64_t acked = 0;  // highest op this incarnation knows to be applied; votes if hwm >= acked
  struct Peer {
    Incarnation incarnation = 0;
    Milliseconds session_expiry{0};
    bool operator==(const Peer&) const = default;
  };
  std::vector<Peer> peers;  // sessions seen in earlier replies; restored where the store has forgotten them
};

struct PingReply {
  bool open = false;  // this run may grant
  std::uint64_t hwm = 0;
  Milliseconds now{0};
  Milliseconds session_expiry{0};
  std::vector<Ping::Peer> peers;  // live sessions of the partition, ascending, one's own included
};

}  // namespace tollgate::quota
