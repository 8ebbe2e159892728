#include "proxy/admin/replies.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/json_text.h"

namespace tollgate::admin {
namespace {}  // namespace

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

}  // namespace tollgate::admin
