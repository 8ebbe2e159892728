#include "metering/redis/resolver.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>

#include "metering/base/check.h"

namespace tollgate::redis {
namespace {

SocketAddress from_sockaddr(const sockaddr* address, socklen_t length) {
  SocketAddress made;
  std::memcpy(&made.storage, address, length);
  made.length = length;
  char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
  getnameinfo(address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  made.text =
      address->sa_family == AF_INET6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
  return made;
}

Result<std::vector<SocketAddress>> look_up(const std::string& host, std::uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (code != 0)
    return fail(Origin::store, fmt::format("the name {} cannot be resolved: {}", host, gai_strerror(code)),
                true);
  std::vector<SocketAddress> found;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next)
    found.push_back(from_sockaddr(entry->ai_addr, entry->ai_addrlen));
  freeaddrinfo(list);
  return found;
}

}  // namespace

std::optional<SocketAddress> resolve_numeric(const std::string& host, std::uint16_t port) {
  auto found = look_up(host, port, AI_NUMERICHOST);
  if (!found || found->empty()) return std::nullopt;
  return std::move(found->front());
}

Result<SocketAddress> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return fail(Origin::config,
                fmt::format("the socket path {} must have 1 to {} bytes", path, sizeof address.sun_path - 1));
  std::memcpy(address.sun_path, path.data(), path.size());
  SocketAddress made;
  std::memcpy(&made.storage, &address, sizeof address);
  made.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  made.text = path;
  return made;
}

// Outlives whichever of the two sides ends first; the eventfd closes with the last.
struct Resolution::Shared {
  std::mutex mutex;
  int wake = -1;
  std::optional<Result<std::vector<SocketAddress>>> answer;
  Shared() : wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { CHECK(wake >= 0, "eventfd"); }
  ~Shared() { ::close(wake); }
};

Resolution::Resolution(event_base* base, std::string host, std::uint16_t port, Done done)
    : shared_(std::make_shared<Shared>()), done_(std::move(done)) {
  ready_ = event_new(base, shared_->wake, EV_READ, &Resolution::on_ready, this);
  CHECK(ready_ != nullptr && event_add(ready_, nullptr) == 0, "event_new");
  auto run = [shared = shared_, host = std::move(host), port] {
    auto answer = look_up(host, port, AI_ADDRCONFIG);
    // AI_ADDRCONFIG knows no address at all on a machine with loopback alone.
    if (!answer) answer = look_up(host, port, 0);
    std::lock_guard lock(shared->mutex);
    shared->answer = std::move(answer);
    std::uint64_t one = 1;
    (void)!::write(shared->wake, &one, sizeof one);
  };
  try {
    std::thread(std::move(run)).detach();
  } catch (const std::system_error& error) {
    std::lock_guard lock(shared_->mutex);
    shared_->answer =
        fail(Origin::self, fmt::format("no thread for resolving names: {}", error.what()), true);
    std::uint64_t one = 1;
    (void)!::write(shared_->wake, &one, sizeof one);
  }
}

Resolution::~Resolution() {
  event_free(ready_);
}

void Resolution::on_ready(int, short, void* self) {
  auto* resolution = static_cast<Resolution*>(self);
  auto answer = [&] {
    std::lock_guard lock(resolution->shared_->mutex);
    return std::move(*resolution->shared_->answer);
  }();
  Done done = std::move(resolution->done_);
  done(std::move(answer));
}

}  // namespace tollgate::redis
