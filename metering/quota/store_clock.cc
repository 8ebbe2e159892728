#include "metering/quota/store_clock.h"

#include <algorithm>

#include "metering/base/check.h"

namespace tollgate::quota {
namespace {

constexpr std::int64_t kUnknown = INT64_MIN;
constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kGuard = kClockGuard.count() * kMillisecond;
constexpr std::int64_t kToldAgainAfter = 1'000 * kMillisecond;

std::int64_t ns(MonotonicTime time) {
  return time.time_since_epoch().count();
}

// What two clocks may have drifted apart in `elapsed`, rounded up; elapsed >= 0.
std::int64_t drift(std::int64_t elapsed) {
  return elapsed / (1'000'000 / kClockDriftPpm) + 1;
}

std::int64_t floor_ms(std::int64_t nanoseconds) {
  return std::chrono::floor<Milliseconds>(Duration(nanoseconds)).count();
}

}  // namespace

std::int64_t StoreClock::Interval::hi_at(MonotonicTime now) const {
  const std::int64_t elapsed = ns(now) - anchor;
  return elapsed >= 0 ? hi + elapsed + drift(elapsed) : hi + elapsed + drift(-elapsed);
}

std::int64_t StoreClock::Interval::lo_at(MonotonicTime now) const {
  const std::int64_t elapsed = ns(now) - anchor;
  return elapsed >= 0 ? lo + elapsed - drift(elapsed) : lo + elapsed - drift(-elapsed);
}

StoreClock::Interval StoreClock::read() const {
  while (true) {
    const std::uint64_t sequence = sequence_.load(std::memory_order_acquire);
    if (sequence == 0) return {};
    const Place& place = places_[sequence % 2];
    const Interval interval{true, place.hi.load(std::memory_order_acquire),
                            place.lo.load(std::memory_order_acquire),
                            place.anchor.load(std::memory_order_acquire)};
    if (sequence_.load(std::memory_order_acquire) != sequence) continue;  // the place may be refilled by now
    return interval.anchor == kUnknown ? Interval{} : interval;
  }
}

void StoreClock::publish(const Interval& interval) {
  const std::uint64_t sequence = sequence_.load(std::memory_order_relaxed) + 1;
  Place& place = places_[sequence % 2];
  place.hi.store(interval.hi, std::memory_order_release);
  place.lo.store(interval.lo, std::memory_order_release);
  place.anchor.store(interval.known ? interval.anchor : kUnknown, std::memory_order_release);
  sequence_.store(sequence, std::memory_order_release);
}

void StoreClock::observe(Milliseconds store_now, MonotonicTime sent, MonotonicTime received) {
  CHECK(sent <= received, "an answer comes after its question");
  const std::int64_t told = store_now.count() * kMillisecond;
  const std::int64_t travelled = ns(received) - ns(sent);
  // The store cut off the fraction of its millisecond.
  const Interval sample{true, told + kMillisecond + travelled + drift(travelled), told, ns(received)};
  Interval kept = sample;
  if (const Interval before = read(); before.known) {
    const std::int64_t hi = before.hi_at(received), lo = before.lo_at(received);
    const std::int64_t ahead = sample.lo - hi, behind = lo - sample.hi;
    if (ahead > kGuard || (behind > 0 && (behind > kGuard || !told_twice(sample, sent)))) {
      const std::int64_t off_ms = floor_ms(std::max(ahead, behind) + kMillisecond - 1);
      disagreement_.store(ahead > 0 ? off_ms : -off_ms, std::memory_order_relaxed);
      return;
    }
    if (ahead <= 0 && behind <= 0) {
      kept.hi = std::min(hi, sample.hi);
      kept.lo = std::max(lo, sample.lo);
    }
  }
  behind_ = {};
  disagreement_.store(0, std::memory_order_relaxed);
  publish(kept);
}

// Whether this sample says the same as one long enough ago. A clock that stands still never does: what it tells again would
// have to have been read as long ago as that.
bool StoreClock::told_twice(const Interval& sample, MonotonicTime sent) {
  const MonotonicTime received{Duration(sample.anchor)};
  if (!behind_.known || sample.lo > behind_.hi_at(received) || sample.hi < behind_.lo_at(received)) {
    behind_ = sample;
    return false;
  }
  const std::int64_t elapsed = sample.anchor - behind_.anchor;
  return elapsed >= kToldAgainAfter && sample.anchor - ns(sent) <= elapsed / 2;
}

void StoreClock::reset() {
  behind_ = {};
  disagreement_.store(0, std::memory_order_relaxed);
  publish({});
}

Milliseconds StoreClock::hi(MonotonicTime now) const {
  return Milliseconds(floor_ms(read().hi_at(now) + kMillisecond - 1));
}

Milliseconds StoreClock::lo(MonotonicTime now) const {
  return Milliseconds(floor_ms(read().lo_at(now)));
}

Milliseconds StoreClock::estimate(MonotonicTime now) const {
  const Interval interval = read();
  const std::int64_t lo = interval.lo_at(now);
  return Milliseconds(floor_ms(lo + (interval.hi_at(now) - lo) / 2));
}

std::optional<Milliseconds> StoreClock::hi_if_known(MonotonicTime now) const {
  const Interval interval = read();
  if (!interval.known) return std::nullopt;
  return Milliseconds(floor_ms(interval.hi_at(now) + kMillisecond - 1));
}

}  // namespace tollgate::quota
