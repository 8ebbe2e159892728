#include "proxy/cli/quota.h"

#include <fmt/format.h>

#include "config/values.h"
#include "metering/base/json_text.h"
#include "metering/base/percent.h"
#include "proxy/cli/admin_json.h"

namespace tollgate::cli {
namespace {

using Action = QuotaArguments::Action;
using Element = simdjson::dom::element;

std::string member(const Element& object, std::string_view key) {
  Element value;
  if (object[key].get(value) != simdjson::SUCCESS) return "";
  if (value.is_null()) return "none";  // no limit
  std::string_view text;
  return value.get(text) == simdjson::SUCCESS ? std::string(text) : simdjson::minify(value);
}

// The grants in one cell: "+200 until 2026-11-23T18:00:00Z (month-end)".
std::string grants_text(const Element& quota) {
  simdjson::dom::array grants;
  if (quota["grants"].get(grants) != simdjson::SUCCESS) return "";
  std::string out;
  for (Element grant : grants) {
    if (!out.empty()) out += ", ";
    out += fmt::format("+{} until {}", member(grant, "extra"), member(grant, "until"));
    if (std::string reason = member(grant, "reason"); !reason.empty()) out += fmt::format(" ({})", reason);
  }
  return out;
}

// One account, or a list of them.
int print_quotas(const std::string& body, Console& console) {
  simdjson::dom::parser parser;
  Element document;
  if (!read_json(parser, body, document, console)) return kExitFailed;
  std::vector<std::vector<std::string>> rows{
      {"QUOTA", "LIMIT", "USED", "REMAINING", "CONFIGURED", "OVERRIDE", "GRANTS"}};
  auto add = [&](const Element& quota) {
    std::string name = member(quota, "name");
    if (member(quota, "mode") == "shadow") name += " (shadow)";
    rows.push_back({name, member(quota, "limit"), member(quota, "used"), member(quota, "remaining"),
                    member(quota, "configured_limit"), member(quota, "override"), grants_text(quota)});
  };
  simdjson::dom::array list;
  if (document.get(list) == simdjson::SUCCESS)
    for (Element quota : list) add(quota);
  else
    add(document);
  print_table(console.out, rows);
  return kExitOk;
}

// What is wrong with the arguments before anybody is asked; "" when nothing is.
std::string complaint(const QuotaArguments& arguments) {
  if (arguments.action != Action::get && arguments.rule.empty()) return "which quota? name it with --rule";
  if (arguments.action == Action::set && arguments.limit.has_value() == arguments.unlimited)
    return "which limit? give it with --limit, or say --unlimited";
  if (arguments.action == Action::reset && arguments.counted && arguments.grants)
    return "--counted and --grants are two changes: one after the other";
  if (arguments.action != Action::grant) return "";
  if (!arguments.extra || *arguments.extra == 0) return "how many calls more? give them with --extra";
  if (arguments.duration.empty() == arguments.until.empty())
    return "until when? give exactly one of --for 24h and --until 2026-11-23T18:00:00Z";
  if (!arguments.duration.empty())
    if (auto duration = config::parse_duration(arguments.duration); !duration)
      return fmt::format("--for \"{}\" {}", arguments.duration, duration.error());
  if (arguments.reason.empty()) return "why? a grant needs --reason";
  return "";
}

struct Call {
  std::string_view method = "GET";
  std::string rest;  // after /users/TENANT/USER/
  std::string body;
};

Call call_of(const QuotaArguments& arguments) {
  Call call;
  call.rest = arguments.rule.empty() ? "quotas" : "quotas/" + percent_encoded(arguments.rule);
  if (arguments.action == Action::get) return call;
  JsonWriter json(call.body);
  json.object([&] {
    if (arguments.action == Action::set) {
      call.method = "PUT";
      if (arguments.limit) json.field("limit", *arguments.limit);
      if (arguments.unlimited) {
        json.key("limit");
        json.null();
      }
    }
    if (arguments.action == Action::grant) {
      call.method = "POST";
      call.rest += "/grants";
      json.field("extra", *arguments.extra);
      if (arguments.duration.empty())
        json.field("until", arguments.until);
      else
        json.field("for", arguments.duration);
    }
    if (arguments.action == Action::reset) {
      call.method = arguments.counted ? "POST" : "DELETE";
      if (arguments.counted) call.rest += "/reset";
      if (arguments.grants) call.rest += "/grants";
    }
    if (!arguments.reason.empty()) json.field("reason", arguments.reason);
  });
  return call;
}

}  // namespace

int run_quota(const QuotaArguments& arguments, Console& console) {
  if (std::string wrong = complaint(arguments); !wrong.empty()) {
    print_error(console, wrong);
    return kExitUsage;
  }
  const Call call = call_of(arguments);
  AdminReply reply;
  std::string path = user_path(arguments.tenant, arguments.user, call.rest, arguments.organization);
  if (int code = ask_or_explain(arguments.admin, console, call.method, path, call.body, reply);
      code != kExitOk)
    return code;
  if (arguments.format == Format::json) {
    console.out << reply.body << '\n';
    return kExitOk;
  }
  if (arguments.counted) {
    console.err << "what was counted is forgotten\n";
    return kExitOk;
  }
  return print_quotas(reply.body, console);
}

}  // namespace tollgate::cli
