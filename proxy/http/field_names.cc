#include "proxy/http/field_names.h"

#include <algorithm>
#include <array>

#include "metering/base/ascii.h"

namespace tollgate::http {
namespace {

constexpr char fold(char c) {
  return c == '_' ? '-' : ascii_lower(c);
}

// `known` is in lower case and holds no '_'.
constexpr bool is(std::string_view name, std::string_view known) {
  if (name.size() != known.size()) return false;
  for (std::size_t i = 0; i < name.size(); ++i)
    if (fold(name[i]) != known[i]) return false;
  return true;
}
constexpr bool begins(std::string_view name, std::string_view known) {
  return name.size() >= known.size() && is(name.substr(0, known.size()), known);
}

struct Known {
  std::string_view name;
  FieldRole role;
};

constexpr auto kKnown = std::to_array<Known>({
    {"te", FieldRole::hop},
    {"host", FieldRole::host},
    {"date", FieldRole::date},
    {"proxy", FieldRole::hop},  // becomes the variable HTTP_PROXY in CGI-like gateways
    {"cookie", FieldRole::cookie},
    {"expect", FieldRole::expect},
    {"x-host", FieldRole::forwarded_by},
    {"trailer", FieldRole::hop},
    {"upgrade", FieldRole::hop},
    {"client-ip", FieldRole::forwarded_by},
    {"forwarded", FieldRole::forwarded},
    {"x-arr-ssl", FieldRole::forwarded_by},
    {"x-real-ip", FieldRole::forwarded_by},
    {"connection", FieldRole::connection},
    {"keep-alive", FieldRole::hop},
    {"x-ssl-cert", FieldRole::forwarded_by},
    {"client-cert", FieldRole::forwarded_by},  // RFC 9440 section 2.4
    {"remote-addr", FieldRole::forwarded_by},
    {"remote-host", FieldRole::forwarded_by},
    {"remote-user", FieldRole::forwarded_by},
    {"x-client-dn", FieldRole::forwarded_by},
    {"x-client-ip", FieldRole::forwarded_by},
    {"x-forwarded", FieldRole::forwarded_by},
    {"x-request-id", FieldRole::request_id},
    {"x-client-cert", FieldRole::forwarded_by},
    {"x-rewrite-url", FieldRole::rewrite},
    {"content-length", FieldRole::framing},
    {"http2-settings", FieldRole::hop},
    {"true-client-ip", FieldRole::forwarded_by},
    {"x-original-for", FieldRole::forwarded_by},
    {"x-original-uri", FieldRole::rewrite},
    {"x-original-url", FieldRole::rewrite},
    {"x-override-url", FieldRole::rewrite},
    {"front-end-https", FieldRole::forwarded_by},
    {"x-forwarded-for", FieldRole::forwarded_for},
    {"x-original-host", FieldRole::forwarded_by},
    {"x-original-proto", FieldRole::forwarded_by},
    {"cf-connecting-ip", FieldRole::forwarded_by},
    {"fastly-client-ip", FieldRole::forwarded_by},
    {"x-azure-clientip", FieldRole::forwarded_by},
    {"x-azure-socketip", FieldRole::forwarded_by},
    {"x-arr-clientcert", FieldRole::forwarded_by},
    {"x-forwarded-host", FieldRole::forwarded_set},
    {"client-cert-chain", FieldRole::forwarded_by},
    {"transfer-encoding", FieldRole::framing},
    {"x-forwarded-proto", FieldRole::forwarded_set},
    {"x-cluster-client-ip", FieldRole::forwarded_by},
    {"x-http-host-override", FieldRole::rewrite},
    {"x-http-destinationurl", FieldRole::rewrite},
    {"x-envoy-external-address", FieldRole::forwarded_by},
});
static_assert(std::ranges::is_sorted(kKnown, {}, [](const Known& known) { return known.name.size(); }));

constexpr std::size_t kLongest = kKnown.back().name.size();

// kFirst[n]: index of the first known name of n bytes or more.
constexpr auto kFirst = [] {
  std::array<std::uint8_t, kLongest + 2> first{};
  for (std::size_t size = 0; size < first.size(); ++size) {
    std::size_t index = 0;
    while (index < kKnown.size() && kKnown[index].name.size() < size) ++index;
    first[size] = static_cast<std::uint8_t>(index);
  }
  return first;
}();

// End-to-end fields, beside those with a role of their own, that a reader of the message relies on.
constexpr auto kProtected = std::to_array<std::string_view>({
    "age",
    "allow",
    "authorization",
    "baggage",
    "bpmcsrf",
    "cache-control",
    "cookie2",
    "dataserviceversion",
    "etag",
    "expires",
    "forceusesession",
    "last-modified",
    "location",
    "maxdataserviceversion",
    "max-forwards",
    "odata-maxversion",
    "odata-version",
    "origin",
    "pragma",
    "prefer",
    "range",
    "referer",
    "retry-after",
    "set-cookie",
    "soapaction",
    "traceparent",
    "tracestate",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-external",
    "x-method-override",
    "x-requested-with",
});
constexpr auto kProtectedFamilies = std::to_array<std::string_view>({
    "accept",
    "access-control-",
    "content-",
    "if-",
    "sec-",
    "x-http-method",
});

// What proxies that log users in, or check their certificates, tell the server behind them.
constexpr auto kVouchedFamilies = std::to_array<std::string_view>({
    "x-forwarded-",
    "x-remote-",
    "x-auth-request-",
    "x-authenticated-",
    "x-ssl-client-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-ms-client-principal",
    "x-goog-authenticated-user-",
});
constexpr std::string_view kOidcClaim = "oidc-claim-";

bool is_vouched_for(std::string_view name, char initial) {
  switch (initial) {
    case 'x':
      if (name.size() < 9 || fold(name[1]) != '-') return false;
      return std::ranges::any_of(kVouchedFamilies, [third = fold(name[2]), name](std::string_view family) {
        return family[2] == third && begins(name, family);
      });
    case 's':
      return begins(name, "ssl-client-");
    case 'm':
      return begins(name, "ms-aspnetcore-");
    case 'o':
      return begins(name, kOidcClaim);
    default:
      return false;
  }
}

bool is_listed_as_protected(std::string_view name) {
  return std::ranges::any_of(kProtected, [&](std::string_view known) { return is(name, known); }) ||
         std::ranges::any_of(kProtectedFamilies,
                             [&](std::string_view family) { return begins(name, family); });
}

FieldRole known_role(std::string_view name, bool underscores) {
  const char initial = fold(name.front());
  if (name.size() <= kLongest) {
    for (std::size_t i = kFirst[name.size()]; i < kFirst[name.size() + 1]; ++i) {
      const std::string_view known = kKnown[i].name;
      if (known.front() == initial && (underscores ? is(name, known) : equals_ignore_case(name, known)))
        return kKnown[i].role;
    }
  }
  if (is_vouched_for(name, initial)) return FieldRole::forwarded_by;
  if (initial == 'p' && begins(name, "proxy-")) return FieldRole::hop;
  return FieldRole::end_to_end;
}

}  // namespace

FieldRole role_of(std::string_view name) {
  if (name.empty()) return FieldRole::end_to_end;
  const bool underscores = name.find('_') != std::string_view::npos;
  const FieldRole role = known_role(name, underscores);
  if (role != FieldRole::end_to_end || !underscores) return role;
  return is_listed_as_protected(name) ? FieldRole::rewrite : FieldRole::end_to_end;
}

bool is_vouched_spelling(std::string_view name) {
  return name.find('_') == std::string_view::npos || begins(name, kOidcClaim);
}

bool is_same_variable(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, fold, fold);
}

bool is_protected_from_connection(std::string_view name) {
  switch (role_of(name)) {
    case FieldRole::connection:
    case FieldRole::hop:
      return false;
    case FieldRole::end_to_end:
      return is_listed_as_protected(name);
    default:
      return true;
  }
}

bool is_forbidden_trailer(std::string_view name) {
  if (role_of(name) != FieldRole::end_to_end) return true;
  return is_listed_as_protected(name) && !is(name, "etag") && !is(name, "content-digest");
}

}  // namespace tollgate::http
