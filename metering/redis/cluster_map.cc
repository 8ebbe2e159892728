#include "metering/redis/cluster_map.h"

#include <fmt/format.h>

#include "metering/base/ascii.h"
#include "metering/quota/keys.h"

namespace tollgate::redis {

unsigned slot_of_partition(unsigned partition) {
  std::string tag = quota::hash_tag(partition);  // "{p017}": Redis hashes what stands between the braces
  return quota::crc16(std::string_view(tag).substr(1, tag.size() - 2)) % kSlots;
}

Result<std::vector<SlotRange>> parse_slots(const Reply& reply, const Endpoint& asked) {
  auto bad = [&] {
    return fail(Origin::store, fmt::format("{}: CLUSTER SLOTS is not understood", asked.text()), true);
  };
  if (reply.type != Reply::Type::array) return bad();
  std::vector<SlotRange> ranges;
  for (const Reply& range : reply.elements) {
    const auto& parts = range.elements;
    if (parts.size() < 3 || parts[0].type != Reply::Type::integer || parts[1].type != Reply::Type::integer)
      return bad();
    std::int64_t first = parts[0].integer, last = parts[1].integer;
    if (first < 0 || last < first || last >= static_cast<std::int64_t>(kSlots)) return bad();
    const auto& node = parts[2].elements;
    if (node.size() < 2 || node[1].integer <= 0 || node[1].integer > 65'535) return bad();
    const std::string& host = node[0].text;
    ranges.push_back({.first = static_cast<unsigned>(first),
                      .last = static_cast<unsigned>(last),
                      .primary = {.host = host.empty() || host == "?" ? asked.host : host,
                                  .port = static_cast<std::uint16_t>(node[1].integer)}});
  }
  return ranges;
}

std::optional<Redirection> parse_redirection(const Reply& reply, const Endpoint& asked) {
  Redirection found;
  if (reply.is_error("ASK"))
    found.ask = true;
  else if (!reply.is_error("MOVED"))
    return std::nullopt;
  std::string_view text = reply.text;
  text.remove_prefix(text.find(' ') == std::string_view::npos ? text.size() : text.find(' ') + 1);
  std::size_t space = text.find(' ');
  auto slot = parse_decimal(text.substr(0, space));
  if (!slot || *slot >= kSlots || space == std::string_view::npos) return std::nullopt;
  std::string_view address = text.substr(space + 1);
  std::size_t colon = address.rfind(':');  // an IPv6 address stands there without brackets
  if (colon == std::string_view::npos) return std::nullopt;
  auto port = parse_decimal(address.substr(colon + 1));
  if (!port || *port == 0 || *port > 65'535) return std::nullopt;
  std::string_view host = address.substr(0, colon);
  found.slot = static_cast<unsigned>(*slot);
  found.to = {.host = host.empty() || host == "?" ? asked.host : std::string(host),
              .port = static_cast<std::uint16_t>(*port)};
  return found;
}

}  // namespace tollgate::redis
