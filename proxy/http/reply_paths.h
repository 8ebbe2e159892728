// Addresses in the head of a reply, as the client must see them when the upstream was asked for another path than the
// client sent (config: routes[].rewrite.map_replies; what `proxy_redirect default` and `proxy_cookie_path` of nginx do).
//
//   client_prefix /portal, upstream_prefix /crm, host portal.example, servers http://crm:80
//     Location: /crm/login?x=1                      -> /portal/login?x=1
//     Location: https://portal.example/crm/login    -> https://portal.example/portal/login
//     Location: http://crm/crm/login                -> /portal/login        (the client does not know that name)
//     Location: https://idp.example/crm/login       as it is: somebody else's
//     Location: /other, login, ../login, ?x=1       as it is: not below the prefix, or relative
//     Set-Cookie: a=b; Path=/crm/x; HttpOnly        -> a=b; Path=/portal/x; HttpOnly
//     Set-Cookie: a=b; Path=/                       as it is: it comes back with every path anyway
//   Prefixes match whole segments and without case. Bodies are not touched.
//
// Never makes an address of another host: what would begin with two slashes, or a slash and a backslash, is left alone.
// Pure; any thread.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace tollgate::http {

// "/crm/" -> "/crm", "/" -> ""
inline std::string_view without_end_slash(std::string_view prefix) {
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  return prefix;
}

struct ReplyPaths {
  std::string_view upstream_prefix, client_prefix;  // without_end_slash()
  std::string_view host, public_host;               // as the upstream was told: Host and X-Forwarded-Host
  std::span<const std::string> servers;             // of the upstream, "http://host:port"; others are ignored
};

// The new value of a field; nullopt: it stays as it is.
std::optional<std::string> mapped_field(std::string_view name, std::string_view value,
                                        const ReplyPaths& paths);

}  // namespace tollgate::http
