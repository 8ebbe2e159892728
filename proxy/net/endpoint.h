// Socket addresses: parsing "host:port", sockets, and host names resolved off the loop. A host that begins
// with "/" is the path of a Unix socket.
#pragma once
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"

namespace tollgate::net {

struct Endpoint {
  sockaddr_storage address{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
  // Numeric, without port and brackets; IPv4-mapped IPv6 as IPv4. Of a Unix socket its path, "" without one.
  std::string host() const;
  std::uint16_t port() const;
  bool operator==(const Endpoint& other) const;
};

struct HostPort {
  std::string host;  // without brackets
  std::uint16_t port = 0;
  bool operator==(const HostPort&) const = default;
};
// "127.0.0.1:8080", "[::1]:8080", "crm.example:443", "*:80". nullopt when there is no port or it is out of
// range.
std::optional<HostPort> parse_host_port(std::string_view text);

// "127.0.0.1:8080" as parse_host_port(), or "unix:/path".
std::optional<HostPort> parse_listen_address(std::string_view text);

// A server of an upstream: "http://host[:port]" or "https://host[:port]", nothing behind it, or "unix:/path".
struct ServerUrl {
  bool tls = false;
  HostPort at;
  std::string authority;  // as written: "crm.example:9000"
};
std::optional<ServerUrl> parse_server_url(std::string_view text);

// Numeric address, or nullopt: no name is looked up. "*" is 0.0.0.0, "localhost" is 127.0.0.1.
std::optional<Endpoint> numeric_endpoint(const HostPort& at);

// Blocks: asks the system's resolver (getaddrinfo). At least one address, or an error that names the host.
Result<std::vector<Endpoint>> resolve(const HostPort& at);

// A listening, non-blocking socket. Unix sockets are not shared; one that a process left behind is replaced, one
// that answers is refused. share: SO_REUSEPORT, so that every worker has its own on the same port.
// Refuses a port on which another process listens, even with share (two proxies by mistake would halve each
// other's connections); `joining` is for the second and further workers of this process.
Result<int> listen_on(const Endpoint& at, bool share, bool joining);
Endpoint local_endpoint(int fd);

}  // namespace tollgate::net
