#include "proxy/cli/directory.h"

#include <fmt/format.h>

#include "metering/base/percent.h"
#include "proxy/cli/admin_json.h"

namespace tollgate::cli {
namespace {

constexpr Seconds kShowMost{10}, kSyncMost{1'200};  // one may be under way already: twice what it may take

using Element = simdjson::dom::element;

std::string text_of(const Element& value) {
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  simdjson::dom::array list;
  if (value.get(list) != simdjson::SUCCESS) return simdjson::minify(value);
  std::string out;
  for (const Element each : list) out += (out.empty() ? "" : "; ") + text_of(each);
  return out;
}

// "file" or "crm" and what it says, a row each: {"users": 3} -> file users 3.
std::vector<std::vector<std::string>> overview_rows(simdjson::dom::object directory) {
  std::vector<std::vector<std::string>> rows{{"FROM", "WHAT", "VALUE"}};
  for (const auto [from, says] : directory) {
    simdjson::dom::object members;
    if (says.get(members) != simdjson::SUCCESS) continue;
    for (const auto [name, value] : members)
      rows.push_back({std::string(from), std::string(name), text_of(value)});
  }
  return rows;
}

// What counts, and what file and CRM say of it.
std::vector<std::vector<std::string>> user_rows(simdjson::dom::object user) {
  std::vector<std::vector<std::string>> rows{{"WHAT", "COUNTS", "FROM", "FILE", "CRM"}};
  simdjson::dom::object counts;
  if (user["counts"].get(counts) != simdjson::SUCCESS) return rows;
  const auto said = [&](const char* by, std::string_view name) {
    Element value;
    return user[by][name].get(value) == simdjson::SUCCESS ? text_of(value) : std::string();
  };
  for (const auto [name, value] : counts)
    rows.push_back(
        {std::string(name), text_of(value), said("from", name), said("file", name), said("crm", name)});
  return rows;
}

}  // namespace

int run_directory(const DirectoryArguments& arguments, Console& console) {
  const bool syncs = arguments.action == DirectoryArguments::Action::sync;
  std::string path = "/api/v1/directory";
  if (syncs) path += "/sync";
  if (!arguments.user.empty()) path += "/users/" + percent_encoded(arguments.user);
  if (!arguments.reason.empty()) path += "?reason=" + percent_encoded(arguments.reason);
  AdminReply reply;
  if (int code = ask_or_explain(arguments.admin, console, syncs ? "POST" : "GET", path, "", reply,
                                syncs ? kSyncMost : kShowMost);
      code != kExitOk)
    return code;
  if (arguments.format == Format::json) {
    console.out << reply.body << '\n';
    return kExitOk;
  }
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (!read_json(parser, reply.body, object, console)) return kExitFailed;
  const auto rows = arguments.user.empty() ? overview_rows(object) : user_rows(object);
  if (rows.size() == 1)
    console.err << "there is no directory: users are as their tokens say\n";
  else
    print_table(console.out, rows);
  return kExitOk;
}

}  // namespace tollgate::cli
