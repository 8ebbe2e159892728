#include "proxy/telemetry/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

namespace tollgate::telemetry {
namespace {

std::string_view one_write(std::string_view text) {
  if (text.size() <= PIPE_BUF) return text;
  text = text.substr(0, PIPE_BUF);
  const std::size_t end = text.rfind('\n');
  return end == text.npos ? text : text.substr(0, end + 1);
}

}  // namespace

int open_output(int fd) {
  struct stat what{};
  if (::fstat(fd, &what) == 0 && (S_ISFIFO(what.st_mode) || S_ISCHR(what.st_mode))) {
    const std::string path = fmt::format("/proc/self/fd/{}", fd);
    const int own = ::open(path.c_str(), O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own >= 0) return own;
  }
  return ::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

ssize_t write_within(int fd, std::string_view text, Milliseconds patience) {
  const std::string_view part = one_write(text);
  bool look = (::fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;  // first: the write itself would wait
  for (;;) {
    pollfd room{.fd = fd, .events = POLLOUT, .revents = 0};
    const int ready = look ? ::poll(&room, 1, static_cast<int>(patience.count())) : 1;
    if (ready == 0) return 0;
    const ssize_t taken = ready < 0 ? -1 : ::write(fd, part.data(), part.size());
    if (taken >= 0) return taken;
    if (errno == EAGAIN && look) return 0;
    if (errno != EAGAIN && errno != EINTR) return -1;
    look = look || errno == EAGAIN;
  }
}

}  // namespace tollgate::telemetry
