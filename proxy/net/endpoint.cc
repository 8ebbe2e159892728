#include "proxy/net/endpoint.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "metering/base/ascii.h"

namespace tollgate::net {

std::string Endpoint::host() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_UNIX && length > offsetof(sockaddr_un, sun_path))
    return reinterpret_cast<const sockaddr_un*>(&address)->sun_path;
  if (address.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
  } else if (address.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
      inet_ntop(AF_INET, v6->sin6_addr.s6_addr + 12, text, sizeof text);
    else
      inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
  }
  return text;
}

std::uint16_t Endpoint::port() const {
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port);
  return 0;
}

bool Endpoint::operator==(const Endpoint& other) const {
  return length == other.length && std::memcmp(&address, &other.address, length) == 0;
}

std::optional<HostPort> parse_host_port(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const auto port = parse_decimal(text.substr(colon + 1));
  if (!port || *port > 65'535) return std::nullopt;
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) return std::nullopt;
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  return HostPort{std::string(host.empty() ? "*" : host), static_cast<std::uint16_t>(*port)};
}

std::optional<HostPort> parse_listen_address(std::string_view text) {
  if (text.starts_with("unix:/")) return HostPort{std::string(text.substr(5)), 0};
  return parse_host_port(text);
}

std::optional<ServerUrl> parse_server_url(std::string_view text) {
  ServerUrl url;
  if (text.starts_with("unix:/")) {
    url.at.host = text.substr(5);
    url.authority = text;
    return url;
  }
  if (starts_with_ignore_case(text, "http://")) {
    text.remove_prefix(7);
  } else if (starts_with_ignore_case(text, "https://")) {
    text.remove_prefix(8);
    url.tls = true;
  } else {
    return std::nullopt;
  }
  if (text.ends_with('/')) text.remove_suffix(1);
  if (text.empty() || text.find_first_of("/?#@ ") != std::string_view::npos) return std::nullopt;
  url.authority = text;
  const bool has_port = text.ends_with(']') ? false : text.rfind(':') != std::string_view::npos;
  const std::string with_port = has_port ? std::string(text) : std::string(text) + (url.tls ? ":443" : ":80");
  auto at = parse_host_port(with_port);
  if (!at || at->host == "*" || at->port == 0) return std::nullopt;
  url.at = std::move(*at);
  return url;
}

std::optional<Endpoint> numeric_endpoint(const HostPort& at) {
  const std::string host = at.host == "*" ? "0.0.0.0" : at.host == "localhost" ? "127.0.0.1" : at.host;
  Endpoint endpoint;
  if (host.starts_with('/')) {
    auto* local = reinterpret_cast<sockaddr_un*>(&endpoint.address);
    if (host.size() >= sizeof local->sun_path) return std::nullopt;
    local->sun_family = AF_UNIX;
    std::memcpy(local->sun_path, host.c_str(), host.size() + 1);
    endpoint.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + host.size() + 1);
    return endpoint;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(&endpoint.address);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(at.port);
    endpoint.length = sizeof *v4;
    return endpoint;
  }
  endpoint = {};
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&endpoint.address);
  if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(at.port);
    endpoint.length = sizeof *v6;
    return endpoint;
  }
  return std::nullopt;
}

Result<std::vector<Endpoint>> resolve(const HostPort& at) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(at.host.c_str(), std::to_string(at.port).c_str(), &hints, &found);
  if (error != 0)
    return fail(Origin::upstream,
                fmt::format("host name {} cannot be resolved: {}", at.host, gai_strerror(error)), true);
  std::vector<Endpoint> endpoints;
  for (const addrinfo* item = found; item != nullptr; item = item->ai_next) {
    Endpoint endpoint;
    if (item->ai_addrlen > sizeof endpoint.address) continue;
    std::memcpy(&endpoint.address, item->ai_addr, item->ai_addrlen);
    endpoint.length = item->ai_addrlen;
    endpoints.push_back(endpoint);
  }
  freeaddrinfo(found);
  if (endpoints.empty())
    return fail(Origin::upstream, fmt::format("host name {} has no address", at.host), true);
  return endpoints;
}

namespace {

std::unexpected<Error> socket_failure(const Endpoint& at, std::string_view what) {
  const int error = errno;
  return fail(Origin::config,
              at.address.ss_family == AF_UNIX
                  ? fmt::format("cannot listen on {}: {}: {}", at.host(), what, std::strerror(error))
                  : fmt::format("cannot listen on {} port {}: {}: {}", at.host(), at.port(), what,
                                std::strerror(error)),
              error == EADDRINUSE);
}

Result<int> bound_socket(const Endpoint& at, bool share) {
  const int fd = ::socket(at.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return socket_failure(at, "socket");
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (share) ::setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (at.address.ss_family == AF_INET6) ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (::bind(fd, at.get(), at.length) < 0) {
    auto failure = socket_failure(at, "bind");
    ::close(fd);
    return failure;
  }
  return fd;
}

// What a process that was killed left behind answers nobody and is in the way of a new one.
void remove_dead_socket(const Endpoint& at) {
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (probe < 0) return;
  if (::connect(probe, at.get(), at.length) < 0 && errno == ECONNREFUSED)
    ::unlink(reinterpret_cast<const sockaddr_un*>(&at.address)->sun_path);
  ::close(probe);
}

}  // namespace

Result<int> listen_on(const Endpoint& at, bool share, bool joining) {
  if (at.address.ss_family == AF_UNIX) {
    remove_dead_socket(at);
    share = false;
  }
  if (share && !joining && at.port() != 0) {
    auto probe = bound_socket(at, false);
    if (!probe) return probe;
    ::close(*probe);
  }
  auto fd = bound_socket(at, share);
  if (!fd) return fd;
  const int on = 1;
  ::setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // inherited by accepted sockets
  if (::listen(*fd, 4096) < 0) {
    auto failure = socket_failure(at, "listen");
    ::close(*fd);
    return failure;
  }
  return fd;
}

Endpoint local_endpoint(int fd) {
  Endpoint endpoint;
  endpoint.length = sizeof endpoint.address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&endpoint.address), &endpoint.length) != 0) return {};
  return endpoint;
}

}  // namespace tollgate::net
