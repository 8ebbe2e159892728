#include "proxy/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

namespace tollgate::cli {

ProgressBar::ProgressBar(Console& console, std::string what, std::string unit)
    : out_(console.err),
      what_(std::move(what)),
      unit_(std::move(unit)),
      shown_(&console.err == &std::cerr && ::isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() {
  clear();
}

void ProgressBar::show(std::uint64_t done, std::uint64_t total) {
  if (!shown_ || total == 0) return;
  constexpr std::uint64_t kWidth = 30;
  const std::uint64_t full = std::min(done, total) * kWidth / total;
  out_ << fmt::format("\r{} [{:#<{}}{:<{}}] {} of {} {}", what_, "", full, "", kWidth - full, done, total,
                      unit_)
       << std::flush;
  drawn_ = true;
}

void ProgressBar::clear() {
  if (drawn_) out_ << "\r\x1b[K" << std::flush;
  drawn_ = false;
}

}  // namespace tollgate::cli
