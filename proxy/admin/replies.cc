#include "proxy/admin/replies.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/json_text.h"

namespace tollgate::admin {
namespace {

// Reads exactly `digits` decimal digits from the front.
std::optional<int> take_number(std::string_view& text, std::size_t digits) {
  if (text.size() < digits) return std::nullopt;
  int value = 0;
  for (std::size_t i = 0; i < digits; ++i) {
    if (!is_digit(text[i])) return std::nullopt;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return value;
}

bool take(std::string_view& text, std::string_view any_of) {
  if (text.empty() || any_of.find(text.front()) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

Reply problem(int status, std::string_view title, std::string_view detail) {
  Reply reply{.status = status, .content_type = "application/problem+json", .fields = {}, .body = {}};
  JsonWriter json(reply.body);
  json.object([&] {
    json.field("type", "about:blank");
    json.field("title", title);
    json.field("status", status);
    json.field("detail", detail);
  });
  return reply;
}

Reply not_found(std::string_view path) {
  return problem(404, "Not found", fmt::format("There is no {} here; see docs/admin-api.md.", path));
}

Reply method_not_allowed(std::string_view allow) {
  Reply reply = problem(405, "Method not allowed", fmt::format("Allowed: {}.", allow));
  reply.fields = fmt::format("Allow: {}\r\n", allow);
  return reply;
}

Reply store_failed(const Error& error) {
  return problem(503, "The quota store is unavailable", error.message);
}

Reply json_reply(std::string body) {
  return {.status = 200, .content_type = "application/json", .fields = {}, .body = std::move(body)};
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size() || hex_value(text[i + 1]) < 0 || hex_value(text[i + 2]) < 0) return std::nullopt;
    out.push_back(static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2])));
    i += 2;
  }
  return out;
}

std::string query_value(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    if (pair.substr(0, pair.find('=')) == name && pair.size() > name.size())
      return percent_decode(pair.substr(name.size() + 1)).value_or("");
  }
  return {};
}

std::vector<std::string> segments(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    std::string_view segment = path.substr(0, path.find('/'));
    path.remove_prefix(segment.size());
    if (auto decoded = percent_decode(segment))
      out.push_back(std::move(*decoded));
    else
      return {};
  }
  return out;
}

std::string format_moment(Milliseconds since_1970) {
  const auto whole = std::chrono::floor<Seconds>(since_1970);
  const auto days = std::chrono::floor<std::chrono::days>(whole);
  const std::chrono::year_month_day date{std::chrono::sys_days(days)};
  const std::chrono::hh_mm_ss time{whole - days};
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     time.hours().count(), time.minutes().count(), time.seconds().count());
}

std::optional<Milliseconds> parse_moment(std::string_view text) {
  const auto year = take_number(text, 4);
  if (!year || !take(text, "-")) return std::nullopt;
  const auto month = take_number(text, 2);
  if (!month || !take(text, "-")) return std::nullopt;
  const auto day = take_number(text, 2);
  if (!day || !take(text, "Tt ")) return std::nullopt;
  const auto hour = take_number(text, 2);
  if (!hour || *hour > 23 || !take(text, ":")) return std::nullopt;
  const auto minute = take_number(text, 2);
  if (!minute || *minute > 59 || !take(text, ":")) return std::nullopt;
  const auto second = take_number(text, 2);
  if (!second || *second > 59) return std::nullopt;
  if (take(text, ".")) {
    if (text.empty() || !is_digit(text.front())) return std::nullopt;
    while (!text.empty() && is_digit(text.front())) text.remove_prefix(1);
  }
  int offset = 0;  // minutes east of UTC
  if (!take(text, "Zz")) {
    const bool west = text.starts_with('-');
    if (!take(text, "+-")) return std::nullopt;
    const auto hours = take_number(text, 2);
    if (!hours || *hours > 23 || !take(text, ":")) return std::nullopt;
    const auto minutes = take_number(text, 2);
    if (!minutes || *minutes > 59) return std::nullopt;
    offset = (*hours * 60 + *minutes) * (west ? -1 : 1);
  }
  if (!text.empty()) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok()) return std::nullopt;
  const auto days = std::chrono::sys_days(date).time_since_epoch();
  return Milliseconds(days) + std::chrono::hours(*hour) + std::chrono::minutes(*minute - offset) +
         Seconds(*second);
}

}  // namespace tollgate::admin
