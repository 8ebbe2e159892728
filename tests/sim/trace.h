// The event log of one run (--trace): one line an event, with virtual time. Formats nothing when it is off.
#pragma once
#include <fmt/format.h>

#include <cstdio>

#include "metering/base/time.h"

namespace tollgate::sim {

class Trace {
 public:
  bool on = false;

  template <class... Args>
  void line(Duration now, fmt::format_string<Args...> format, Args&&... args) const {
    if (!on) return;
    std::printf("%14.6f  %s\n", std::chrono::duration<double>(now).count(),
                fmt::format(format, std::forward<Args>(args)...).c_str());
  }
};

}  // namespace tollgate::sim
