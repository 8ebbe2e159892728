#include "metering/identity/creatio_login.h"

#include <simdjson.h>

#include "metering/base/ascii.h"
#include "metering/identity/directory.h"
#include "metering/identity/json_members.h"
#include "metering/identity/session.h"

namespace tollgate::identity {
SessionStep creatio_step(std::string_view method, std::string_view lower_path) {
  if (method != "POST") return SessionStep::none;
  if (lower_path.ends_with("/authservice.svc/login") || lower_path.ends_with("/authservice/login"))
    return SessionStep::log_in;
  if (lower_path.ends_with("/mainmenuservice/logout") || lower_path.ends_with("/mainmenuservice.svc/logout"))
    return SessionStep::log_out;
  return SessionStep::none;
}

Result<std::string> creatio_login_user(std::string_view body) {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  // simdjson copies the text, and an empty body may have no address.
  if (body.empty() || parser.parse(body.data(), body.size()).get(object) != simdjson::SUCCESS)
    return fail(Origin::client, "The body of a log-in must be a JSON object.");
  std::optional<simdjson::dom::element> found;
  for (simdjson::dom::key_value_pair member : object) {
    if (!equals_ignore_case(member.key, "UserName")) continue;
    if (found) return fail(Origin::client, "The body of a log-in names UserName twice.");
    found = member.value;
  }
  std::string_view typed;
  if (!found || found->get(typed) != simdjson::SUCCESS)
    return fail(Origin::client, "The body of a log-in has no UserName.");
  auto user = session_user(typed);
  if (!user) return fail(Origin::client, "The UserName of a log-in is no name.");
  return *std::move(user);
}

std::optional<UserType> creatio_login_reply(std::string_view body) {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (body.empty() || parser.parse(body.data(), body.size()).get(object) != simdjson::SUCCESS)
    return std::nullopt;
  const auto members = JsonMembers::of(object);
  if (!members) return std::nullopt;
  const auto code = members->find("Code");
  std::int64_t number = -1;
  if (!code || code->get(number) != simdjson::SUCCESS || number != 0) return std::nullopt;
  const auto type = members->text("UserType");
  return type ? parse_user_type(*type) : UserType::unknown;
}

std::optional<SetCookie> parse_set_cookie(std::string_view field) {
  const std::string_view pair = field.substr(0, field.find(';'));
  const std::size_t equals = pair.find('=');
  if (equals == std::string_view::npos) return std::nullopt;
  const std::string_view name = trim(pair.substr(0, equals));
  std::string_view value = trim(pair.substr(equals + 1));
  if (name.empty()) return std::nullopt;
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"')
    value = value.substr(1, value.size() - 2);
  return SetCookie{name, value};
}

}  // namespace tollgate::identity
