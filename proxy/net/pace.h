// Is a client fast enough? A floor for the bytes a second that it sends of a body or takes of a reply, judged
// over windows: slow clients hold a buffer, a connection to the CRM and a place under the cap as long as they
// like, one byte before each time-out (slowhttptest's attacks). Pure: the time is an argument.
//
// Only the time counts during which the client is waited for. A window lasts at least PaceRules::window; a
// client that stays below the floor is found out within two windows and the interval of looking.
//
//   Pace pace;                                            // one a connection and direction
//   if (waiting) slow = pace.too_slow(rules, bytes, now); // every second or so
//   else         pace.forget();
//
// Threads: none of its own.
#pragma once
#include <cstdint>

#include "metering/base/time.h"

namespace tollgate::net {

struct PaceRules {
  std::uint64_t bytes_per_second = 0;  // 0: any pace will do
  Milliseconds window{10'000};         // > 0
};

class Pace {
 public:
  // bytes: all that moved so far, never less than before.
  bool too_slow(const PaceRules& rules, std::uint64_t bytes, MonotonicTime now) {
    if (rules.bytes_per_second == 0) return false;
    if (!running_) {
      running_ = true;
      start(bytes, now);
      return false;
    }
    const Duration passed = now - since_;
    if (passed < rules.window) return false;
    const double floor =
        static_cast<double>(rules.bytes_per_second) * std::chrono::duration<double>(passed).count();
    if (static_cast<double>(bytes - bytes_) < floor) return true;
    start(bytes, now);
    return false;
  }
  void forget() { running_ = false; }  // the client is not waited for any more

 private:
  void start(std::uint64_t bytes, MonotonicTime now) {
    bytes_ = bytes;
    since_ = now;
  }

  std::uint64_t bytes_ = 0;
  MonotonicTime since_{};
  bool running_ = false;
};

// Of a client while an exchange is under way.
struct ClientPace {
  Pace body, reply;
  std::uint64_t delivered = 0;   // bytes of replies that the client had at the last look
  MonotonicTime delivered_at{};  // the last look at which it had less
};

}  // namespace tollgate::net
