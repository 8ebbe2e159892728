#include "metering/identity/json_members.h"

#include <algorithm>

namespace tollgate::identity {

std::optional<JsonMembers> JsonMembers::of(simdjson::dom::object object) {
  JsonMembers out;
  out.members_.reserve(object.size());
  for (simdjson::dom::key_value_pair member : object) out.members_.emplace_back(member.key, member.value);
  auto by_name = [](const auto& a, const auto& b) { return a.first < b.first; };
  auto same_name = [](const auto& a, const auto& b) { return a.first == b.first; };
  std::sort(out.members_.begin(), out.members_.end(), by_name);
  if (std::adjacent_find(out.members_.begin(), out.members_.end(), same_name) != out.members_.end())
    return std::nullopt;
  return out;
}

std::optional<simdjson::dom::element> JsonMembers::find(std::string_view name) const {
  auto at =
      std::lower_bound(members_.begin(), members_.end(), name,
                       [](const auto& member, std::string_view wanted) { return member.first < wanted; });
  if (at == members_.end() || at->first != name) return std::nullopt;
  return at->second;
}

std::optional<std::string_view> JsonMembers::text(std::string_view name) const {
  auto found = find(name);
  std::string_view out;
  if (!found || found->get(out) != simdjson::SUCCESS) return std::nullopt;
  return out;
}

}  // namespace tollgate::identity
