// The live counters of one account on this proxy: tokens left and calls admitted, in memory that outlives the process
// (a mapped file, metering/journal/arena.h). Layout is fixed: a restarted process reads what a killed one left.
//
// One call is one compare-and-swap of `word`, which holds tokens left and the units of the current bucket together, so
// that a kill -9 between two instructions can never tear them apart:
//
//   word    | bucket, low 22 bits | units in that bucket: 22 bits | tokens left: 20 bits |
//   closed  up to 6 earlier buckets | bucket, low 36 bits | units: 28 bits |, 0 = free
//   pending what the op under way reports, until it is acknowledged
//
// When the bucket changes, whoever admits next takes the old pair out of `word` in its own CAS and then adds it to
// `closed`. Killed in between, the units are in neither; but outstanding - tokens left still counts them:
//
//   used and not settled  =  outstanding - available - pending.returned - pending units           (limited accounts)
//
// so recovery dates what no bucket claims at the moment of the restart: later, hence never forgotten early.
// With all closed cells in use, units go into the newest closed bucket: later again.
//
// Bucket numbers are kept by their low bits; a full number is rebuilt as the newest one not after a given `current`.
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

inline constexpr std::uint32_t kTokensMax = (1U << 20) - 1;
inline constexpr std::size_t kClosedBuckets = 6;
inline constexpr std::size_t kNameBytes = 352;  // subject key + '\n' + field; longer accounts cannot be leased

class LeaseCell {
 public:
  // ---- hot path
  // One unit of work: `units` tokens, counted in `bucket`. False, and nothing has changed, when fewer are left.
  bool take(std::int64_t bucket, std::uint32_t units);
  // Counted without tokens: accounts without a limit, and calls let through while the store is away.
  void force(std::int64_t bucket, std::uint32_t units);
  // The call never happened: undoes take() (`forced` false: the tokens come back) or force(). False when the units are
  // on their way to the store or settled already: then they must be reported as negative use.
  bool put_back(std::int64_t bucket, std::uint32_t units, bool forced);

  std::uint32_t available() const;  // tokens left

  // ---- owner
  // Moves everything countable into `pending` under the number `seq`: uses, and the tokens to hand back: all (`return_all`)
  // or none. Nothing is lost if the process dies at any point of it; until journaled, undo_snapshot() reverses it.
  void snapshot(std::uint64_t seq, std::int64_t current_bucket, bool return_all);
  // What the snapshot holds: uses ascending and each bucket once; unattributed() is not part of it.
  std::vector<BucketUse> pending_uses(std::int64_t current_bucket) const;
  std::uint64_t pending_returned() const { return pending_returned_.load(std::memory_order_relaxed); }
  std::uint64_t pending_seq() const { return pending_seq_.load(std::memory_order_acquire); }
  void acknowledge(std::uint64_t outstanding_now);  // the op was applied: the pending part is over, new tokens are added
  void undo_snapshot(std::int64_t current_bucket);  // the op was never journaled

  bool dirty() const;                               // uses not yet in a snapshot
  std::uint64_t unsettled() const;                  // units admitted and not acknowledged (word + closed + pending)
  std::uint64_t outstanding() const { return outstanding_.load(std::memory_order_relaxed); }
  // After a restart: everything used, the unattributed rest dated `restart_bucket`; the cell keeps no tokens.
  std::vector<BucketUse> recover(std::int64_t restart_bucket, bool limited);

  // ---- identity, written once before the cell is published
  void set_name(std::string_view name, Milliseconds window, Milliseconds bucket, bool limited);
  std::string_view name() const { return {name_.data(), name_size_}; }
  Milliseconds window() const { return Milliseconds(window_ms_); }
  Milliseconds bucket() const { return Milliseconds(bucket_ms_); }
  bool limited() const { return limited_ != 0; }
  bool in_use() const { return in_use_.load(std::memory_order_acquire) != 0; }
  void release();                                   // free for another account; owner, once nobody holds a handle

 private:
  std::atomic<std::uint64_t> word_{0};
  std::array<std::atomic<std::uint64_t>, kClosedBuckets> closed_{};
  std::atomic<std::uint64_t> outstanding_{0};       // lent to us by the store's books
  std::atomic<std::uint64_t> pending_seq_{0};       // 0: none
  std::atomic<std::uint64_t> pending_returned_{0};
  std::array<std::atomic<std::uint64_t>, kClosedBuckets + 1> pending_{};  // as closed_
  std::int64_t window_ms_ = 0, bucket_ms_ = 0;
  std::atomic<std::uint32_t> in_use_{0};
  std::uint16_t limited_ = 0, name_size_ = 0;
  std::array<char, kNameBytes> name_{};
};
static_assert(sizeof(LeaseCell) == 512);

}  // namespace tollgate::quota
