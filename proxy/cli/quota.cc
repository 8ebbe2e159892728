#include "proxy/cli/quota.h"

#include <fmt/format.h>
#include <simdjson.h>

namespace tollgate::cli {
namespace {

using Element = simdjson::dom::element;

std::string member(const Element& object, std::string_view key) {
  Element value;
  if (object[key].get(value) != simdjson::SUCCESS) return "";
  std::string_view text;
  return value.get(text) == simdjson::SUCCESS ? std::string(text) : simdjson::minify(value);
}

// One account, or a list of them.
int print_quotas(const std::string& body, Console& console) {
  simdjson::dom::parser parser;
  Element document;
  if (parser.parse(body).get(document) != simdjson::SUCCESS) {
    print_error(console, "the reply is no JSON");
    return kExitFailed;
  }
  std::vector<std::vector<std::string>> rows{{"QUOTA", "LIMIT", "USED", "REMAINING", "CONFIGURED"}};
  auto add = [&](const Element& quota) {
    rows.push_back({member(quota, "name"), member(quota, "limit"), member(quota, "used"),
                    member(quota, "remaining"), member(quota, "configured_limit")});
  };
  simdjson::dom::array list;
  if (document.get(list) == simdjson::SUCCESS)
    for (Element quota : list) add(quota);
  else
    add(document);
  print_table(console.out, rows);
  return kExitOk;
}

}  // namespace

int run_quota(const QuotaArguments& arguments, Console& console) {
  using Action = QuotaArguments::Action;
  if (arguments.action != Action::get && arguments.rule.empty()) {
    print_error(console, "which quota? name it with --rule");
    return kExitUsage;
  }
  if (arguments.action == Action::set && !arguments.limit) {
    print_error(console, "which limit? give it with --limit");
    return kExitUsage;
  }
  std::string rest = arguments.rule.empty() ? "quotas" : "quotas/" + percent_encoded(arguments.rule);
  std::string_view method = "GET";
  std::string body;
  if (arguments.action == Action::set) {
    method = "PUT";
    body = fmt::format("{{\"limit\":{}}}", *arguments.limit);
  }
  if (arguments.action == Action::reset) {
    method = arguments.counted ? "POST" : "DELETE";
    if (arguments.counted) rest += "/reset";
  }
  AdminReply reply;
  std::string path = user_path(arguments.tenant, arguments.user, rest, arguments.organization);
  if (int code = ask_or_explain(arguments.admin, console, method, path, body, reply); code != kExitOk)
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
