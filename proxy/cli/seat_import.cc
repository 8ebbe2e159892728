#include "proxy/cli/seat_import.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>

#include "metering/base/json_text.h"
#include "metering/base/percent.h"
#include "metering/identity/csv.h"
#include "proxy/cli/progress.h"

namespace tollgate::cli {
namespace {

enum Column : std::size_t { kUser, kTenant, kPool };

std::optional<std::string> read_file(const std::string& file, Console& console) {
  if (file == "-")
    return std::string{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  std::ifstream in(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in) return text;
  print_error(console, fmt::format("{}: cannot be read", file));
  return std::nullopt;
}

}  // namespace

std::string user_seat_path(std::string_view tenant, std::string_view user, std::string_view pool) {
  return fmt::format("/api/v1/licenses/{}/seats/{}/{}", percent_encoded(pool),
                     tenant.empty() ? "-" : percent_encoded(tenant), percent_encoded(user));
}

std::string seat_change_body(const LicenseArguments& arguments) {
  std::string body;
  JsonWriter json(body);
  json.object([&] {
    if (!arguments.reason.empty()) json.field("reason", arguments.reason);
  });
  return body;
}

int assign_from_file(const LicenseArguments& arguments, const std::string& default_pool, Console& console) {
  const auto text = read_file(arguments.file, console);
  if (!text) return kExitFailed;
  const std::string name = arguments.file == "-" ? "standard input" : arguments.file;
  auto table = identity::CsvTable::open(*text, {"user", "tenant", "pool"});
  if (!table) {
    print_error(console, fmt::format("{}: {}", name, table.error().message));
    return kExitFailed;
  }
  const auto endpoint = find_endpoint(arguments.admin, console);
  if (!endpoint) return kExitConfig;
  const std::string body = seat_change_body(arguments);
  const auto lines = static_cast<std::uint64_t>(std::count(text->begin(), text->end(), '\n'));
  ProgressBar bar(console, "assigning", "rows");
  std::uint64_t assigned = 0, held = 0, failed = 0;
  std::string given_up;
  const auto say = [&](const std::string& what) {
    bar.clear();
    print_error(console, fmt::format("{}: {}", name, what));
    ++failed;
  };
  while (given_up.empty()) {
    const auto row = table->next();
    if (!row) {
      say(row.error().message);
      continue;
    }
    if (!*row) break;
    const std::string_view user = table->cell(kUser);
    const std::string tenant(table->cell(kTenant).empty() ? arguments.tenant : table->cell(kTenant));
    const std::string pool(table->cell(kPool).empty() ? default_pool : table->cell(kPool));
    if (user.empty() || pool.empty()) {
      say(table->wrong(user.empty() ? "no user" : "which pool? name it in a column, or with --pool")
              .error()
              .message);
      continue;
    }
    const auto reply = ask_admin(*endpoint, "PUT", user_seat_path(tenant, user, pool), body);
    if (reply && reply->status == 200) {
      ++(reply->body.find("\"new\":true") != std::string::npos ? assigned : held);
    } else if (reply && (reply->status == 409 || reply->status == 404 || reply->status == 400)) {
      say(table->wrong(fmt::format("{}: {}", user, problem_detail(*reply))).error().message);
    } else {  // not for this row's sake
      given_up = reply
                     ? fmt::format("{} answered {}: {}", endpoint->url, reply->status, problem_detail(*reply))
                     : reply.error().message;
      say(table->wrong(fmt::format("{}: given up here: {}; give the same file again", user, given_up))
              .error()
              .message);
    }
    bar.show(assigned + held + failed, lines);
  }
  bar.clear();
  console.err << fmt::format("{} assigned, {} held already, {} failed\n", assigned, held, failed);
  if (!given_up.empty()) return kExitUnavailable;
  return failed == 0 ? kExitOk : kExitFailed;
}

}  // namespace tollgate::cli
