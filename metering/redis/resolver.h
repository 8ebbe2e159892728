// Host names to socket addresses without blocking the loop: getaddrinfo runs in a thread of its own, the
// answer comes back through an eventfd. Numeric addresses are answered by resolve_numeric without a thread.
// Inside this room only.
//
// Threads: Resolution is made, used and destroyed on the loop's thread. Destroying it while getaddrinfo still
// runs is safe: the thread finishes alone and its answer is dropped.
#pragma once
#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "metering/base/error.h"

struct event;
struct event_base;

namespace tollgate::redis {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  std::string text;  // "127.0.0.1:6379", "/run/redis.sock": for messages
};

// nullopt when `host` is not a numeric IPv4 or IPv6 address.
std::optional<SocketAddress> resolve_numeric(const std::string& host, std::uint16_t port);
// A path of 1..107 bytes, or an error.
Result<SocketAddress> unix_address(const std::string& path);

class Resolution {
 public:
  using Done = std::function<void(Result<std::vector<SocketAddress>>)>;
  // `done` is called once on the loop, never from the constructor; it may destroy the Resolution.
  Resolution(event_base* base, std::string host, std::uint16_t port, Done done);
  ~Resolution();
  Resolution(const Resolution&) = delete;
  Resolution& operator=(const Resolution&) = delete;

 private:
  struct Shared;
  static void on_ready(int fd, short what, void* self);
  std::shared_ptr<Shared> shared_;
  event* ready_ = nullptr;
  Done done_;
};

}  // namespace tollgate::redis
