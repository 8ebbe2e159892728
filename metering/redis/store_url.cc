#include "metering/redis/store_url.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "metering/base/ascii.h"

namespace tollgate::redis {
namespace {

constexpr std::string_view kForms =
    "expected embedded:DIR, redis://[user:password@]host[:port][/db], rediss://..., "
    "redis+unix:///path?db=n, redis+sentinel://host,host.../name[/db], or redis+cluster://host,host...";

constexpr std::uint16_t kServerPort = 6379, kSentinelPort = 26379;

std::unexpected<Error> bad(std::string_view what) {
  return fail(Origin::config, fmt::format("store URL: {}; {}", what, kForms));
}

// nullopt: a percent sign without two hexadecimal digits, or a byte that no name, path or password may hold
// (NUL).
std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size() || hex_value(text[i + 1]) < 0 || hex_value(text[i + 2]) < 0)
        return std::nullopt;
      c = static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
      i += 2;
    }
    if (c == '\0') return std::nullopt;
    out.push_back(c);
  }
  return out;
}

Result<std::uint32_t> parse_database(std::string_view text) {
  auto number = parse_decimal(text);
  if (!number || *number > 65'535) return bad("the database must be a number from 0 to 65535");
  return static_cast<std::uint32_t>(*number);
}

// "user:password@" in front of a host or path: removed from `rest`.
Result<void> take_credentials(std::string_view& rest, StoreUrl& url) {
  // The last @ before the path: a password with an unescaped @ is still read as its writer meant it.
  std::size_t at = rest.substr(0, rest.find('/')).rfind('@');
  if (at == std::string_view::npos) return {};
  std::string_view credentials = rest.substr(0, at);
  rest.remove_prefix(at + 1);
  std::size_t colon = credentials.find(':');
  auto user = percent_decode(credentials.substr(0, colon));
  auto password = colon == std::string_view::npos ? std::optional<std::string>("")
                                                  : percent_decode(credentials.substr(colon + 1));
  if (!user || !password) return bad("% in user or password must be followed by two hexadecimal digits");
  if (!user->empty() && password->empty())
    return bad("a user needs a password: user:password@host, or :password@host");
  url.user = std::move(*user);
  url.password = std::move(*password);
  return {};
}

Result<Endpoint> parse_endpoint(std::string_view authority, std::uint16_t usual_port) {
  Endpoint endpoint{.host = {}, .port = usual_port};
  std::string_view host = authority, port;
  bool has_port = false;
  if (authority.starts_with('[')) {
    std::size_t end = authority.find(']');
    if (end == std::string_view::npos) return bad("an IPv6 address needs its closing bracket");
    host = authority.substr(1, end - 1);
    std::string_view after = authority.substr(end + 1);
    if (!after.empty() && after.front() != ':') return bad("after an IPv6 address only :port may follow");
    has_port = !after.empty();
    if (has_port) port = after.substr(1);
    for (char c : host)
      if (hex_value(c) < 0 && c != ':' && c != '.' && c != '%')
        return bad("only an IPv6 address may stand in brackets");
  } else if (std::size_t colon = authority.find(':'); colon != std::string_view::npos) {
    if (authority.find(':', colon + 1) != std::string_view::npos)
      return bad("an IPv6 address must stand in brackets");
    host = authority.substr(0, colon);
    port = authority.substr(colon + 1);
    has_port = true;
  }
  auto name = percent_decode(host);
  if (!name || name->empty()) return bad("the host is missing");
  for (char c : *name)
    if (static_cast<unsigned char>(c) <= ' ' || c == 0x7F || c == ',' || c == '@')
      return bad("the host is not a name");
  endpoint.host = std::move(*name);
  if (has_port) {
    auto number = parse_decimal(port);
    if (!number || *number == 0 || *number > 65'535) return bad("the port must be a number from 1 to 65535");
    endpoint.port = static_cast<std::uint16_t>(*number);
  }
  return endpoint;
}

Result<std::vector<Endpoint>> parse_endpoints(std::string_view authority, std::uint16_t usual_port) {
  std::vector<Endpoint> endpoints;
  for (;;) {
    std::size_t comma = std::min(authority.find(','), authority.size());
    auto endpoint = parse_endpoint(authority.substr(0, comma), usual_port);
    if (!endpoint) return std::unexpected(endpoint.error());
    endpoints.push_back(std::move(*endpoint));
    if (comma == authority.size()) return endpoints;
    authority.remove_prefix(comma + 1);
  }
}

Result<StoreUrl> parse_network(std::string_view rest, StoreUrl url) {
  if (rest.find('?') != std::string_view::npos || rest.find('#') != std::string_view::npos)
    return bad("a redis:// URL has no query; the database is the path, as in redis://host:6379/2");
  if (auto taken = take_credentials(rest, url); !taken) return std::unexpected(taken.error());
  std::size_t slash = rest.find('/');
  auto endpoint = parse_endpoint(rest.substr(0, slash), kServerPort);
  if (!endpoint) return std::unexpected(endpoint.error());
  url.host = std::move(endpoint->host);
  url.port = endpoint->port;
  if (slash == std::string_view::npos || slash + 1 == rest.size()) return url;
  auto database = parse_database(rest.substr(slash + 1));
  if (!database) return std::unexpected(database.error());
  url.database = *database;
  return url;
}

// Of redis+sentinel:// and redis+cluster://.
Result<StoreUrl> parse_many(std::string_view rest, StoreUrl url) {
  bool sentinel = url.kind == StoreUrl::Kind::sentinel;
  if (rest.find('?') != std::string_view::npos || rest.find('#') != std::string_view::npos)
    return bad("such a URL has no query; TLS is rediss+sentinel:// and rediss+cluster://");
  if (auto taken = take_credentials(rest, url); !taken) return std::unexpected(taken.error());
  std::size_t slash = std::min(rest.find('/'), rest.size());
  auto nodes = parse_endpoints(rest.substr(0, slash), sentinel ? kSentinelPort : kServerPort);
  if (!nodes) return std::unexpected(nodes.error());
  url.nodes = std::move(*nodes);
  std::string_view path = rest.substr(slash);
  if (!path.empty()) path.remove_prefix(1);
  if (!sentinel) {
    if (!path.empty()) return bad("redis+cluster:// has no path: a cluster has one database, 0");
    return url;
  }
  std::size_t end = std::min(path.find('/'), path.size());
  auto name = percent_decode(path.substr(0, end));
  if (!name || name->empty())
    return bad("redis+sentinel:// needs the name of the primary: redis+sentinel://host,host/mymaster");
  url.primary_name = std::move(*name);
  if (end + 1 >= path.size()) return url;
  auto database = parse_database(path.substr(end + 1));
  if (!database) return std::unexpected(database.error());
  url.database = *database;
  return url;
}

Result<StoreUrl> parse_unix(std::string_view rest, StoreUrl url) {
  if (auto taken = take_credentials(rest, url); !taken) return std::unexpected(taken.error());
  std::string_view query;
  if (std::size_t mark = rest.find('?'); mark != std::string_view::npos) {
    query = rest.substr(mark + 1);
    rest = rest.substr(0, mark);
  }
  auto path = percent_decode(rest);
  if (!path || path->size() < 2 || path->front() != '/')
    return bad("redis+unix:// needs an absolute path with three slashes");
  url.path = std::move(*path);
  if (query.empty()) return url;
  if (!query.starts_with("db=")) return bad("redis+unix:// knows only the parameter db");
  auto database = parse_database(query.substr(3));
  if (!database) return std::unexpected(database.error());
  url.database = *database;
  return url;
}

}  // namespace

std::string Endpoint::text() const {
  bool v6 = host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

StoreUrl StoreUrl::server(const Endpoint& endpoint) const {
  StoreUrl one;
  one.kind = secure ? Kind::tls : Kind::tcp;
  one.host = endpoint.host;
  one.port = endpoint.port;
  one.database = database;
  one.user = user;
  one.password = password;
  return one;
}

std::string StoreUrl::describe() const {
  std::string with_database = database == 0 ? "" : fmt::format("/{}", database);
  switch (kind) {
    case Kind::embedded:
      return "embedded:" + directory;
    case Kind::unix_socket:
      return fmt::format("redis+unix://{}{}", path, database == 0 ? "" : fmt::format("?db={}", database));
    case Kind::sentinel:
    case Kind::cluster: {
      std::string list;
      for (const Endpoint& node : nodes) list += (list.empty() ? "" : ",") + node.text();
      std::string name = kind == Kind::cluster ? "" : "/" + primary_name + with_database;
      return fmt::format("{}+{}://{}{}", secure ? "rediss" : "redis",
                         kind == Kind::cluster ? "cluster" : "sentinel", list, name);
    }
    case Kind::tcp:
    case Kind::tls:
      break;
  }
  return fmt::format("{}://{}{}", kind == Kind::tls ? "rediss" : "redis",
                     Endpoint{.host = host, .port = port}.text(), with_database);
}

Result<StoreUrl> parse_store_url(std::string_view text) {
  for (char c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7F) return bad("control characters are not allowed");
  auto rest_after = [&](std::string_view scheme) -> std::optional<std::string_view> {
    if (!starts_with_ignore_case(text, scheme)) return std::nullopt;
    return text.substr(scheme.size());
  };
  StoreUrl url;
  if (auto rest = rest_after("embedded:")) {
    if (rest->starts_with("//")) rest->remove_prefix(2);
    auto directory = percent_decode(*rest);
    if (!directory || directory->empty()) return bad("embedded: needs a directory, as in embedded:redis");
    url.kind = StoreUrl::Kind::embedded;
    url.directory = std::move(*directory);
    return url;
  }
  if (auto rest = rest_after("redis://")) return parse_network(*rest, url);
  if (auto rest = rest_after("rediss://")) {
    url.kind = StoreUrl::Kind::tls;
    return parse_network(*rest, url);
  }
  if (auto rest = rest_after("redis+unix://")) {
    url.kind = StoreUrl::Kind::unix_socket;
    return parse_unix(*rest, url);
  }
  for (bool secure : {false, true}) {
    std::string prefix = secure ? "rediss+" : "redis+";
    url.secure = secure;
    url.kind = StoreUrl::Kind::sentinel;
    if (auto rest = rest_after(prefix + "sentinel://")) return parse_many(*rest, url);
    url.kind = StoreUrl::Kind::cluster;
    if (auto rest = rest_after(prefix + "cluster://")) return parse_many(*rest, url);
  }
  return bad("unknown scheme");
}

}  // namespace tollgate::redis
