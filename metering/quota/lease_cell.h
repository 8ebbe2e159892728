// The live counters of one account on this proxy: tokens left and calls admitted, in memory that outlives the process
// (a mapped file, metering/journal). Layout is fixed: a restarted process reads what a killed one left.
//
// One call is one compare-and-swap of `word`, which holds tokens left and the units of the current bucket together, so
// that a kill -9 between two instructions can never tear them apart:
//
//   word    | snapshot: 1 bit | bucket, low 22 bits | units in that bucket: 21 bits | tokens left: 20 bits |
//   closed  up to 14 earlier buckets | bucket, low 36 bits | units: 28 bits |, 0 = free
//   moved   what the op under way reports: as it was cut out of word and closed; in force while the snapshot bit is set
//
// When the bucket changes, or its 21 bits are full, whoever admits next takes the old pair out of `word` in its own CAS
// and then adds it to `closed`. Killed in between, the units are in neither; but they are not tokens left either:
//
//   outstanding = tokens left + tokens moved (to be returned) + units admitted and not acknowledged - forced units
//
// so reopen() finds how many units no bucket claims, and they are dated at the restart: later, hence never forgotten early.
// (Accounts without a limit have no such sum: a kill in those few nanoseconds costs their count that bucket.)
// With all closed cells in use, the newest of them takes the units, and the later of both dates: later again.
//
// A snapshot and its end are each one CAS of `word` as well: the snapshot bit says whether `moved` is in force, so at
// every instruction either the state before or the state after can be read back. What a kill leaves of the steps around
// that CAS is finished by reopen() and recover():
//
//   bit  pending_seq   what was under way
//    0        0        nothing
//    1        0        snapshot(): the moved part counts as never moved
//   any    kUndoing    undo_snapshot(): likewise; to others it is 0
//    1        n        op n; journaled or not, the log knows
//    0        n        acknowledge(): done but for clearing up
//
// Bucket numbers are kept by their low bits; a full number is rebuilt as the newest one that is at most 2^16 buckets after
// a given `current` (two threads may disagree about the current one by as long as one of them sleeps).
//
// Saturation: a call is refused that would overflow a field; tokens beyond kTokensMax are not taken in by acknowledge()
// and come in with a later one: do not ask for more than kTokensMax - available().
//
// Threads: take(), put_back() and force() by any; everything else by the owner of the account's partition only.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "metering/quota/lease_protocol.h"

namespace tollgate::quota {

inline constexpr std::uint32_t kTokensMax = (1U << 20) - 1;  // also the most units of one call
// With the one in `word`: a flush interval of 15 one-minute buckets.
inline constexpr std::size_t kClosedBuckets = 14;
inline constexpr std::size_t kNameBytes =
    336;  // subject key + '\n' + field; longer accounts cannot be leased

class LeaseCell {
 public:
  // ---- hot path
  // One unit of work: `units` tokens, counted in `bucket`, or in the later one that another thread has begun already:
  // `counted_in` says which. False, and nothing has changed, when fewer tokens are left.
  bool take(std::int64_t bucket, std::uint32_t units, std::int64_t* counted_in = nullptr);
  // Counted without tokens: accounts without a limit, and calls let through while the store is away. False, and nothing
  // has changed, when it cannot be counted (more than kTokensMax at once, or 10^9 not yet settled).
  bool force(std::int64_t bucket, std::uint32_t units, std::int64_t* counted_in = nullptr);
  // The call never happened: undoes take() (`forced` false: the tokens come back) or force(). False when the units are
  // on their way to the store or settled already: then they must be reported as negative use.
  bool put_back(std::int64_t bucket, std::uint32_t units, bool forced);

  std::uint32_t available() const;  // tokens left

  // ---- owner
  // Moves everything countable into `pending` under the number `seq`: uses, and the tokens to hand back: all (`return_all`)
  // or none. Nothing is lost if the process dies at any point of it; until journaled, undo_snapshot() reverses it.
  void snapshot(std::uint64_t seq, std::int64_t current_bucket, bool return_all);
  // What the snapshot holds: uses ascending and each bucket once.
  std::vector<BucketUse> pending_uses(std::int64_t current_bucket) const;
  std::uint64_t pending_returned() const;
  std::uint64_t pending_seq() const {  // 0: none
    const std::uint64_t seq = pending_seq_.load(std::memory_order_acquire);
    return seq == kUndoing ? 0 : seq;
  }
  // The op was applied, and the store's books now say `outstanding_now` for this account: the pending part is over, and
  // as many tokens come in as the store has lent beyond what we know of:
  //
  //     outstanding_now - (outstanding - pending uses + forced among them - pending returned)
  //
  // When that is negative (the store has forgotten the lease, or forced uses have eaten tokens of it) tokens are taken away, down
  // to none; outstanding() then stays above the store's by what was used beyond it, until that is settled.
  void acknowledge(std::uint64_t outstanding_now);
  void undo_snapshot(std::int64_t current_bucket);  // the op was never journaled

  bool dirty() const;  // uses not yet in a snapshot
  std::uint64_t unsettled()
      const;  // units admitted and not acknowledged (word + closed + pending); any thread, as of now
  std::uint64_t unreported() const;  // of these, the units that no numbered op reports
  // Uses not yet in a snapshot, ascending and each bucket once; without those that no bucket claims (recover()).
  std::vector<BucketUse> unmoved_uses(std::int64_t current_bucket) const;
  std::uint64_t outstanding() const { return outstanding_.load(std::memory_order_relaxed); }

  // After a restart, first, before any other thread sees the cell: finishes what was cut off in the middle and finds the
  // units that no bucket claims. Harmless to repeat. LeaseTable does it.
  void reopen();
  // Then, once the store's clock is known: dates those units `restart_bucket` and drops all tokens. Returns everything
  // used and in no journaled op; it STAYS in the cell, and the next snapshot() takes it to the store (in an op with
  // `forget`). So a kill after it loses nothing and it may be repeated.
  // Before it: if pending_seq() was never journaled, undo_snapshot(). A pending part that still stands belongs to an op in
  // the journal, is reported by that op when it is sent again, and is dropped here.
  std::vector<BucketUse> recover(std::int64_t restart_bucket, bool limited);

  // ---- identity, written once before the cell is published
  void set_name(std::string_view name, Milliseconds window, Milliseconds bucket, bool limited);
  std::string_view name() const { return {name_.data(), name_size_ < kNameBytes ? name_size_ : kNameBytes}; }
  Milliseconds window() const { return Milliseconds(window_ms_); }
  Milliseconds bucket() const { return Milliseconds(bucket_ms_); }
  bool limited() const { return limited_ != 0; }
  bool in_use() const { return in_use_.load(std::memory_order_acquire) != 0; }
  void release();  // free for another account; owner, once nobody holds a handle

 private:
  static constexpr std::uint64_t kUndoing = UINT64_MAX - 1;  // no number an op ever has

  bool count(std::int64_t bucket, std::uint32_t units, std::uint32_t tokens, std::int64_t* counted_in);
  bool closed_have_room() const;
  void add_closed(std::int64_t bucket, std::uint64_t units);
  void add_forced(std::int64_t units);
  void date_undated(std::int64_t bucket);
  void end_snapshot(std::optional<std::uint64_t> outstanding_now);
  void finish_acknowledge();
  std::uint64_t moved_units() const;
  void drop_moved_back();
  void drop_copied();

  std::atomic<std::uint64_t> word_{0};
  std::array<std::atomic<std::uint64_t>, kClosedBuckets> closed_{};
  std::atomic<std::uint64_t> outstanding_{
      0};  // lent to us by the store's books, as of the last acknowledged op
  std::atomic<std::uint64_t> next_outstanding_{0};  // what it becomes when the bit falls
  std::atomic<std::uint64_t> pending_seq_{0};       // 0: none
  std::atomic<std::uint64_t> moved_word_{0};  // as cut out of word_: bucket, units, tokens to be returned
  std::array<std::atomic<std::uint64_t>, kClosedBuckets> moved_closed_{};
  std::atomic<std::uint64_t> forced_{0};   // limited accounts: | moved: i32 | all not acknowledged: i32 |
  std::atomic<std::uint64_t> undated_{0};  // found by reopen(): admitted, in no bucket
  std::int64_t window_ms_ = 0, bucket_ms_ = 0;
  std::atomic<std::uint32_t> in_use_{0};
  std::uint16_t limited_ = 0, name_size_ = 0;
  std::array<char, kNameBytes> name_{};
};
static_assert(sizeof(LeaseCell) == 640);

}  // namespace tollgate::quota
