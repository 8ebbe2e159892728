#include "proxy/cli/usage.h"

#include <fmt/format.h>

#include "config/values.h"
#include "proxy/cli/admin_json.h"

namespace tollgate::cli {
namespace {

using Element = simdjson::dom::element;

std::string text_at(const Element& object, std::string_view key) {
  Element value;
  if (object[key].get(value) != simdjson::SUCCESS) return "";
  if (value.is_null()) return "none";  // no limit
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  return simdjson::minify(value);
}

std::string seconds_text(const Element& object, std::string_view key) {
  std::uint64_t seconds = 0;
  if (object[key].get(seconds) != simdjson::SUCCESS) return "";
  return config::duration_text(Milliseconds(static_cast<std::int64_t>(seconds * 1'000)));
}

void print_limits(const Element& document, Console& console) {
  std::vector<std::vector<std::string>> rows{{"QUOTA", "WINDOW", "LIMIT", "USED", "REMAINING", "NEXT FREE"}};
  simdjson::dom::array limits;
  if (document["limits"].get(limits) == simdjson::SUCCESS)
    for (Element limit : limits) {
      std::string next;
      if (Element free; limit["next_free"].get(free) == simdjson::SUCCESS)
        next = fmt::format("{} in {}s", text_at(free, "calls"), text_at(free, "seconds"));
      std::string name = text_at(limit, "name");
      if (text_at(limit, "mode") == "shadow") name += " (shadow)";
      rows.push_back({name, seconds_text(limit, "window"), text_at(limit, "limit"), text_at(limit, "used"),
                      text_at(limit, "remaining"), next});
    }
  if (rows.size() == 1)
    console.err << "no quota rule counts per user\n";
  else
    print_table(console.out, rows);
}

void print_objects(const Element& document, Console& console) {
  simdjson::dom::array objects;
  if (document["objects"].get(objects) != simdjson::SUCCESS || objects.size() == 0) return;
  std::vector<std::vector<std::string>> rows{{"OBJECT", "OPERATION", "CALLS"}};
  for (Element object : objects)
    rows.push_back({text_at(object, "object"), text_at(object, "operation"), text_at(object, "calls")});
  console.out << '\n';
  print_table(console.out, rows);
}

}  // namespace

int run_usage(const UsageArguments& arguments, Console& console) {
  AdminReply reply;
  std::string path = user_path(arguments.tenant, arguments.user, "usage", arguments.organization);
  if (int code = ask_or_explain(arguments.admin, console, "GET", path, "", reply); code != kExitOk)
    return code;
  if (arguments.format == Format::json) {
    console.out << reply.body << '\n';
    return kExitOk;
  }
  simdjson::dom::parser parser;
  Element document;
  if (!read_json(parser, reply.body, document, console)) return kExitFailed;
  print_limits(document, console);
  print_objects(document, console);
  return kExitOk;
}

}  // namespace tollgate::cli
