// A bar for long work, on a terminal; nothing where standard error is a file or a pipe. Gone when it is
// destroyed.
//
//   ProgressBar bar(console, "absorbing", "entries");
//   bar.show(done, total);
#pragma once
#include <string>

#include "proxy/cli/console.h"

namespace tollgate::cli {

class ProgressBar {
 public:
  ProgressBar(Console& console, std::string what, std::string unit);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(std::uint64_t done, std::uint64_t total);
  void clear();  // before another line is printed

 private:
  std::ostream& out_;
  const std::string what_, unit_;
  const bool shown_;
  bool drawn_ = false;
};

}  // namespace tollgate::cli
