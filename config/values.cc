#include "config/values.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

#include "metering/base/ascii.h"

namespace tollgate::config {
namespace {

using Failure = std::unexpected<std::string>;

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr std::array<Unit, 5> kDurationUnits{
    {{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}}};
constexpr std::array<Unit, 4> kSizeUnits{
    {{"GiB", 1ULL << 30}, {"MiB", 1ULL << 20}, {"KiB", 1ULL << 10}, {"", 1}}};
// No duration of a configuration is longer than ten years; beyond it sums could overflow.
constexpr std::uint64_t kDurationMax = 3'660ULL * 86'400'000;

std::size_t digits_at(std::string_view text, std::size_t from) {
  std::size_t n = 0;
  while (from + n < text.size() && is_digit(text[from + n])) ++n;
  return n;
}

bool is_token_char(char c) {
  return is_digit(c) || is_alpha(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_ipv4(std::string_view text) {
  in_addr address;
  return inet_pton(AF_INET, std::string(text).c_str(), &address) == 1;
}
bool is_ipv6(std::string_view text) {
  in6_addr address;
  return inet_pton(AF_INET6, std::string(text).c_str(), &address) == 1;
}

Parsed<std::string> check_port(std::string_view text) {
  auto number = parse_number(text);
  if (!number || *number > 65'535) return Failure("has no port number between 0 and 65535 after the colon");
  return std::string(text);
}

// Letters, digits, "-", "_" and single dots; or an IP address.
bool is_host(std::string_view host) {
  if (host.empty() || host.size() > 253) return false;
  if (host.front() == '[') return host.back() == ']' && is_ipv6(host.substr(1, host.size() - 2));
  char before = '.';
  for (char c : host) {
    if (!is_alpha(c) && !is_digit(c) && c != '-' && c != '_' && c != '.') return false;
    if (c == '.' && before == '.') return false;
    before = c;
  }
  return host.find_first_not_of("0123456789.") != std::string_view::npos || is_ipv4(host);
}

struct HostPort {
  std::string_view host, port;
};
// "host", "host:port", "[v6]:port". The port is empty when there is none.
HostPort split_host_port(std::string_view text) {
  std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || (text.starts_with('[') && text.ends_with(']'))) return {text, ""};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

// "unix:/path"; the system has room for 107 bytes of path.
Parsed<std::string> check_unix_address(std::string_view text) {
  const std::string_view path = text.substr(5);
  if (!path.starts_with('/') || path.ends_with('/')) return Failure("needs an absolute path after unix:");
  if (path.size() > 107) return Failure("has a path longer than 107 bytes");
  if (path.find('\0') != std::string_view::npos) return Failure("holds a zero byte");
  return std::string(text);
}

Parsed<std::string> check_listen_address(std::string_view text) {
  if (text.empty()) return std::string();
  if (text.starts_with("unix:")) return check_unix_address(text);
  if (text.front() == ':')
    return Failure(fmt::format("has no IP address: write 0.0.0.0{} or 127.0.0.1{}", text, text));
  auto [host, port] = split_host_port(text);
  if (port.empty() || (is_ipv6(text)))
    return Failure("is no address and port such as 127.0.0.1:8080 or [::1]:8080");
  if (auto checked = check_port(port); !checked) return checked;
  if (equals_ignore_case(host, "localhost")) return fmt::format("127.0.0.1:{}", port);
  if (host == "*") return Failure(fmt::format("has no IP address: write 0.0.0.0:{} or [::]:{}", port, port));
  bool v6 = host.size() > 2 && host.front() == '[' && host.back() == ']' &&
            is_ipv6(host.substr(1, host.size() - 2));
  if (!v6 && !is_ipv4(host)) return Failure("does not begin with an IP address such as 127.0.0.1 or [::1]");
  return std::string(text);
}

Parsed<std::string> check_server_url(std::string_view text) {
  if (text.starts_with("unix:")) return check_unix_address(text);
  std::string_view scheme;
  if (starts_with_ignore_case(text, "http://")) scheme = "http";
  if (starts_with_ignore_case(text, "https://")) scheme = "https";
  if (scheme.empty()) return Failure("must begin with http:// or https://");
  std::string_view rest = text.substr(scheme.size() + 3);
  if (rest.ends_with('/')) rest.remove_suffix(1);
  if (rest.find('@') != std::string_view::npos) return Failure("must not hold a user or password");
  if (rest.find_first_of("/?#") != std::string_view::npos)
    return Failure("must end after host and port: the path of each call is passed on as it is");
  auto [host, port] = split_host_port(rest);
  if (!is_host(host)) return Failure("names no host");
  if (rest.ends_with(':')) return Failure("has no port number between 1 and 65535 after the colon");
  if (port.empty()) port = scheme == "http" ? "80" : "443";
  if (auto checked = check_port(port); !checked || port == "0")
    return Failure("has no port number between 1 and 65535 after the colon");
  return fmt::format("{}://{}:{}", scheme, to_lower(host), port);
}

Parsed<std::string> check_web_url(std::string_view text) {
  if (text.empty()) return std::string();
  std::string_view rest;
  if (starts_with_ignore_case(text, "http://")) rest = text.substr(7);
  if (starts_with_ignore_case(text, "https://")) rest = text.substr(8);
  if (rest.empty()) return Failure("must begin with https:// or http://");
  for (char c : text)
    if (c <= ' ' || c == '"' || c == '<' || c == '>' || c == '\\')
      return Failure("holds a character that no URL has");
  std::string_view authority = rest.substr(0, rest.find_first_of("/?#"));
  if (authority.find('@') != std::string_view::npos) return Failure("must not hold a user or password");
  auto [host, port] = split_host_port(authority);
  if (!is_host(host)) return Failure("names no host");
  if (authority.ends_with(':') || (!port.empty() && !check_port(port)))
    return Failure("has no port number between 1 and 65535 after the colon");
  return std::string(text);
}

// Sentinels, or some nodes of a cluster: "host[:port],host[:port]...", and for sentinels "/name[/db]".
Parsed<std::string> check_servers_url(std::string_view scheme, std::string_view text, bool sentinel) {
  std::string_view rest = text.substr(scheme.size());
  if (std::size_t at = rest.rfind('@'); at != std::string_view::npos) rest = rest.substr(at + 1);
  if (rest.find('?') != std::string_view::npos)
    return Failure("has options that are not known; for TLS the scheme begins with rediss+");
  std::size_t slash = rest.find('/');
  std::string_view servers = rest.substr(0, slash);
  for (bool more = true; more;) {
    std::string_view server = servers.substr(0, servers.find(','));
    more = server.size() < servers.size();
    servers.remove_prefix(server.size() + (more ? 1 : 0));
    auto [host, port] = split_host_port(server);
    if (!is_host(host)) return Failure("names no host in one of its places");
    if (server.ends_with(':') || (!port.empty() && (!check_port(port) || port == "0")))
      return Failure("has no port number between 1 and 65535 after a colon");
  }
  std::string_view tail = slash == std::string_view::npos ? "" : rest.substr(slash + 1);
  if (!sentinel) {
    if (tail.empty()) return std::string(text);
    return Failure("must end after the last server: a cluster has no database number");
  }
  std::size_t second = tail.find('/');
  if (tail.substr(0, second).empty())
    return Failure("does not name the primary: write redis+sentinel://host:26379/mymaster");
  if (second != std::string_view::npos && second + 1 < tail.size() && !parse_number(tail.substr(second + 1)))
    return Failure("does not end in a database number such as /0");
  return std::string(text);
}

Parsed<std::string> check_redis_url(std::string_view scheme, std::string_view text) {
  std::string_view rest = text.substr(scheme.size());
  if (std::size_t at = rest.rfind('@'); at != std::string_view::npos) rest = rest.substr(at + 1);
  std::size_t slash = rest.find_first_of("/?");
  auto [host, port] = split_host_port(rest.substr(0, slash));
  if (!is_host(host)) return Failure("names no host");
  if (rest.substr(0, slash).ends_with(':') || (!port.empty() && (!check_port(port) || port == "0")))
    return Failure("has no port number between 1 and 65535 after the colon");
  std::string_view database = slash == std::string_view::npos ? "" : rest.substr(slash + 1);
  if (slash != std::string_view::npos && rest[slash] == '?')
    return Failure("has options that are not known: write /0 for the database number");
  if (!database.empty() && !parse_number(database))
    return Failure("does not end in a database number such as /0");
  return std::string(text);
}

Parsed<std::string> check_store_url(std::string_view text) {
  if (text.starts_with("embedded:"))
    return text.size() > 9 ? Parsed<std::string>(text) : Failure("names no folder after embedded:");
  for (std::string_view scheme : {"redis://", "rediss://"})
    if (text.starts_with(scheme)) return check_redis_url(scheme, text);
  if (text.starts_with("redis+unix://")) {
    std::string_view path = text.substr(13, text.find('?') - 13);
    if (std::size_t at = path.find('@'); at != std::string_view::npos) path = path.substr(at + 1);
    if (!path.starts_with('/'))
      return Failure("names no absolute path: write redis+unix:///run/redis.sock?db=0");
    if (std::size_t query = text.find('?'); query != std::string_view::npos) {
      std::string_view option = text.substr(query + 1);
      if (!option.starts_with("db=") || !parse_number(option.substr(3)))
        return Failure("knows one option only: ?db=0");
    }
    return std::string(text);
  }
  for (std::string_view scheme : {"redis+sentinel://", "rediss+sentinel://"})
    if (text.starts_with(scheme)) return check_servers_url(scheme, text, true);
  for (std::string_view scheme : {"redis+cluster://", "rediss+cluster://"})
    if (text.starts_with(scheme)) return check_servers_url(scheme, text, false);
  return Failure(
      "must begin with embedded:, redis://, rediss://, redis+unix://, redis+sentinel:// or redis+cluster://");
}

// The address with everything beyond the first `bits` cleared, or "" when nothing was to be cleared.
std::string network_base(std::string_view address, int family, std::uint64_t bits) {
  std::array<unsigned char, 16> bytes{};
  inet_pton(family, std::string(address).c_str(), bytes.data());
  bool changed = false;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::uint64_t keep = bits <= i * 8 ? 0 : std::min<std::uint64_t>(8, bits - i * 8);
    auto kept = static_cast<unsigned char>(bytes[i] & (0xFF00U >> keep));
    changed = changed || kept != bytes[i];
    bytes[i] = kept;
  }
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (!changed || inet_ntop(family, bytes.data(), text.data(), text.size()) == nullptr) return "";
  return text.data();
}

Parsed<std::string> check_network(std::string_view text) {
  std::size_t slash = text.find('/');
  std::string_view address = text.substr(0, slash);
  bool v4 = is_ipv4(address), v6 = is_ipv6(address);
  if (!v4 && !v6) return Failure("is no network such as 10.0.0.0/8 or fd00::/8");
  if (slash == std::string_view::npos) return std::string(text);
  auto bits = parse_number(text.substr(slash + 1));
  if (!bits || *bits > (v4 ? 32U : 128U))
    return Failure(fmt::format("has no prefix length between 0 and {} after the slash", v4 ? 32 : 128));
  std::string base = network_base(address, v4 ? AF_INET : AF_INET6, *bits);
  if (!base.empty()) return Failure(fmt::format("has bits beyond its prefix: write {}/{}", base, *bits));
  return std::string(text);
}

Parsed<std::string> check_identifier(std::string_view text) {
  if (text.size() > 64) return Failure("is longer than 64 letters");
  for (char c : text)
    if (!(c >= 'a' && c <= 'z') && !is_digit(c) && c != '_' && c != '-')
      return Failure("may hold a-z, 0-9, _ and - only");
  return std::string(text);
}

Parsed<std::string> check_name(std::string_view text) {
  bool good = !text.empty() && text.size() <= 64;
  for (char c : text) good = good && (is_alpha(c) || is_digit(c) || c == '_' || c == '-' || c == '.');
  if (!good) return Failure("is no name: letters, digits, _, - and . only, at most 64");
  return std::string(text);
}

Parsed<std::string> check_host_name(std::string_view text) {
  if (text.empty()) return std::string();
  if (text.find("://") != std::string_view::npos) return Failure("is a URL: write the host alone");
  if (is_host(text)) return to_lower(text);
  auto [host, port] = split_host_port(text);
  if (is_host(host) && !port.empty()) return Failure(fmt::format("has a port: write {}", host));
  return Failure("is no host name");
}

Parsed<std::string> check_path_prefix(std::string_view text) {
  if (!text.starts_with('/')) return Failure("must begin with /");
  for (char c : text)
    if (c <= ' ' || c == '?' || c == '#' || c == '%' || c == '\\' || c == 0x7F)
      return Failure("is matched on the decoded path: no spaces, %, ?, # or \\");
  if ((std::string(text) + "/").find("/../") != std::string::npos ||
      (std::string(text) + "/").find("/./") != std::string::npos)
    return Failure("holds a dot segment: it would never match");
  return std::string(text);
}

// What goes into a request as it stands and has one reading there (metering/catalogue/url.h).
Parsed<std::string> check_sent_prefix(std::string_view text) {
  if (!text.starts_with('/')) return Failure("must begin with /");
  for (char c : text)
    if (!is_alpha(c) && !is_digit(c) && std::string_view("/-_.~$,=:@").find(c) == std::string_view::npos)
      return Failure("is written into requests as it stands: letters, digits and /-_.~$,=:@ only");
  const std::string closed = std::string(text) + "/";
  if (closed.find("./") != std::string::npos) return Failure("has a segment that ends in a dot");
  if (text.find("//") != std::string_view::npos) return Failure("has an empty segment");
  return std::string(text);
}

Parsed<std::string> check_target(std::string_view text) {
  if (!text.empty() && !text.starts_with('/')) return Failure("must begin with /");
  for (char c : text)
    if (c <= ' ' || c == '#' || c >= 0x7F)
      return Failure("holds what no request target may hold: encode it as %XX");
  return std::string(text);
}

Parsed<std::string> check_statuses(std::string_view text) {
  const std::string_view from = text.substr(0, text.find('-'));
  const std::string_view to = from.size() == text.size() ? from : text.substr(from.size() + 1);
  for (std::string_view status : {from, to})
    if (status.size() != 3 || digits_at(status, 0) != 3 || status < "100" || status > "599")
      return Failure("is no status or range of statuses such as 200 or 200-399");
  if (to < from) return Failure(fmt::format("is empty: write {}-{}", to, from));
  return std::string(text);
}

Parsed<std::string> check_hash_key(std::string_view text) {
  if (text == "user" || text == "ip") return std::string(text);
  constexpr std::string_view kHeader = "header:";
  if (!text.starts_with(kHeader) || text.size() == kHeader.size())
    return Failure("is none of user, ip, header:NAME");
  for (char c : text.substr(kHeader.size()))
    if (!is_token_char(c)) return Failure("names no field: letters, digits and - only");
  return std::string(text);
}

Parsed<std::string> check_uid(std::string_view text) {
  std::size_t digits = 0;
  for (char c : text) {
    if (hex_value(c) >= 0)
      ++digits;
    else if (c != '-')
      return Failure("is no UId of 32 hexadecimal digits");
  }
  if (digits != 32) return Failure("is no UId of 32 hexadecimal digits");
  return std::string(text);
}

Parsed<std::string> check_token(std::string_view text) {
  for (char c : text)
    if (!is_token_char(c)) return Failure("is no field name: letters, digits and - only");
  return std::string(text);
}

Parsed<std::string> check_object_name(std::string_view text) {
  bool good = !text.empty() && text.size() <= 128 && !is_digit(text.front());
  for (char c : text) good = good && (is_alpha(c) || is_digit(c) || c == '_');
  if (!good) return Failure("is no entity name: letters, digits and _ only");
  return std::string(text);
}

Parsed<std::string> check_relation(std::string_view text) {
  const std::size_t dot = text.find('.');
  const std::string_view object = text.substr(0, dot);
  if (dot == text.npos || (object != "*" && !check_object_name(object)) ||
      !check_object_name(text.substr(dot + 1)))
    return Failure("is no relation: write Object.Column or *.Column");
  return std::string(text);
}

Parsed<std::string> check_column_path(std::string_view text) {
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t slash = rest.find('/');
    if (!check_object_name(rest.substr(0, slash)) || slash + 1 == rest.size())
      return Failure("is no column: names of letters, digits and _, with slashes between them");
    rest.remove_prefix(slash == rest.npos ? rest.size() : slash + 1);
  }
  return std::string(text);
}

}  // namespace

bool has_status(const std::vector<std::string>& ranges, int status) {
  const std::string text = std::to_string(status);
  return std::any_of(ranges.begin(), ranges.end(), [&](const std::string& range) {
    return text >= range.substr(0, 3) && text <= range.substr(range.size() - 3);
  });
}

Parsed<std::uint64_t> parse_number(std::string_view text) {
  if (text.starts_with('-') && digits_at(text, 1) == text.size() - 1 && text.size() > 1)
    return Failure("must not be negative");
  if (text.empty() || digits_at(text, 0) != text.size())
    return Failure("is no whole number in decimal digits");
  if (text.size() > 1 && text.front() == '0')
    return Failure("has a leading zero: write the number without it");
  auto number = parse_decimal(text);
  if (!number) return Failure("is too large");
  return *number;
}

Parsed<Milliseconds> parse_duration(std::string_view text) {
  if (text == "0") return Milliseconds(0);
  if (!text.empty() && digits_at(text, 0) == text.size())
    return Failure(fmt::format("needs a unit: write {}ms or {}s", text, text));
  std::uint64_t total = 0;
  std::size_t at = 0, next_unit = 0;
  while (at < text.size()) {
    std::size_t digits = digits_at(text, at);
    auto number = parse_number(text.substr(at, digits));
    if (digits == 0) return Failure("is no duration such as 250ms, 10s, 5m, 24h or 31d");
    if (!number) return Failure(number.error());
    at += digits;
    std::size_t letters = 0;
    while (at + letters < text.size() && !is_digit(text[at + letters])) ++letters;
    std::string_view name = text.substr(at, letters);
    std::size_t unit = next_unit;
    while (unit < kDurationUnits.size() && kDurationUnits[unit].name != name) ++unit;
    if (unit == kDurationUnits.size())
      return Failure(name.find_first_of(".,") != std::string_view::npos
                         ? "has a fraction: write whole numbers, 1500ms instead of 1.5s"
                         : "has a unit other than ms, s, m, h, d, or units in the wrong order");
    if (*number > kDurationMax / kDurationUnits[unit].factor) return Failure("is too long");
    total += *number * kDurationUnits[unit].factor;
    next_unit = unit + 1;
    at += letters;
  }
  if (text.empty()) return Failure("is no duration such as 250ms, 10s, 5m, 24h or 31d");
  return Milliseconds(total);
}

Parsed<std::uint64_t> parse_size(std::string_view text) {
  std::size_t digits = digits_at(text, 0);
  auto number = parse_number(text.substr(0, digits));
  if (digits == 0) return Failure("is no size such as 512, 64KiB, 8MiB or 1GiB");
  if (!number) return number;
  std::string_view name = text.substr(digits);
  for (const Unit& unit : kSizeUnits) {
    if (unit.name != name) continue;
    if (*number > std::numeric_limits<std::uint64_t>::max() / unit.factor) return Failure("is too large");
    return *number * unit.factor;
  }
  if (!name.empty() && std::string_view("kKmMgG").find(name.front()) != std::string_view::npos)
    return Failure(fmt::format("has a unit other than KiB, MiB, GiB: write {}{}iB", text.substr(0, digits),
                               static_cast<char>(ascii_lower(name.front()) - 32)));
  return Failure("has a unit other than KiB, MiB, GiB");
}

Parsed<bool> parse_flag(std::string_view text) {
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  for (std::string_view yes : {"yes", "on", "1"})
    if (equals_ignore_case(text, yes)) return Failure("is neither true nor false: write true");
  for (std::string_view no : {"no", "off", "0"})
    if (equals_ignore_case(text, no)) return Failure("is neither true nor false: write false");
  return Failure("is neither true nor false");
}

std::string duration_text(Milliseconds duration) {
  auto count = static_cast<std::uint64_t>(duration.count());
  if (count == 0) return "0";
  for (const Unit& unit : kDurationUnits)
    if (count % unit.factor == 0) return fmt::format("{}{}", count / unit.factor, unit.name);
  return "";
}

std::string size_text(std::uint64_t bytes) {
  if (bytes == 0) return "0";
  for (const Unit& unit : kSizeUnits)
    if (bytes % unit.factor == 0) return fmt::format("{}{}", bytes / unit.factor, unit.name);
  return "";
}

Parsed<std::string> check_format(std::string_view text, Format format) {
  for (char c : text)
    if (static_cast<unsigned char>(c) < 0x20) return Failure("holds a line break or control character");
  switch (format) {
    case Format::any:
    case Format::input_file:
    case Format::output_file:
    case Format::directory:
      return std::string(text);
    case Format::listen_address:
      return check_listen_address(text);
    case Format::server_url:
      return check_server_url(text);
    case Format::web_url:
      return check_web_url(text);
    case Format::store_url:
      return check_store_url(text);
    case Format::network:
      return check_network(text);
    case Format::identifier:
      return check_identifier(text);
    case Format::name:
      return check_name(text);
    case Format::header_name:
    case Format::cookie_name:
      return check_token(text);
    case Format::host_name:
      return check_host_name(text);
    case Format::target:
      return check_target(text);
    case Format::statuses:
      return check_statuses(text);
    case Format::hash_key:
      return check_hash_key(text);
    case Format::path_prefix:
      return check_path_prefix(text);
    case Format::sent_prefix:
      return check_sent_prefix(text);
    case Format::uid:
      return check_uid(text);
    case Format::object_name:
      return check_object_name(text);
    case Format::relation:
      return check_relation(text);
    case Format::column_path:
      return check_column_path(text);
  }
  return std::string(text);
}

std::string_view password_of_url(std::string_view url) {
  std::size_t start = url.find("://");
  if (start == std::string_view::npos) return "";
  std::size_t at = url.rfind('@');
  if (at == std::string_view::npos || at < start + 3) return "";
  std::string_view userinfo = url.substr(start + 3, at - start - 3);
  std::size_t colon = userinfo.find(':');
  return colon == std::string_view::npos ? "" : userinfo.substr(colon + 1);
}

std::string redact_url(std::string_view url) {
  std::string_view password = password_of_url(url);
  if (password.empty()) return std::string(url);
  std::size_t from = static_cast<std::size_t>(password.data() - url.data());
  return fmt::format("{}***{}", url.substr(0, from), url.substr(from + password.size()));
}

}  // namespace tollgate::config
