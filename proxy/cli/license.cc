#include "proxy/cli/license.h"

#include <fmt/format.h>

#include "metering/base/percent.h"
#include "proxy/cli/admin_json.h"
#include "proxy/cli/seat_import.h"

namespace tollgate::cli {
namespace {

using Action = LicenseArguments::Action;
using Element = simdjson::dom::element;
using Rows = std::vector<std::vector<std::string>>;

constexpr std::size_t kPage = 5'000;  // seats a request

std::string member(const Element& object, std::string_view key) {
  Element value;
  if (object[key].get(value) != simdjson::SUCCESS) return "";
  std::string_view text;
  return value.get(text) == simdjson::SUCCESS ? std::string(text) : simdjson::minify(value);
}

// What has seats, or what --pool says.
struct Pools {
  int code = kExitOk;
  std::vector<std::string> ids;
};
Pools find_pools(const LicenseArguments& arguments, Console& console) {
  if (!arguments.pool.empty()) return {.ids = {arguments.pool}};
  Pools pools{.ids = {}};
  AdminReply reply;
  pools.code = ask_or_explain(arguments.admin, console, "GET", "/api/v1/licenses", "", reply);
  if (pools.code != kExitOk) return pools;
  simdjson::dom::parser parser;
  simdjson::dom::array products;
  if (!read_json(parser, reply.body, products, console)) {
    pools.code = kExitFailed;
    return pools;
  }
  for (Element product : products) {
    const std::string kind = member(product, "kind");
    if (kind.empty() || (arguments.action == Action::assign && kind != "named")) continue;
    pools.ids.push_back(member(product, "id"));
  }
  return pools;
}

int list(const LicenseArguments& arguments, Console& console) {
  AdminReply reply;
  if (int code = ask_or_explain(arguments.admin, console, "GET", "/api/v1/licenses", "", reply);
      code != kExitOk)
    return code;
  if (arguments.format == Format::json) {
    console.out << reply.body << '\n';
    return kExitOk;
  }
  simdjson::dom::parser parser;
  simdjson::dom::array products;
  if (!read_json(parser, reply.body, products, console)) return kExitFailed;
  Rows rows{{"PRODUCT", "TITLE", "AVAILABLE", "SEATS", "CAPACITY", "USED", "BILLABLE"}};
  for (Element product : products)
    rows.push_back({member(product, "id"), member(product, "title"),
                    member(product, "available") == "true" ? "yes" : "no", member(product, "kind"),
                    member(product, "capacity"), member(product, "used"), member(product, "billable")});
  print_table(console.out, rows);
  return kExitOk;
}

std::string seats_path(const std::string& pool) {
  return fmt::format("/api/v1/licenses/{}/seats", percent_encoded(pool));
}

// All seats of one pool: as rows, and as one JSON object. Between two pages seats may come and go.
int add_seats(const LicenseArguments& arguments, const std::string& pool, Rows& rows, std::string& json_list,
              Console& console) {
  std::string head, seats;
  for (std::size_t offset = 0;; offset += kPage) {
    AdminReply reply;
    const std::string path = fmt::format("{}?offset={}&limit={}", seats_path(pool), offset, kPage);
    if (int code = ask_or_explain(arguments.admin, console, "GET", path, "", reply); code != kExitOk)
      return code;
    simdjson::dom::parser parser;
    Element page;
    simdjson::dom::array list;
    if (parser.parse(reply.body).get(page) != simdjson::SUCCESS ||
        page["seats"].get(list) != simdjson::SUCCESS) {
      print_error(console, "the reply is no list of seats");
      return kExitFailed;
    }
    if (head.empty()) head = reply.body.substr(0, reply.body.find("\"seats\":"));
    for (Element seat : list) {
      const std::string since = member(seat, "since"), until = member(seat, "until");
      rows.push_back({pool, member(seat, "tenant"), member(seat, "user"),
                      since.empty() ? "until " + until : "since " + since});
      seats += (seats.empty() ? "" : ",") + simdjson::minify(seat);
    }
    if (list.size() < kPage) break;
  }
  json_list += fmt::format("{}{}\"seats\":[{}]}}", json_list.empty() ? "" : ",", head, seats);
  return kExitOk;
}

int show_seats(const LicenseArguments& arguments, Console& console) {
  const Pools pools = find_pools(arguments, console);
  if (pools.code != kExitOk) return pools.code;
  Rows rows{{"POOL", "TENANT", "USER", "HELD"}};
  std::string json_list;
  for (const std::string& pool : pools.ids)
    if (int code = add_seats(arguments, pool, rows, json_list, console); code != kExitOk) return code;
  if (arguments.format == Format::json)
    console.out << '[' << json_list << "]\n";
  else if (rows.size() == 1)
    console.err << (pools.ids.empty() ? "no product has seats\n" : "no seat is taken\n");
  else
    print_table(console.out, rows);
  return kExitOk;
}

int release(const LicenseArguments& arguments, Console& console) {
  const Pools pools = find_pools(arguments, console);
  if (pools.code != kExitOk) return pools.code;
  const auto endpoint = find_endpoint(arguments.admin, console);
  if (!endpoint) return kExitConfig;
  std::vector<std::string> released;
  for (const std::string& pool : pools.ids) {
    // Without --pool it is no failure that a pool has no seat of this user, as long as one has.
    auto answer = ask_admin(*endpoint, "DELETE", user_seat_path(arguments.tenant, arguments.user, pool),
                            seat_change_body(arguments));
    if (answer && answer->status == 404 && arguments.pool.empty()) continue;
    AdminReply reply;
    if (int code = explain_answer(*endpoint, std::move(answer), console, reply); code != kExitOk) return code;
    released.push_back(pool);
  }
  if (released.empty()) {
    print_error(console, fmt::format("{} holds no seat", arguments.user));
    return kExitFailed;
  }
  for (const std::string& pool : released) console.err << "released: a seat of " << pool << '\n';
  return kExitOk;
}

int assign(const LicenseArguments& arguments, Console& console) {
  const Pools pools = find_pools(arguments, console);
  if (pools.code != kExitOk) return pools.code;
  if (!arguments.file.empty())
    return assign_from_file(arguments, pools.ids.size() == 1 ? pools.ids[0] : "", console);
  if (pools.ids.size() != 1) {
    print_error(console,
                pools.ids.empty() ? "no product has named seats" : "which pool? name it with --pool");
    return pools.ids.empty() ? kExitFailed : kExitUsage;
  }
  AdminReply reply;
  if (int code = ask_or_explain(arguments.admin, console, "PUT",
                                user_seat_path(arguments.tenant, arguments.user, pools.ids[0]),
                                seat_change_body(arguments), reply);
      code != kExitOk)
    return code;
  console.err << (reply.body.find("\"new\":true") != std::string::npos ? "assigned: a seat of "
                                                                       : "held already: a seat of ")
              << pools.ids[0] << '\n';
  return kExitOk;
}

}  // namespace

int run_license(const LicenseArguments& arguments, Console& console) {
  switch (arguments.action) {
    case Action::list:
      return list(arguments, console);
    case Action::seats:
      return show_seats(arguments, console);
    case Action::release:
      return release(arguments, console);
    case Action::assign:
      return assign(arguments, console);
  }
  return kExitUsage;
}

}  // namespace tollgate::cli
