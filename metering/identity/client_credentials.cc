#include "metering/identity/client_credentials.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "metering/base/ascii.h"
#include "metering/base/percent.h"
#include "metering/identity/token_reply.h"

namespace tollgate::identity {
namespace {

constexpr Milliseconds kMargin{30'000};

// Others are not repeated: a server may say in them what it was sent.
constexpr std::array<std::string_view, 6> kErrors = {"invalid_request",        "invalid_client",
                                                     "invalid_grant",          "unauthorized_client",
                                                     "unsupported_grant_type", "invalid_scope"};

}  // namespace

std::string token_form(const ClientCredentials& client) {
  std::string form;
  append_form(form, "grant_type", "client_credentials");
  append_form(form, "client_id", client.client_id);
  append_form(form, "client_secret", client.client_secret);
  if (!client.scope.empty()) append_form(form, "scope", client.scope);
  return form;
}

std::expected<AccessToken, std::string> read_access_token(int status, std::string_view body) {
  simdjson::dom::parser parser;
  const auto members = json_object(parser, body);
  if (status != 200) {
    const std::string_view error = members ? members->text("error").value_or("") : "";
    const bool known = std::ranges::find(kErrors, error) != kErrors.end();
    return std::unexpected(fmt::format("answered {}{}{}", status, known ? ": " : "", known ? error : ""));
  }
  if (!members) return std::unexpected("answered 200 without a JSON object");
  const auto token = members->text("access_token"), type = members->text("token_type");
  if (!token || !is_access_token(*token)) return std::unexpected("answered 200 without an access_token");
  if (!type || !equals_ignore_case(*type, "Bearer"))
    return std::unexpected("answered 200 with a token_type other than Bearer");
  return AccessToken{.text = std::string(*token), .lifetime = token_lifetime(*members)};
}

Milliseconds use_of_token(Milliseconds lifetime) {
  if (lifetime <= Milliseconds(0)) return Milliseconds::max();
  return std::max(lifetime - kMargin, lifetime / 2);
}

}  // namespace tollgate::identity
