#include "proxy/cli/upgrade.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>
#include <vector>

#include "metering/base/ascii.h"

namespace tollgate::cli {
namespace {

constexpr std::string_view kSocketsVariable = "TOLLGATE_LISTEN_FDS";
constexpr std::string_view kChannelVariable = "TOLLGATE_UPGRADE_FD";
constexpr int kSliceMs = 20;  // between two looks at signals

std::vector<std::string> own_command() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

std::vector<std::string> environment_with(const net::Sockets& sockets, int channel) {
  std::vector<std::string> all;
  for (char** one = environ; *one != nullptr; ++one) all.emplace_back(*one);
  all.push_back(fmt::format("{}={}", kSocketsVariable, net::to_text(sockets)));
  all.push_back(fmt::format("{}={}", kChannelVariable, channel));
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> out;
  for (std::string& word : words) out.push_back(word.data());
  out.push_back(nullptr);
  return out;
}

std::optional<std::string> take_variable(std::string_view name) {
  const std::string key(name);
  const char* value = std::getenv(key.c_str());
  if (value == nullptr) return std::nullopt;
  std::string copy = value;
  ::unsetenv(key.c_str());
  return copy;
}

enum class Seen : std::uint8_t { word, nothing, end };

Seen look(int channel, UpgradeWord word) {
  pollfd waiting{channel, POLLIN, 0};
  if (::poll(&waiting, 1, kSliceMs) <= 0) return Seen::nothing;
  char said = 0;
  const ssize_t got = ::recv(channel, &said, 1, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Seen::nothing;
  if (got <= 0) return Seen::end;
  return said == static_cast<char>(word) ? Seen::word : Seen::nothing;
}

void say(int channel, UpgradeWord word) {
  const char text = static_cast<char>(word);
  // Whether the other side still listens shows in its answer.
  (void)!::send(channel, &text, 1, MSG_NOSIGNAL);
}

}  // namespace

Result<Successor> Successor::start(const net::Sockets& sockets) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return fail(Origin::self, fmt::format("socketpair: {}", std::strerror(errno)));
  ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);  // whatever a library forgot
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  // Onto itself: stays open in the child.
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], ends[1]);
  for (const auto& [address, fds] : sockets)
    for (const int fd : fds) ::posix_spawn_file_actions_adddup2(&actions, fd, fd);
  std::vector<std::string> words = own_command(), variables = environment_with(sockets, ends[1]);
  pid_t pid = 0;
  const int error = words.empty() ? ENOENT
                                  : ::posix_spawnp(&pid, words[0].c_str(), &actions, nullptr,
                                                   pointers(words).data(), pointers(variables).data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (error == 0) return Successor(pid, ends[0]);
  ::close(ends[0]);
  return fail(Origin::config, fmt::format("{} cannot be started: {}",
                                          words.empty() ? "the program" : words[0], std::strerror(error)));
}

Successor::Successor(Successor&& other) noexcept
    : pid_(other.pid_), channel_(std::exchange(other.channel_, -1)) {}

Successor::~Successor() {
  if (channel_ >= 0) ::close(channel_);
}

Successor::Heard Successor::hear(UpgradeWord word, Milliseconds limit,
                                 const std::function<bool()>& interrupt) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (std::chrono::steady_clock::now() < until) {
    if (interrupt()) return Heard::interrupted;
    switch (look(channel_, word)) {
      case Seen::word:
        return Heard::said;
      case Seen::end:
        return Heard::ended;
      case Seen::nothing:
        break;
    }
  }
  return Heard::silent;
}

void Successor::tell(UpgradeWord word) {
  say(channel_, word);
}

void Successor::stop() {
  ::kill(pid_, SIGTERM);
}

std::string Successor::end() {
  ::kill(pid_, SIGKILL);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? fmt::format("process {} ended with code {}", pid_, WEXITSTATUS(status))
                           : fmt::format("process {} ended by signal {}", pid_, WTERMSIG(status));
}

std::optional<Predecessor> Predecessor::of_environment() {
  const auto channel = take_variable(kChannelVariable);
  const auto listed = take_variable(kSocketsVariable);
  const auto number = channel ? parse_decimal(*channel) : std::nullopt;
  if (!number || !listed) return std::nullopt;
  net::Sockets sockets = net::sockets_from_text(*listed);
  for (const auto& [address, fds] : sockets)
    for (const int fd : fds) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  const int fd = static_cast<int>(*number);
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return Predecessor(fd, std::move(sockets));
}

bool Predecessor::wait_for_go(const std::function<bool()>& interrupt) {
  say(channel_, UpgradeWord::prepared);
  while (!interrupt()) {
    const Seen seen = look(channel_, UpgradeWord::go);
    if (seen != Seen::nothing) return seen == Seen::word;
  }
  return false;
}

void Predecessor::ready() {
  say(channel_, UpgradeWord::ready);
  ::close(std::exchange(channel_, -1));
}

void notify_supervisor(const std::string& state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::strlen(path);
  if (length == 0 || length >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  // A supervisor that does not listen is no reason not to serve.
  (void)!::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address),
                  static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length));
  ::close(fd);
}

}  // namespace tollgate::cli
