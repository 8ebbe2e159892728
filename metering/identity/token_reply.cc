#include "metering/identity/token_reply.h"

#include "metering/base/ascii.h"

namespace tollgate::identity {
namespace {

constexpr std::size_t kTokenBytesMax = 64 * 1024;

}  // namespace

std::optional<JsonMembers> json_object(simdjson::dom::parser& parser, std::string_view body) {
  simdjson::dom::object object;
  if (body.empty() || parser.parse(body.data(), body.size()).get(object) != simdjson::SUCCESS)
    return std::nullopt;
  return JsonMembers::of(object);
}

bool is_access_token(std::string_view text) {
  if (text.empty() || text.size() > kTokenBytesMax) return false;
  for (const char c : text)
    if (c <= ' ' || c >= 0x7F || c == ',') return false;
  return true;
}

Milliseconds token_lifetime(const JsonMembers& members) {
  constexpr std::uint64_t kMost = 366ULL * 86'400;
  const auto element = members.find("expires_in");
  std::uint64_t seconds = 0;
  std::string_view text;
  if (!element) return Milliseconds(0);
  if (element->get(text) == simdjson::SUCCESS)
    seconds = parse_decimal(text).value_or(0);
  else if (element->get(seconds) != simdjson::SUCCESS)
    return Milliseconds(0);
  return Seconds(static_cast<std::int64_t>(std::min(seconds, kMost)));
}

}  // namespace tollgate::identity
