// Where the store is: `store.url` of the configuration, taken apart. Pure: text in, struct out.
//
//   embedded:DIR                                    a private redis-server, its files in DIR (embedded.h)
//   redis://[[user]:password@]host[:port][/db]      TCP; port 6379, db 0 unless written; IPv6 as [::1]
//   rediss://...                                    the same over TLS
//   redis+unix:///path/to/redis.sock?db=n           unix socket; also redis+unix://[user:password@]/path
//   redis+sentinel://, redis+cluster://             known, but refused with a sentence of their own in this
//   version
//
// Host, credentials, path and DIR may hold %XX (RFC 3986 section 2.1); anything else that is not as above is
// an error that says what was expected. A password is never part of an error text nor of describe().
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "metering/base/error.h"

namespace tollgate::redis {

struct StoreUrl {
  enum class Kind : std::uint8_t { embedded, tcp, tls, unix_socket };
  Kind kind = Kind::tcp;
  std::string directory;      // embedded: as written; relative to whatever the caller decides
  std::string host;           // tcp, tls: name or address, IPv6 without brackets
  std::uint16_t port = 6379;  // tcp, tls
  std::string path;           // unix_socket
  std::uint32_t database = 0;
  std::string user;      // "" with a password: the server's default user
  std::string password;  // "" : no AUTH is sent

  // For logs and messages: the URL without credentials, "rediss://cache.example:6380/2".
  std::string describe() const;
};

Result<StoreUrl> parse_store_url(std::string_view url);

}  // namespace tollgate::redis
