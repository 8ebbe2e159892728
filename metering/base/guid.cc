#include "metering/base/guid.h"

#include "metering/base/ascii.h"

namespace tollgate {
namespace {

constexpr std::size_t kDigits = 32, kWithDashes = 36;

bool is_dash_place(std::size_t i) {
  return i == 8 || i == 13 || i == 18 || i == 23;
}

}  // namespace

bool is_guid(std::string_view text) {
  std::size_t digits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '-' && text.size() == kWithDashes && is_dash_place(i)) continue;
    if (hex_value(text[i]) < 0) return false;
    ++digits;
  }
  return digits == kDigits;
}

std::optional<std::string> read_guid(std::string_view text) {
  if (!is_guid(text)) return std::nullopt;
  std::string guid;
  guid.reserve(kWithDashes);
  bool empty = true;
  for (const char c : text) {
    if (c == '-') continue;
    if (is_dash_place(guid.size())) guid.push_back('-');
    guid.push_back(ascii_lower(c));
    empty = empty && c == '0';
  }
  if (empty) return std::nullopt;
  return guid;
}

}  // namespace tollgate
