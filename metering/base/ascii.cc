#include "metering/base/ascii.h"

#include <algorithm>
#include <charconv>

#include "metering/base/words.h"

namespace tollgate {
namespace {

// Eight bytes at once: adding to the low seven bits of each carries into its high bit where the byte is beyond a bound.
std::uint64_t lower_word(std::uint64_t word) {
  const std::uint64_t low = word & ~kHighBits;
  const std::uint64_t from_a = low + kEachByte * (0x80 - 'A'), beyond_z = low + kEachByte * (0x7F - 'Z');
  return word | ((from_a & ~beyond_z & ~word & kHighBits) >> 2);
}

}  // namespace

std::string to_lower(std::string_view text) {
  std::string out(text);
  to_lower(out, out.data());
  return out;
}

void to_lower(std::string_view text, char* to) {
  std::size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) store_word(to + at, lower_word(load_word(text.data() + at)));
  for (; at < text.size(); ++at) to[at] = ascii_lower(text[at]);
}

bool same_ignore_case(const char* a, const char* b, std::size_t size) {
  if (size < 8) {
    for (std::size_t at = 0; at < size; ++at)
      if (ascii_lower(a[at]) != ascii_lower(b[at])) return false;
    return true;
  }
  // The last word may overlap the one before.
  for (std::size_t at = 0;; at = std::min(at + 8, size - 8)) {
    const std::uint64_t one = load_word(a + at), other = load_word(b + at);
    if (one != other && lower_word(one) != lower_word(other)) return false;
    if (at + 8 == size) return true;
  }
}

std::string_view trim(std::string_view text) {
  auto is_space = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::optional<std::uint64_t> parse_decimal(std::string_view text) {
  if (text.empty() || !is_digit(text.front())) return std::nullopt;
  std::uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace tollgate
