#include "proxy/admin/watching.h"

#include <fmt/format.h>

#include "config/values.h"
#include "metering/base/json_text.h"
#include "proxy/admin/body.h"
#include "proxy/admin/replies.h"

namespace tollgate::admin {
namespace {

constexpr std::size_t kNameBytesMax = 512;

// Goes into the log: one line.
std::optional<Reply> read_name(const simdjson::dom::object& object, std::string_view name, std::string& out) {
  simdjson::dom::element value;
  if (object[name].get(value) != simdjson::SUCCESS) return std::nullopt;
  std::string_view text;
  if (value.get(text) != simdjson::SUCCESS || text.empty() || text.size() > kNameBytesMax)
    return bad(fmt::format("\"{}\" must be a text of 1 to {} bytes.", name, kNameBytesMax)).error();
  out = text;
  return std::nullopt;
}

}  // namespace

std::expected<flow::TrailOrder, Reply> parse_trail(std::string_view body) {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (auto wrong = read_object(parser, body, {"request_id", "user", "tenant", "for", "lines"}, object))
    return std::unexpected(std::move(*wrong));
  flow::TrailOrder order;
  for (auto [name, text] : {std::pair{"request_id", &order.request_id}, std::pair{"user", &order.user},
                            std::pair{"tenant", &order.tenant}})
    if (auto wrong = read_name(object, name, *text)) return std::unexpected(std::move(*wrong));
  if (order.request_id.empty() && order.user.empty())
    return bad("Name what to follow: \"request_id\", \"user\", or both.");
  if (!order.tenant.empty() && order.user.empty()) return bad("\"tenant\" goes with \"user\".");
  simdjson::dom::element value;
  if (object["for"].get(value) == simdjson::SUCCESS) {
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) return bad("\"for\" must be a duration such as \"60s\".");
    const auto time = config::parse_duration(text);
    if (!time) return bad(fmt::format("\"for\": \"{}\" {}.", text, time.error()));
    if (*time < Milliseconds(1) || *time > flow::kTrailTimeMax)
      return bad(fmt::format("\"for\" must be from 1ms to {}.", config::duration_text(flow::kTrailTimeMax)));
    order.time = *time;
  }
  if (object["lines"].get(value) == simdjson::SUCCESS) {
    std::uint64_t lines = 0;
    if (value.get(lines) != simdjson::SUCCESS || lines < 1 || lines > flow::kTrailLinesMax)
      return bad(fmt::format("\"lines\" must be a number from 1 to {}.", flow::kTrailLinesMax));
    order.lines = static_cast<std::uint32_t>(lines);
  }
  return order;
}

std::string trail_json(const std::optional<Sources::Followed>& followed, Milliseconds now) {
  std::string body;
  JsonWriter json(body);
  json.object([&] {
    json.field("following", followed.has_value());
    if (!followed) return;
    if (!followed->order.request_id.empty()) json.field("request_id", followed->order.request_id);
    if (!followed->order.user.empty()) json.field("user", followed->order.user);
    if (!followed->order.tenant.empty()) json.field("tenant", followed->order.tenant);
    json.field("until", format_moment(now + followed->left));
    json.field("lines_left", followed->lines_left);
  });
  return body;
}

std::string upstreams_json(const std::vector<Sources::UpstreamServer>& servers) {
  std::string body;
  JsonWriter json(body);
  json.array([&] {
    for (const Sources::UpstreamServer& one : servers)
      json.object([&] {
        json.field("upstream", one.upstream);
        json.field("server", one.server);
        json.field("healthy", !one.down && !one.unreachable && !one.ejected);
        json.field("down", one.down);
        json.field("unreachable", one.unreachable);
        json.field("ejected", one.ejected);
        json.field("in_flight", one.in_flight);
        json.field("idle", one.idle);
        json.field("waiting", one.waiting);
        json.field("requests", one.requests);
        json.field("failures", one.failures);
      });
  });
  return body;
}

}  // namespace tollgate::admin
