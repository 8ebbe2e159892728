// Where the store is: `store.url` of the configuration, taken apart. Pure: text in, struct out.
//
//   embedded:DIR                                    a private redis-server, its files in DIR (embedded.h)
//   redis://[[user]:password@]host[:port][/db]      TCP; port 6379, db 0 unless written; IPv6 as [::1]
//   rediss://...                                    the same over TLS
//   redis+unix:///path/to/redis.sock?db=n           unix socket; also redis+unix://[user:password@]/path
//   redis+sentinel://[user:password@]host[:port],host[:port].../name[/db]
//                                                   the primary called `name` there; port 26379
//   redis+cluster://[user:password@]host[:port],host[:port]...
//                                                   some nodes of a Redis Cluster; port 6379
//   rediss+sentinel://..., rediss+cluster://...     the same, everything over TLS: sentinels and servers alike
//
// User and password of the two last are for the servers and for the sentinels; a sentinel that wants none is
// asked without. There is no ?tls=true: one spelling for one thing.
//
// Host, credentials, path and DIR may hold %XX (RFC 3986 section 2.1); anything else that is not as above is
// an error that says what was expected. A password is never part of an error text nor of describe().
#pragma once
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"

namespace tollgate::redis {

struct Endpoint {
  std::string host;  // name or address, IPv6 without brackets
  std::uint16_t port = 0;

  std::string text() const;  // "cache.example:6379", "[::1]:6379"
  auto operator<=>(const Endpoint&) const = default;
};

struct StoreUrl {
  enum class Kind : std::uint8_t { embedded, tcp, tls, unix_socket, sentinel, cluster };
  Kind kind = Kind::tcp;
  std::string directory;        // embedded: as written; relative to whatever the caller decides
  std::string host;             // tcp, tls: name or address, IPv6 without brackets
  std::uint16_t port = 6379;    // tcp, tls
  std::string path;             // unix_socket
  std::vector<Endpoint> nodes;  // sentinel: the sentinels; cluster: nodes to begin with; at least one
  std::string primary_name;     // sentinel: "mymaster"
  bool secure = false;          // sentinel, cluster: over TLS
  std::uint32_t database = 0;
  std::string user;      // "" with a password: the server's default user
  std::string password;  // "" : no AUTH is sent

  // For logs and messages: the URL without credentials, "rediss://cache.example:6380/2".
  std::string describe() const;
  // Of sentinel and cluster: the URL of one server there, with the same credentials and database.
  StoreUrl server(const Endpoint& endpoint) const;
};

Result<StoreUrl> parse_store_url(std::string_view url);

}  // namespace tollgate::redis
