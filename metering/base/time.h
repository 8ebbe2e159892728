// Time is an argument: nothing below the edges reads a clock. Two clocks that cannot be mixed up:
//   MonotonicTime  for time-outs and durations; never jumps
//   UnixTime       calendar time, for token lifetimes, logs and file dates; may be stepped by the administrator
// Quota windows use neither: they use the store's clock (metering/quota/ledger.h).
#pragma once
#include <chrono>
#include <cstdint>

namespace tollgate {

using Duration = std::chrono::nanoseconds;
using Milliseconds = std::chrono::milliseconds;
using Seconds = std::chrono::seconds;

struct MonotonicClock {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;
};
using MonotonicTime = MonotonicClock::time_point;

struct UnixClock {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<UnixClock>;
  static constexpr bool is_steady = false;
};
using UnixTime = UnixClock::time_point;

// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
constexpr std::int64_t unix_seconds(UnixTime t) {
  return std::chrono::floor<Seconds>(t.time_since_epoch()).count();
}
constexpr UnixTime from_unix_seconds(std::int64_t s) {
  return UnixTime(Seconds(s));
}

}  // namespace tollgate
