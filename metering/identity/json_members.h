// Inside of the room: JSON objects whose member names are unique. Parsers disagree about which of two members
// with one name counts (RFC 8725 section 2.4 tells what comes of that), so an object that has two is not read
// at all.
#pragma once
#include <simdjson.h>

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace tollgate::identity {

class JsonMembers {
 public:
  // nullopt when two members have the same name, however it is spelled ("sub" and "\u0073ub" are the same).
  // The views live as long as the parser that made the object. O(n log n).
  static std::optional<JsonMembers> of(simdjson::dom::object object);

  // The member, also when it is null; nullopt when it is absent. O(log n).
  std::optional<simdjson::dom::element> find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name).has_value(); }
  // The member's text; nullopt when it is absent or not a string.
  std::optional<std::string_view> text(std::string_view name) const;

 private:
  std::vector<std::pair<std::string_view, simdjson::dom::element>> members_;  // sorted by name
};

}  // namespace tollgate::identity
