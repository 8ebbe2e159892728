#include "proxy/cli/trace.h"

#include <fmt/format.h>
#include <simdjson.h>

#include "config/values.h"
#include "metering/base/json_text.h"

namespace tollgate::cli {
namespace {

using Element = simdjson::dom::element;

std::string complaint(const TraceArguments& arguments) {
  const bool names = !arguments.request_id.empty() || !arguments.user.empty();
  if (arguments.stop && names) return "--stop goes without --request-id and --user";
  if (!names && (!arguments.duration.empty() || arguments.lines || !arguments.tenant.empty()))
    return "follow what? name it with --request-id or --user";
  if (!arguments.tenant.empty() && arguments.user.empty()) return "--tenant goes with --user";
  if (!arguments.duration.empty())
    if (auto duration = config::parse_duration(arguments.duration); !duration)
      return fmt::format("--for \"{}\" {}", arguments.duration, duration.error());
  return "";
}

std::string body_of(const TraceArguments& arguments) {
  std::string body;
  JsonWriter json(body);
  json.object([&] {
    if (!arguments.request_id.empty()) json.field("request_id", arguments.request_id);
    if (!arguments.user.empty()) json.field("user", arguments.user);
    if (!arguments.tenant.empty()) json.field("tenant", arguments.tenant);
    if (!arguments.duration.empty()) json.field("for", arguments.duration);
    if (arguments.lines) json.field("lines", *arguments.lines);
  });
  return body;
}

int print_trail(const std::string& body, Console& console) {
  simdjson::dom::parser parser;
  Element document;
  bool following = false;
  if (parser.parse(body).get(document) != simdjson::SUCCESS ||
      document["following"].get(following) != simdjson::SUCCESS) {
    print_error(console, "the reply is not what an admin port answers");
    return kExitFailed;
  }
  if (!following) {
    console.out << "nothing is followed\n";
    return kExitOk;
  }
  std::string what;
  for (auto [member, words] :
       {std::pair{"request_id", "request id"}, std::pair{"user", "user"}, std::pair{"tenant", "tenant"}})
    if (std::string_view text; document[member].get(text) == simdjson::SUCCESS)
      what += fmt::format("{}{} {}", what.empty() ? "" : ", ", words, text);
  std::string_view until;
  std::uint64_t lines = 0;
  if (document["until"].get(until) != simdjson::SUCCESS ||
      document["lines_left"].get(lines) != simdjson::SUCCESS)
    return kExitFailed;
  console.out << fmt::format("following {} until {}, {} lines at most, in the log of the proxy\n", what,
                             until, lines);
  return kExitOk;
}

}  // namespace

int run_trace(const TraceArguments& arguments, Console& console) {
  if (std::string wrong = complaint(arguments); !wrong.empty()) {
    print_error(console, wrong);
    return kExitUsage;
  }
  std::string_view method = "GET";
  std::string body;
  if (arguments.stop) {
    method = "DELETE";
  } else if (!arguments.request_id.empty() || !arguments.user.empty()) {
    method = "PUT";
    body = body_of(arguments);
  }
  AdminReply reply;
  if (int code = ask_or_explain(arguments.admin, console, method, "/api/v1/trace", body, reply);
      code != kExitOk)
    return code;
  if (arguments.format == Format::json) {
    console.out << reply.body << '\n';
    return kExitOk;
  }
  return print_trail(reply.body, console);
}

}  // namespace tollgate::cli
