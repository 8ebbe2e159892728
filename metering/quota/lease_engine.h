// The owner's side of leases: decides when the store is asked, numbers the ops, journals them, and keeps sessions alive.
// Pure: time is an argument, the store and the journal are interfaces. One engine per worker, which owns the partitions
// p with p % engines == index; everything the store hears of a partition comes from its one owner, in order.
//
//   LeaseLedger (any worker) ── request: "Case of ann lacks 3 tokens" ─┐
//   recall from another proxy ─────────────────────────────────────────┤
//   tick: flush, keep-alive, prefetch ─────────────────────────────────┴─> LeaseEngine ── Op ──> OpLog ──> LeaseStore
//                                        tokens into the cells, views <──────────────── OpReply <────────────┘
//
// A partition as the engine sees it:
//
//     absent ── first request or old journal entries ──> joining ── ping: hwm, vote ──> open
//        ^                                                 ^  ^                          │
//        │                                   store down:   │  └── gap, fence, new run ───┤ ops flow, one a subject,
//        └── nothing left to say                      waiting <───── store down ─────────┘ many in the pipeline
//     joining with hwm < acknowledged: replaying from the journal, then ping again (only then it votes)
//
// Rules
//   - One op a subject at a time; a subject's op carries all its accounts that have something to say. Ops of a partition
//     are sent in the order of their numbers and resent, unchanged, in that order after a reconnect.
//   - Written to the OpLog before it is sent. When the log cannot take it, no op is made: nothing is settled and nothing
//     asked; leases are spent, then calls are denied.
//   - Session: every reply renews it. When hi(now) >= expiry it has lapsed: PartitionState::session is raised BEFORE
//     anything else is sent, so the tokens of before are void (they are handed back with the next op), never revived.
//   - Asks for max(need, what is used in lease_horizon at the present rate, twice the lease that was spent), at most
//     lease_max; again when a quarter is left (prefetch). What is settled is filled up again in the same op. Neither ahead of
//     need while others hold tokens and next to nothing is free: it would only be recalled. How little that is depends on this
//     proxy's part of the account's calls.
//   - Of what others have handed back for a call it takes half at most: they call as well, and would recall it.
//   - Settles a use when its bucket has been over for flush_interval, or where a bucket is longer than a tenth of that,
//     flush_interval after the last word; earlier where a cell may run out of buckets to keep apart, and at once what a
//     recall names.
//   - A lease unused for max(flush_interval, window) is told of, so that the store never forgets one under the proxy; for
//     max(flush_interval, window / 4) where its limit may have fallen unheard: when the store names another than the rule,
//     or since messages may have been missed. One unused for three windows is handed back; for one, where more than half
//     of the cells are taken. An account with nothing left, and no refusal that still holds (unless cells are scarce), is
//     retired.
//   - A reply that shows more used and lent than the limit allows (a grant has ended): unused tokens are handed back.
//   - A clock that disagrees for a whole session_ttl is believed: the session is ended first, its tokens are void.
//   - A refusal is kept until fits_at: all that others hold is in that reckoning, so only units that leave before their
//     time end it earlier (limit changed, counts reset, settled units that never happened), and each of these is told by a
//     message: on_policy, on_room, and on_listening for those that were missed. denial_max is for a message that is lost
//     all the same; with more than a day's window, who comes at the same time each day does not ask in vain. Where only
//     tokens lent to others are missing it is kept for recheck_interval, and before that the op is repeated up to
//     recall_tries times, recall_pause apart: the store has told the others to hand back.
//   - Who holds all that is left, and nobody else any, knows without asking that nothing more fits until the oldest bucket
//     leaves.
//   - At shutdown (drain()): everything is settled and returned.
//
// Bounds: at most max_unacknowledged ops are on their way; beyond it subjects wait their turn.
// Threads: all functions on the owner's thread. The functions given to request() are called on it.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "metering/quota/lease_protocol.h"
#include "metering/quota/lease_table.h"

namespace tollgate::quota {

// The store, asynchronous. Answers come through LeaseEngine::on_*; never before the call returns. What is sent in one
// partition arrives in that order or not at all.
class LeaseStore {
 public:
  virtual ~LeaseStore() = default;
  virtual void send(const Op& op, const SendContext& context) = 0;
  virtual void send(const Replay& replay, const SendContext& context) = 0;
  virtual void send(const Ping& ping, const SendContext& context) = 0;
};

// The journal of ops. append() is durable against the death of the process when it returns.
class OpLog {
 public:
  virtual ~OpLog() = default;
  virtual bool append(const Op& op) = 0;  // false: cannot be written now (disk full); the op must not be sent
  // Calls visit(op) for journalled ops of this partition with a number in (after, up_to], in order. Returns the first number that is
  // still kept (after + 1 when nothing was dropped). May be called on later occasions with the same arguments.
  virtual std::uint64_t read(unsigned partition, std::uint64_t after, std::uint64_t up_to,
                             const std::function<void(const Op&)>& visit) = 0;
  virtual std::uint64_t last_seq(unsigned partition) = 0;  // highest number journalled; 0 none
};

struct LeaseOptions {
  Incarnation incarnation = 0;
  unsigned engines = 1, index = 0;
  Milliseconds session_ttl{900'000};
  Milliseconds ping_interval{60'000};
  Milliseconds flush_interval{960'000};
  Milliseconds lease_horizon{120'000};
  std::uint32_t lease_max = 400;
  Milliseconds fence_wait{10'000};
  Milliseconds recheck_interval{1'000};
  Milliseconds denial_max{90'000'000};
  std::uint32_t recall_tries = 3;
  Milliseconds recall_pause{15};
  std::uint32_t max_unacknowledged = 4'096;
  std::uint64_t seed = 1;

  // For negative controls in the simulator: each switches one protection off. Never set outside tests.
  struct Unsafe {
    bool charge_at_grant = false;     // uses are dated at the grant
    bool keep_lapsed_tokens = false;  // tokens outlive their session
    bool no_replay = false;           // a gap is answered by going on
    bool wall_clock = false;          // uses are stamped with lo instead of hi, minus the guard
  } unsafe;
};

struct LeaseCounters {
  std::uint64_t ops = 0, blocking_ops = 0, pings = 0, replays = 0;  // sent, resent ones not counted again
  std::uint64_t refills = 0;                                        // grants received
  std::uint64_t denials = 0;                                        // refusals of the store
  std::uint64_t recalls = 0;                                        // obeyed
  std::uint64_t lapses = 0, gaps = 0, fenced = 0, clock_off = 0, over = 0, resent = 0;
  std::uint64_t log_failures = 0;  // OpLog::append said no
};

class LeaseEngine {
 public:
  enum class Answer : std::uint8_t {
    granted,      // tokens were added (perhaps taken by others meanwhile: try, and ask again)
    refused,      // no room; the account's view says until when
    unavailable,  // the store cannot be asked now
  };

  LeaseEngine(LeaseTable& table, LeaseStore& store, OpLog& log, LeaseOptions options);
  ~LeaseEngine();

  bool owns(unsigned partition) const { return partition % options_.engines == options_.index; }

  // ---- from ledgers. `units` tokens are lacking; answered once, within the store's reply or at once when it is down.
  using Done = std::function<void(Answer)>;
  void request(AccountRef account, std::uint32_t units, std::uint64_t rule_limit, MonotonicTime now,
               Done done);
  void prefetch(AccountRef account, MonotonicTime now);
  // The rule's limit of this account changed: unused tokens go back, denials are forgotten.
  void limit_changed(AccountRef account, std::uint64_t rule_limit, MonotonicTime now);
  // Settled units that never happened.
  void take_back(AccountRef account, std::int64_t bucket, std::uint32_t units, MonotonicTime now);
  // Settles (and with give_up returns) everything of a subject, or ("") of all partitions; `done` when acknowledged, or
  // false when the store is down. For exact reads, verification and shutdown.
  void settle(const std::string& subject_key, bool give_up, MonotonicTime now,
              std::function<void(bool)> done);
  void drain(MonotonicTime now, std::function<void(bool)> done);

  // ---- from the store
  void on_up(unsigned partition, std::string run,
             MonotonicTime now);                        // reachable, perhaps another server or run
  void on_down(unsigned partition, MonotonicTime now);  // replies to what was sent are not expected any more
  void on_op(unsigned partition, std::uint64_t seq, const OpReply& reply, MonotonicTime sent,
             MonotonicTime now);
  void on_replay(unsigned partition, std::uint64_t seq, const OpReply& reply, MonotonicTime sent,
                 MonotonicTime now);
  void on_ping(unsigned partition, const PingReply& reply, MonotonicTime sent, MonotonicTime now);
  // The store answered with an error that says nothing was applied (OOM, READONLY, LOADING, script error ...); the
  // message is resent after a pause.
  void on_error(unsigned partition, MonotonicTime now);
  void on_recall(const std::string& subject_key, const std::string& field, MonotonicTime now);
  void on_policy(const std::string& subject_key, const std::string& field,
                 MonotonicTime now);  // forget denials
  void on_room(const std::string& subject_key, const std::string& field,
               MonotonicTime now);                       // units left before their time: forget denials
  void on_fence(unsigned partition, MonotonicTime now);  // somebody waits for our vote
  // Messages are heard from now on, after a time in which they may have been missed: denials are forgotten, and where we
  // are a member we vote again.
  void on_listening(unsigned partition, MonotonicTime now);

  // Returns when it wants to be called next (never later than a second). Cheap when nothing is due.
  MonotonicTime tick(MonotonicTime now);

  const LeaseCounters& counters() const;
  struct PartitionStatus {
    enum class State : std::uint8_t { absent, waiting, joining, replaying, open } state = State::absent;
    std::uint64_t next_seq = 0, acknowledged = 0;
    std::size_t unacknowledged = 0;
    bool fenced = false;
  };
  PartitionStatus status(unsigned partition) const;
  // Longest wait for a server to be agreed on, from the first replay to the opening of the fence; 0: nothing waits.
  Milliseconds fence_open_since(MonotonicTime now) const;
  bool idle() const;  // nothing unacknowledged, nothing queued

 private:
  class Impl;
  const LeaseOptions options_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::quota
