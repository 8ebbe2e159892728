#include "proxy/http/reply_paths.h"

#include <algorithm>

#include "metering/base/ascii.h"

namespace tollgate::http {
namespace {

// path: begins with '/', may go on with a query and a fragment.
std::optional<std::string> mapped_path(std::string_view path, const ReplyPaths& paths) {
  if (!starts_with_ignore_case(path, paths.upstream_prefix)) return std::nullopt;
  const std::string_view rest = path.substr(paths.upstream_prefix.size());
  if (!rest.empty() && std::string_view("/?#").find(rest.front()) == std::string_view::npos)
    return std::nullopt;
  std::string out(paths.client_prefix);
  if (out.empty() && !rest.starts_with('/')) out.push_back('/');
  out.append(rest);
  if (out.starts_with("//") || out.starts_with("/\\")) return std::nullopt;
  return out;
}

// "crm.example" and "crm.example:80" are one server to http://.
bool is_server(std::string_view scheme, std::string_view authority, const ReplyPaths& paths) {
  const bool https = equals_ignore_case(scheme, "https://");
  std::string_view port = "";
  if (authority.rfind(':') == authority.npos || authority.ends_with(']')) port = https ? ":443" : ":80";
  return std::ranges::any_of(paths.servers, [&](std::string_view server) {
    return server.size() == scheme.size() + authority.size() + port.size() && server.ends_with(port) &&
           starts_with_ignore_case(server, scheme) &&
           equals_ignore_case(server.substr(scheme.size(), authority.size()), authority);
  });
}

std::optional<std::string> mapped_address(std::string_view value, const ReplyPaths& paths) {
  std::string_view scheme;
  for (std::string_view known : {"http://", "https://", "//"})
    if (starts_with_ignore_case(value, known)) scheme = value.substr(0, known.size());
  if (scheme.empty()) return value.starts_with('/') ? mapped_path(value, paths) : std::nullopt;
  const std::size_t end = std::min(value.find_first_of("/?#\\", scheme.size()), value.size());
  const std::string_view authority = value.substr(scheme.size(), end - scheme.size());
  const std::string_view path = value.substr(end);
  if (authority.empty() || !path.starts_with('/')) return std::nullopt;
  const bool same_host =
      equals_ignore_case(authority, paths.host) || equals_ignore_case(authority, paths.public_host);
  if (!same_host && !is_server(scheme, authority, paths)) return std::nullopt;
  std::optional<std::string> mapped = mapped_path(path, paths);
  if (mapped && same_host) mapped->insert(0, value.substr(0, end));
  return mapped;
}

std::optional<std::string> mapped_cookie(std::string_view value, const ReplyPaths& paths) {
  std::string out;
  bool changed = false;
  for (std::size_t begin = 0; begin <= value.size();) {
    const std::size_t end = std::min(value.find(';', begin), value.size());
    const std::string_view part = value.substr(begin, end - begin);
    const std::size_t equals = part.find('=');
    std::optional<std::string> path;
    if (begin > 0 && equals != part.npos && equals_ignore_case(trim(part.substr(0, equals)), "path")) {
      const std::string_view old = trim(part.substr(equals + 1));
      if (old.starts_with('/') && old != "/") path = mapped_path(old, paths);
    }
    if (begin > 0) out.push_back(';');
    out.append(path ? part.substr(0, equals + 1) : part);
    if (path) out.append(*path);
    changed |= path.has_value();
    begin = end + 1;
  }
  return changed ? std::optional(std::move(out)) : std::nullopt;
}

}  // namespace

std::optional<std::string> mapped_field(std::string_view name, std::string_view value,
                                        const ReplyPaths& paths) {
  if (equals_ignore_case(name, "location") || equals_ignore_case(name, "content-location"))
    return mapped_address(value, paths);
  if (equals_ignore_case(name, "set-cookie")) return mapped_cookie(value, paths);
  return std::nullopt;
}

}  // namespace tollgate::http
