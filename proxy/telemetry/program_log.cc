#include "proxy/telemetry/program_log.h"

#include <fmt/format.h>

#include "proxy/telemetry/output.h"

namespace tollgate::telemetry {
namespace {

std::string_view view(const spdlog::memory_buf_t& text) {
  return {text.data(), text.size()};
}

}  // namespace

ProgramLog::ProgramLog(int fd) : fd_(open_output(fd)) {}

ProgramLog::~ProgramLog() {
  ::close(fd_);
}

void ProgramLog::sink_it_(const spdlog::details::log_msg& message) {
  spdlog::memory_buf_t line;
  formatter_->format(message, line);
  if (tell_lost() && put(view(line))) return;
  ++untold_;
  lost_lines_.fetch_add(1, std::memory_order_relaxed);
}

bool ProgramLog::tell_lost() {
  if (untold_ == 0) return true;
  const std::string text =
      fmt::format("{} line{} of this log {} lost: nobody read {}", untold_, untold_ == 1 ? "" : "s",
                  untold_ == 1 ? "is" : "are", untold_ == 1 ? "it" : "them");
  spdlog::memory_buf_t line;
  if (torn_) line.push_back('\n');
  formatter_->format({"", spdlog::level::warn, text}, line);
  if (!put(view(line))) return false;
  untold_ = 0;
  return true;
}

bool ProgramLog::put(std::string_view text) {
  while (!text.empty()) {
    const ssize_t taken = write_within(fd_, text, Milliseconds(0));
    if (taken <= 0) return false;
    torn_ = text[static_cast<std::size_t>(taken) - 1] != '\n';
    text.remove_prefix(static_cast<std::size_t>(taken));
  }
  return true;
}

}  // namespace tollgate::telemetry
