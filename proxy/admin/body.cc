#include "proxy/admin/body.h"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/admin/replies.h"

namespace tollgate::admin {

std::unexpected<Reply> bad(std::string_view detail) {
  return std::unexpected(problem(400, "Bad request", detail));
}

std::optional<Reply> read_object(simdjson::dom::parser& parser, std::string_view body,
                                 std::initializer_list<std::string_view> known, simdjson::dom::object& out) {
  const simdjson::padded_string text(body.empty() ? std::string_view("{}") : body);
  simdjson::dom::element document;
  if (parser.parse(text).get(document) != simdjson::SUCCESS || document.get(out) != simdjson::SUCCESS)
    return problem(400, "Bad request", "The body must be a JSON object.");
  for (auto [name, value] : out)
    if (std::find(known.begin(), known.end(), name) == known.end())
      return problem(
          400, "Bad request",
          fmt::format("There is no member \"{}\" here; known are: {}.", name, fmt::join(known, ", ")));
  return std::nullopt;
}

}  // namespace tollgate::admin
