#include "proxy/flow/credentials.h"

#include <optional>

#include "metering/base/ascii.h"
#include "proxy/http/forward.h"

namespace tollgate::flow {
namespace {

using identity::TokenRefusal;
using Found =
    std::expected<std::optional<std::string_view>, TokenRefusal>;  // nullopt: this source is not there

std::unexpected<TokenRefusal> invalid(std::string detail) {
  return std::unexpected(TokenRefusal{.reason = Reason::token_invalid, .detail = std::move(detail)});
}

// RFC 9110 section 5.3: a field that is no list must not occur twice; which one counts is anybody's guess.
Found in_header(const http::RequestHead& head, std::string_view name, std::string_view scheme = "Bearer") {
  std::optional<std::string_view> value;
  for (const http::Field& field : head.fields) {
    if (!equals_ignore_case(field.name, name)) continue;
    if (value) return invalid("The credentials were sent more than once.");
    value = field.value;
  }
  if (!value) return std::nullopt;
  const std::size_t space = value->find(' ');
  const bool ours =
      space != std::string_view::npos && (equals_ignore_case(value->substr(0, space), "Bearer") ||
                                          equals_ignore_case(value->substr(0, space), scheme));
  if (ours) value = trim(value->substr(space + 1));
  // Another scheme (Basic, Negotiate, ...), or Authorization without any.
  else if (equals_ignore_case(name, "Authorization")) {
    if (equals_ignore_case(*value, "Bearer") || equals_ignore_case(*value, scheme))
      return invalid("The Authorization field holds no token.");
    return std::nullopt;
  }
  if (value->empty()) return invalid("The credentials are empty.");
  if (contains_any(*value, " \t,")) return invalid("The credentials are not one token.");
  return value;
}

// RFC 6265 section 4.2.1: name=value pairs separated by semicolons.
template <class Take>
void each_cookie(const http::RequestHead& head, Take&& take) {
  for (const http::Field& field : head.fields) {
    if (!equals_ignore_case(field.name, "Cookie")) continue;
    std::string_view rest = field.value;
    while (!rest.empty()) {
      std::string_view pair = rest.substr(0, rest.find(';'));
      rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
      pair = trim(pair);
      const std::size_t equals = pair.find('=');
      if (equals == std::string_view::npos) continue;
      std::string_view found = trim(pair.substr(equals + 1));
      if (found.size() >= 2 && found.front() == '"' && found.back() == '"')
        found = found.substr(1, found.size() - 2);
      take(trim(pair.substr(0, equals)), found);
    }
  }
}

// Two cookies of one name with different values leave open which one the CRM would believe.
template <class Same>
Found in_cookie(const http::RequestHead& head, std::string_view wanted, Same&& same) {
  std::optional<std::string_view> value;
  bool twice = false;
  each_cookie(head, [&](std::string_view name, std::string_view found) {
    if (!same(name, wanted)) return;
    twice = twice || (value && *value != found);
    value = found;
  });
  if (twice) return invalid("The token cookie was sent more than once.");
  if (value && value->empty()) return std::nullopt;
  return value;
}

// How Zoho's clients send what others call Bearer.
constexpr std::string_view kZohoScheme = "Zoho-oauthtoken";

Found look(const config::Identity& settings, const config::Identity::Source& source,
           const http::RequestHead& head) {
  const std::string_view scheme = settings.current_user.lookup.url.empty() ? "Bearer" : kZohoScheme;
  return source.cookie.empty() ? in_header(head, source.header, scheme)
                               : in_cookie(head, source.cookie, std::equal_to<std::string_view>());
}

}  // namespace

std::expected<std::string_view, TokenRefusal> find_token(const config::Identity& settings,
                                                         const http::RequestHead& head) {
  static const std::vector<config::Identity::Source> kDefault = {{.header = "Authorization", .cookie = ""}};
  for (const auto& source : settings.sources.empty() ? kDefault : settings.sources) {
    Found found = look(settings, source, head);
    if (!found) return std::unexpected(found.error());
    if (*found) return **found;
  }
  std::string detail = "Send an access token: Authorization: Bearer <token>.";
  if (!settings.api_keys.file.empty()) detail += " Or an API key: " + settings.api_keys.header + ": <key>.";
  return std::unexpected(TokenRefusal{.reason = Reason::token_missing, .detail = std::move(detail)});
}

Found find_api_key(const config::ApiKeys& settings, const http::RequestHead& head) {
  return in_header(head, settings.header);
}

std::expected<std::optional<SessionCookie>, TokenRefusal> find_session(const config::Sessions& settings,
                                                                       const http::RequestHead& head) {
  for (const std::string& name : settings.cookies) {
    Found found = in_cookie(head, name, [](auto a, auto b) { return equals_ignore_case(a, b); });
    if (!found) return std::unexpected(found.error());
    if (*found) return SessionCookie{name, **found};
  }
  return std::nullopt;
}

void list_session_cookies(const config::Sessions& settings, const http::RequestHead& head,
                          std::vector<std::string_view>& names) {
  each_cookie(head, [&](std::string_view name, std::string_view) {
    for (const std::string& known : settings.cookies)
      if (equals_ignore_case(name, known)) names.push_back(name);
  });
}

bool strips_token(const config::Identity& settings, const http::RequestHead& head) {
  if (!head.connection_names_fields) return false;
  std::vector<std::string_view> headers;
  for (const auto& source : settings.sources)
    if (!source.header.empty()) headers.push_back(source.header);
  if (!settings.api_keys.file.empty()) headers.push_back(settings.api_keys.header);
  return http::connection_names(head, headers);
}

std::vector<const config::Identity::Source*> other_tokens(const config::Identity& settings,
                                                          const http::RequestHead& head) {
  std::vector<const config::Identity::Source*> others;
  std::optional<std::string_view> counted;
  for (const auto& source : settings.sources) {
    const Found found = look(settings, source, head);
    if (found && !*found) continue;
    if (!counted && found)
      counted = **found;
    else if (!found || **found != *counted)
      others.push_back(&source);
  }
  return others;
}

}  // namespace tollgate::flow
