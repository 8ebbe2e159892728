// The stand-in tells whose a credential is: an authorization server's introspection (RFC 7662), Zoho's current user, and a
// web service of an operator's own on Creatio.
//
//   POST /introspect                 Authorization: Basic tollgate:secret, or client_id and client_secret in the form
//        token=opaque-ann            {"active":true,"sub":"ann",...,"exp": in an hour}
//        token=short-ann             the same, for two seconds;  token=text-ann: a page instead of JSON
//        any other                   {"active":false}
//   POST /connect/token              client credentials of tollgate:secret in the form: a token for the directory
//        {"token": "type" | "none" | "text", "lifetime": 2}   of StandinDirectory: what is wrong with it; its expires_in
//   GET  /crm/v8/users?type=CurrentUser   Authorization: Zoho-oauthtoken 1000.ann.x -> {"users":[{"email":"ann",...}]}
//   GET  /0/rest/UsrWhoAmI/Get       the session's cookie -> {"user":"ann","user_type":"SSP"}
//   POST /0/rest/UsrWhoAmI/Find      Authorization: Basic robot:secret, session=COOKIE -> the same, or {} for nobody's
#include <fmt/format.h>

#include <ctime>

#include "metering/base/ascii.h"
#include "metering/base/base64.h"
#include "tests/standin/crm.h"

namespace tollgate::standin {
namespace json = boost::json;
namespace {

std::string form_value(const Request& request, std::string_view name) {
  std::string_view rest = request.body;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
    if (pair.substr(0, pair.find('=')) == name && pair.size() > name.size())
      return percent_decode(std::string(pair.substr(name.size() + 1)));
  }
  return {};
}

bool has_authorization(const Request& request, const std::string& wanted) {
  const std::string* sent = request.find("Authorization");
  return sent != nullptr && *sent == wanted;
}

Reply introspection(const Request& request) {
  const bool known =
      has_authorization(request, "Basic " + base64_encode("tollgate:secret")) ||
      (form_value(request, "client_id") == "tollgate" && form_value(request, "client_secret") == "secret");
  if (!known) return json_reply(401, R"({"error":"invalid_client"})");
  const std::string token = form_value(request, "token");
  if (token.starts_with("text-")) return text_reply(200, "Please log in\n");
  const bool is_short = token.starts_with("short-");
  if (!is_short && !token.starts_with("opaque-")) return json_reply(200, R"({"active":false})");
  return json_reply(200, json::serialize(json::object{{"active", true},
                                                      {"sub", token.substr(token.find('-') + 1)},
                                                      {"aud", "crm-portal"},
                                                      {"user_type", "portal"},
                                                      {"org", "Best Ltd"},
                                                      {"exp", std::time(nullptr) + (is_short ? 2 : 3'600)}}));
}

Reply access_token(const Request& request, Sessions& sessions, const EntityStore::Record& how) {
  const std::string secret = form_value(request, "client_secret");
  if (form_value(request, "grant_type") != "client_credentials")
    return json_reply(400, R"({"error":"unsupported_grant_type"})");
  if (form_value(request, "client_id") != "tollgate" || secret != "secret")
    return json_reply(400, json::serialize(json::object{{"error", "invalid_client"},
                                                        {"error_description", "not the secret: " + secret}}));
  const std::string scope = form_value(request, "scope");
  if (!scope.empty() && scope != "ApplicationAccess_1 offline")
    return json_reply(400, json::serialize(json::object{{"error", "invalid_scope"}}));
  const auto* named = how.if_contains("token");
  const std::string wrong(named == nullptr ? "" : std::string(named->as_string()));
  if (wrong == "text") return text_reply(200, "Please log in\n");
  json::object body{{"token_type", wrong == "type" ? "mac" : "Bearer"}, {"expires_in", 3'600}};
  if (wrong != "none") body["access_token"] = sessions.open("tollgate");
  if (const auto* lifetime = how.if_contains("lifetime")) body["expires_in"] = *lifetime;
  return json_reply(200, json::serialize(body));
}

Reply current_user(const Request& request) {
  const std::string* sent = request.find("Authorization");
  constexpr std::string_view kScheme = "Zoho-oauthtoken 1000.";
  if (sent == nullptr || !sent->starts_with(kScheme))
    return json_reply(
        401, R"({"code":"INVALID_TOKEN","details":{},"message":"invalid oauth token","status":"error"})");
  const std::string rest = sent->substr(kScheme.size());
  const std::string user = rest.substr(0, rest.find('.'));
  return json_reply(
      200, json::serialize(json::object{{"users", json::array{json::object{{"id", "4150868000000225013"},
                                                                           {"email", user},
                                                                           {"full_name", user},
                                                                           {"status", "active"}}}}}));
}

std::string user_object(const std::optional<std::string>& user) {
  if (!user) return "{}";
  return json::serialize(
      json::object{{"user", *user}, {"user_type", user->starts_with("Portal/") ? "SSP" : "General"}});
}

}  // namespace

std::optional<Reply> Crm::identity(const Request& request, std::string_view path) {
  const auto is = [&](std::string_view wanted) { return equals_ignore_case(path, wanted); };
  Reply reply;
  if (is("introspect"))
    reply = introspection(request);
  else if (is("connect/token"))
    reply = access_token(request, sessions_, directory_settings());
  else if (is("crm/v8/users") && request.parameter("type") == "CurrentUser")
    reply = current_user(request);
  else if (is("rest/UsrWhoAmI/Get"))
    reply = json_reply(200, user_object(sessions_.user_of(cookie_of(request, ".ASPXAUTH"))));
  else if (is("rest/UsrWhoAmI/Find"))
    reply = has_authorization(request, "Basic " + base64_encode("robot:secret"))
                ? json_reply(200, user_object(sessions_.user_of(form_value(request, "session"))))
                : json_reply(401, "{}");
  else
    return std::nullopt;
  reply.touched.push_back("identity");
  return reply;
}

}  // namespace tollgate::standin
