// What time it is at the store, told by this machine's monotonic clock.
//
// Every reply carries the store's time. It was read somewhere between our sending and our receiving, so each reply
// bounds the offset between the two clocks from both sides; the interval kept is the intersection, widened by the drift
// that two quartz clocks may have.
//
//        sent s            received r            asked x
//   ──────┼───────[ T ]───────┼────────────────────┼────>  monotonic
//         store time T was read in here            hi(x) = T + (x - s) * (1 + drift) + 1 ms
//                                                  lo(x) = T + (x - r) * (1 - drift)
//
// The wall clock of this machine plays no part. Uses are stamped with hi and leases end at hi: the side that never
// frees anything early. A sample that contradicts the interval by more than the drift explains (the store's clock was
// stepped, or another server with another clock answers) is not taken over while a session lives: disagreement() says
// by how much, ops go on carrying our estimate, and the store refuses grants until both agree again (lease_protocol.h).
//
// Threads: observe() and reset() by one thread, the questions by any (each value is one atomic word, published together
// by a sequence number).
#pragma once
#include <atomic>
#include <cstdint>

#include "metering/base/time.h"

namespace tollgate::quota {

inline constexpr std::int64_t kClockDriftPpm = 200;

class StoreClock {
 public:
  // A reply with the store's time `store_now` to something sent at `sent`, received at `received`.
  void observe(Milliseconds store_now, MonotonicTime sent, MonotonicTime received);
  // Nothing is known any more (another process start, session over): the next sample counts alone.
  void reset();

  bool known() const { return sequence_.load(std::memory_order_acquire) != 0; }
  // Only when known(). Store time at `now`: never before the truth, never after it, the middle.
  Milliseconds hi(MonotonicTime now) const;
  Milliseconds lo(MonotonicTime now) const;
  Milliseconds estimate(MonotonicTime now) const;
  // By how much the last sample contradicted the interval; 0 when it agreed. Positive: the store is ahead of us.
  Milliseconds disagreement() const;

 private:
  std::atomic<std::uint64_t> sequence_{0};     // odd while being written; 0: nothing known
  std::atomic<std::int64_t> hi_anchor_{0};     // ns: store time at monotonic anchor_, upper bound
  std::atomic<std::int64_t> lo_anchor_{0};
  std::atomic<std::int64_t> anchor_{0};        // ns, monotonic
  std::atomic<std::int64_t> disagreement_{0};  // ms
};

}  // namespace tollgate::quota
