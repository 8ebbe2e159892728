// The program's own log, written from every thread, event loops included: so it never blocks, whoever reads it.
//
// Each line is written at once, in order, or it is lost and counted. The next line that finds room again is preceded by
//
//   2026-11-22T10:15:03.123Z warning 17 lines of this log are lost: nobody read them
//
// No line is glued to another one: one of more than PIPE_BUF bytes may be cut, and then ends there. Nothing is kept
// back, so nothing is left to flush.
//
// Threads: any. SIGPIPE must be ignored.
#pragma once
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string_view>

namespace tollgate::telemetry {

class ProgramLog final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit ProgramLog(int fd = STDERR_FILENO);  // which stays the caller's
  ~ProgramLog() override;
  std::uint64_t lost_lines() const { return lost_lines_.load(std::memory_order_relaxed); }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override {}
  bool tell_lost();
  bool put(std::string_view text);  // false: not all of it

  const int fd_;
  bool torn_ = false;         // what was written last does not end with its line
  std::uint64_t untold_ = 0;  // lines lost since that was last told
  std::atomic<std::uint64_t> lost_lines_{0};
};

}  // namespace tollgate::telemetry
