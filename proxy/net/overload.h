// What to turn away when one worker cannot keep up, or memory runs out. Pure: times and sizes are arguments.
//
// Lag is how late the loop runs a timer: everything else in it is as late. One late turn is no overload; the
// least lag of a whole window is (the idea of CoDel, RFC 8289: a standing queue, not a burst).
//
//   least lag of a window    >= lag      -> anonymous requests are turned away
//                            >= 4 * lag  -> all of them, until it is below 2 * lag
//                            <  lag / 2  -> one step back
//   memory                   >= 90 %     -> anonymous
//                            >= 100 %    -> all; back below 85 % and 95 %
//
// Anonymous is what no token stands behind and no quota pays for: login pages, scripts and pictures,
// unmetered routes. A turned-away request is answered 503 at once, which costs a fraction of serving it.
//
// Threads: the worker's.
#pragma once
#include <algorithm>
#include <cstdint>

#include "metering/base/time.h"
#include "proxy/flow/shed.h"

namespace tollgate::net {

struct OverloadRules {
  Milliseconds lag{250};         // 0: lag turns nobody away
  std::uint64_t memory_max = 0;  // bytes; 0: memory turns nobody away
};

class Overload {
 public:
  static constexpr Milliseconds kWindow{1'000};

  // The loop ran a timer `lag` late.
  void observe_lag(const OverloadRules& rules, Duration lag, MonotonicTime now) {
    if (rules.lag.count() == 0) {
      lag_level_ = flow::Shed::nothing;
      window_began_ = {};
      return;
    }
    if (window_began_ == MonotonicTime{}) {
      window_began_ = now;
      return;
    }
    least_ = std::min(least_, lag);
    ++looks_;
    if (now - window_began_ < kWindow || looks_ < kLooksMin) return;
    if (least_ >= 4 * rules.lag)
      lag_level_ = flow::Shed::everything;
    else if (least_ >= rules.lag)
      lag_level_ =
          least_ < 2 * rules.lag ? flow::Shed::anonymous : std::max(lag_level_, flow::Shed::anonymous);
    if (least_ < rules.lag / 2) lag_level_ = step_back(lag_level_);
    last_least_ = least_;
    window_began_ = now;
    least_ = Duration::max();
    looks_ = 0;
  }

  void observe_memory(const OverloadRules& rules, std::uint64_t bytes) {
    const std::uint64_t percent = rules.memory_max == 0 ? 0 : bytes / (rules.memory_max / 100 + 1);
    if (percent >= 100)
      memory_level_ = flow::Shed::everything;
    else if (percent >= 90)
      memory_level_ = std::max(memory_level_, flow::Shed::anonymous);
    if (percent < 95) memory_level_ = std::min(memory_level_, flow::Shed::anonymous);
    if (percent < 85) memory_level_ = flow::Shed::nothing;
  }

  flow::Shed level() const { return std::max(lag_level_, memory_level_); }
  bool short_of_memory() const { return memory_level_ != flow::Shed::nothing; }
  Duration lag() const { return last_least_; }  // the least of the last whole window

 private:
  static flow::Shed step_back(flow::Shed level) {
    return level == flow::Shed::everything ? flow::Shed::anonymous : flow::Shed::nothing;
  }

  flow::Shed lag_level_ = flow::Shed::nothing, memory_level_ = flow::Shed::nothing;
  static constexpr int kLooksMin = 3;  // a window of one look is one late turn

  MonotonicTime window_began_{};
  int looks_ = 0;
  Duration least_ = Duration::max(), last_least_{0};
};

// Memory that only this process holds (resident, not backed by a file), in bytes; 0 when /proc does not say.
std::uint64_t private_memory();
// What it may hold: the control group's memory.max or the machine's memory, the smaller; 0 when unknown.
std::uint64_t memory_allowed();

}  // namespace tollgate::net
