// What time it is at the store, told by this machine's monotonic clock: one that runs on while the machine is suspended
// (CLOCK_BOOTTIME, redis/connection.h), or leases would outlive their session.
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
// The store answers with the newest time it has ever told (lease_protocol.h). After its clock was stepped back by less than
// kClockGuard that stands still for a while: disagreement() shows it, and nothing else happens.
//
// Threads: observe() and reset() by one thread, the questions by any, without ever waiting for the writer: it fills the
// place that nobody reads and then publishes it by its number.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "metering/base/time.h"

namespace tollgate::quota {

inline constexpr std::int64_t kClockDriftPpm = 200;
inline constexpr Milliseconds kClockGuard{2'000};

class StoreClock {
 public:
  // A reply with the store's time `store_now` to something sent at `sent`, received at `received`.
  void observe(Milliseconds store_now, MonotonicTime sent, MonotonicTime received);
  // Nothing is known any more (another process start, session over): the next sample counts alone.
  void reset();

  bool known() const { return read().known; }
  // Only when known(). Store time at `now`: never before the truth, never after it, the middle. For any `now`, also one
  // before the last sample.
  Milliseconds hi(MonotonicTime now) const;
  Milliseconds lo(MonotonicTime now) const;
  Milliseconds estimate(MonotonicTime now) const;
  // As hi(), nullopt when nothing is known: one look instead of two, for the hot path.
  std::optional<Milliseconds> hi_if_known(MonotonicTime now) const;
  // By how much the last sample contradicted the interval; 0 when it agreed. Positive: the store is ahead of us.
  Milliseconds disagreement() const { return Milliseconds(disagreement_.load(std::memory_order_relaxed)); }

 private:
  struct Interval {
    bool known = false;
    std::int64_t hi = 0, lo = 0;  // ns: bounds of the store's time at monotonic `anchor`
    std::int64_t anchor = 0;      // ns
    std::int64_t hi_at(MonotonicTime now) const;
    std::int64_t lo_at(MonotonicTime now) const;
  };
  struct Place {
    std::atomic<std::int64_t> hi{0}, lo{0}, anchor{0};
  };
  Interval read() const;
  void publish(const Interval& interval);
  bool told_twice(const Interval& sample, MonotonicTime sent);

  std::atomic<std::uint64_t> sequence_{0};     // places_[sequence_ % 2] is valid
  std::array<Place, 2> places_;                // anchor kUnknown: nothing known
  std::atomic<std::int64_t> disagreement_{0};  // ms
  Interval
      behind_;  // the first of the samples that are behind by at most the guard and agree; observe() alone
};

}  // namespace tollgate::quota
