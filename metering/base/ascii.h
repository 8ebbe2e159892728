// ASCII-only character work for protocols, which are defined in ASCII whatever the process locale says.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

namespace tollgate {

constexpr char ascii_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}
constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
constexpr bool is_alpha(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool same_ignore_case(const char* a, const char* b, std::size_t size);  // eight bytes a step
constexpr bool equals_ignore_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  if (a.empty()) return true;
  if (ascii_lower(a.front()) != ascii_lower(b.front())) return false;  // tells most names apart
  if (!std::is_constant_evaluated()) return same_ignore_case(a.data(), b.data(), a.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    if (ascii_lower(a[i]) != ascii_lower(b[i])) return false;
  return true;
}
constexpr bool starts_with_ignore_case(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() && equals_ignore_case(text.substr(0, prefix.size()), prefix);
}
// Does text hold one of these few characters? One fast pass each, where find_first_of() looks every character up.
constexpr bool contains_any(std::string_view text, std::string_view characters) {
  for (char c : characters)
    if (text.find(c) != std::string_view::npos) return true;
  return false;
}
// Which of all bytes `is` holds for: a question asked of every byte of long text is then one look each.
template <class Predicate>
constexpr std::array<bool, 256> byte_table(Predicate is) {
  std::array<bool, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) table[byte] = is(static_cast<char>(byte));
  return table;
}
std::string to_lower(std::string_view text);
// The same into `to`, which has room for it; may be the text's own place.
void to_lower(std::string_view text, char* to);
// Without leading and trailing SP and HTAB (RFC 9110 OWS).
std::string_view trim(std::string_view text);
// Decimal digits only: no sign, no space, no overflow; anything else is nullopt.
std::optional<std::uint64_t> parse_decimal(std::string_view text);

// Value of a hexadecimal digit, or -1.
constexpr int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace tollgate
