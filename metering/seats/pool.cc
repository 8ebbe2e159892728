#include "metering/seats/pool.h"

#include <fmt/format.h>

#include "metering/quota/keys.h"

namespace tollgate::seats {

std::string_view name(Kind kind) {
  return kind == Kind::named ? "named" : "concurrent";
}

std::string member_of(const Holder& holder) {
  std::string member;
  quota::append_escaped(member, holder.tenant);
  member.push_back(':');
  quota::append_escaped(member, holder.user);
  return member;
}

std::optional<ParsedMember> parse_member(std::string_view member) {
  const std::size_t colon = member.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  auto tenant = quota::unescape_name(member.substr(0, colon));
  auto user = quota::unescape_name(member.substr(colon + 1));
  if (!tenant || !user) return std::nullopt;
  return ParsedMember{.tenant = std::move(*tenant), .user = std::move(*user)};
}

unsigned partition_of(const Pool& pool) {
  return quota::crc16(fmt::format("{}:{}", name(pool.kind), pool.id)) % quota::kPartitions;
}

std::string seats_key(const Pool& pool) {
  return fmt::format("s:{}:{}:{}", quota::hash_tag(partition_of(pool)), name(pool.kind),
                     quota::escape_name(pool.id));
}

}  // namespace tollgate::seats
