// Ids of records as CRMs write them: GUIDs, which have one value and several spellings.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace tollgate {

// 32 hexadecimal digits in any case, with all four dashes (8-4-4-4-12) or none. Braces and other forms are none.
bool is_guid(std::string_view text);

// The one spelling of a GUID: lower case, with dashes. nullopt: it is none, or the empty one of
// zeros, which is nobody's.
std::optional<std::string> read_guid(std::string_view text);

}  // namespace tollgate
