#include "metering/identity/cherwell_login.h"

#include "metering/base/ascii.h"
#include "metering/identity/token_reply.h"

namespace tollgate::identity {
namespace {

// One name or value of application/x-www-form-urlencoded; nullopt: a '%' without two hexadecimal digits behind it, which
// servers read differently.
std::optional<std::string> form_text(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i] == '+' ? ' ' : text[i]);
      continue;
    }
    if (text.size() - i < 3 || hex_value(text[i + 1]) < 0 || hex_value(text[i + 2]) < 0) return std::nullopt;
    out.push_back(static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2])));
    i += 2;
  }
  return out;
}

// The value of a parameter, its name in any case.
struct Parameter {
  std::string value;
  std::size_t count = 0;
  bool malformed = false;

  void look(std::string_view form, std::string_view wanted) {
    while (!form.empty()) {
      const std::string_view pair = form.substr(0, form.find('&'));
      form.remove_prefix(std::min(pair.size() + 1, form.size()));
      const std::size_t equals = std::min(pair.find('='), pair.size());
      const auto name = form_text(pair.substr(0, equals));
      if (!name || !equals_ignore_case(trim(*name), wanted)) continue;
      auto text = form_text(equals < pair.size() ? pair.substr(equals + 1) : std::string_view());
      malformed = malformed || !text;
      value = std::move(text).value_or("");
      ++count;
    }
  }
};

bool has_words(std::string_view path, std::string_view operation) {
  const std::size_t api = path.find("/api/v");
  const bool known = path.find("cherwellapi/") != path.npos || path.find("trebuchet.webapi/") != path.npos;
  if (!known || api == path.npos) return false;
  const std::size_t slash = path.find('/', api + 5);
  return slash != path.npos && path.substr(slash + 1).starts_with(operation);
}

}  // namespace

SessionStep cherwell_step(std::string_view method, std::string_view lower_path) {
  if (method == "POST" &&
      (lower_path.ends_with("/cherwellapi/token") || lower_path.ends_with("/trebuchet.webapi/token")))
    return SessionStep::log_in;
  if (has_words(lower_path, "logout")) return SessionStep::log_out;
  if (has_words(lower_path, "runonestepaction")) return SessionStep::renews;
  return SessionStep::none;
}

Result<CherwellLogin> read_cherwell_login(std::string_view query, std::string_view body) {
  Parameter grant, refresh, site;
  for (const std::string_view form : {query, body}) {
    grant.look(form, "grant_type");
    refresh.look(form, "refresh_token");
    site.look(form, "site_name");
  }
  for (const Parameter* parameter : {&grant, &refresh, &site})
    if (parameter->count > 1 || parameter->malformed)
      return fail(Origin::client,
                  "The request for a token has a parameter twice, or one that cannot be decoded.");
  CherwellLogin login;
  if (equals_ignore_case(trim(grant.value), "refresh_token")) {
    if (!is_access_token(refresh.value))
      return fail(Origin::client, "The request for a token has no refresh_token.");
    login.refresh_token = std::move(refresh.value);
  }
  if (trim(site.value).empty()) return login;
  auto name = session_user(site.value);
  if (!name) return fail(Origin::client, "The site_name of a request for a token is no name.");
  login.site = *std::move(name);
  return login;
}

std::optional<CherwellTokens> read_cherwell_tokens(std::string_view body) {
  simdjson::dom::parser parser;
  const auto members = json_object(parser, body);
  if (!members) return std::nullopt;
  const auto access = members->text("access_token"), refresh = members->text("refresh_token"),
             username = members->text("username");
  if (!access || !is_access_token(*access) || !username) return std::nullopt;
  auto user = session_user(*username);
  if (!user) return std::nullopt;
  return CherwellTokens{.access_token = std::string(*access),
                        .refresh_token = refresh && is_access_token(*refresh) ? std::string(*refresh) : "",
                        .user = *std::move(user),
                        .lifetime = token_lifetime(*members)};
}

std::string cherwell_new_token(std::string_view body) {
  simdjson::dom::parser parser;
  const auto members = json_object(parser, body);
  if (!members) return {};
  const auto token = members->text("newAccessToken");
  return token && is_access_token(*token) ? std::string(*token) : std::string();
}

std::optional<std::string> cherwell_site(std::string_view path, std::string_view query) {
  Parameter named;
  named.look(query, "site_name");
  if (named.count > 1 || named.malformed) return std::nullopt;
  constexpr std::string_view kPortal = "/cherwellportal/";
  const std::size_t portal = to_lower(path).find(kPortal);
  std::string site;
  for (std::string_view text :
       {std::string_view(named.value),
        portal == path.npos ? std::string_view() : path.substr(portal + kPortal.size())}) {
    text = text.substr(0, text.find('/'));
    if (trim(text).empty()) continue;
    const auto folded = session_user(text);
    if (!folded || (!site.empty() && site != *folded)) return std::nullopt;
    site = *folded;
  }
  return site;
}

}  // namespace tollgate::identity
