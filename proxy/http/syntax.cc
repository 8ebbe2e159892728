#include "proxy/http/syntax.h"

#include <bit>

#include "metering/base/words.h"
#include "proxy/http/address.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace tollgate::http {
namespace {

constexpr std::array<std::uint8_t, 256> make_classes() {
  std::array<std::uint8_t, 256> classes{};
  for (int i = 0; i < 256; ++i) {
    const char c = static_cast<char>(i);
    unsigned bits = 0;
    const bool word = is_alpha(c) || is_digit(c);
    if (word || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos) bits |= kTokenChar;
    if (i > 0x20 && i < 0x7f && c != '#' && c != '%') bits |= kTargetChar;
    if (word || c == '-' || c == '.' || c == '_' || c == '~') bits |= kNameChar;
    classes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(bits);
  }
  return classes;
}

constexpr bool is_control(char c) {
  return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
}

std::size_t find_control_bytewise(std::string_view text, std::size_t from) {
  while (from < text.size() && !is_control(text[from])) ++from;
  return from;
}

bool is_valid_name(std::string_view name) {
  if (name.empty() || name.front() == '.' || name.find("..") != std::string_view::npos) return false;
  for (char c : name)
    if (!is_char(c, kNameChar)) return false;
  return true;
}

}  // namespace

constinit const std::array<std::uint8_t, 256> kCharClasses = make_classes();

bool is_token(std::string_view text) {
  return !text.empty() && find_token_end(text) == text.size();
}

std::size_t find_token_end(std::string_view text) {
  std::size_t at = 0;
#if defined(__SSE2__)
  const auto between = [](__m128i block, char low,
                          char high) {  // signed compares: bytes from 0x80 are below all
    return _mm_and_si128(_mm_cmpgt_epi8(block, _mm_set1_epi8(static_cast<char>(low - 1))),
                         _mm_cmplt_epi8(block, _mm_set1_epi8(static_cast<char>(high + 1))));
  };
  while (at + 16 <= text.size()) {
    const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text.data() + at));
    const __m128i letter = between(_mm_or_si128(block, _mm_set1_epi8(0x20)), 'a', 'z');
    const __m128i other = _mm_or_si128(between(block, '0', '9'), _mm_cmpeq_epi8(block, _mm_set1_epi8('-')));
    const unsigned plain = static_cast<unsigned>(_mm_movemask_epi8(_mm_or_si128(letter, other)));
    if (plain != 0xffff) {
      at += static_cast<std::size_t>(std::countr_one(plain));
      break;
    }
    at += 16;
  }
#endif
  while (at < text.size() && is_char(text[at], kTokenChar)) ++at;
  return at;
}

std::size_t find_control_portable(std::string_view text, std::size_t from) {
  while (from + 8 <= text.size()) {
    const auto word = load_word(text.data() + from);
    // A high bit is set for each byte below 0x20 or equal to 0x7f (borrows may add false ones above a true
    // one, never hide one). HTAB and false ones are sorted out byte by byte.
    if (((bytes_below(word, 0x20) | zero_bytes(word ^ (kEachByte * 0x7f))) & kHighBits) != 0) {
      for (std::size_t i = from; i < from + 8; ++i)
        if (is_control(text[i])) return i;
    }
    from += 8;
  }
  return find_control_bytewise(text, from);
}

std::size_t find_control(std::string_view text, std::size_t from) {
#if defined(__SSE2__)
  // One more than a byte is at most 0x20, as a signed number, for control bytes and DEL, and for bytes from 0x80,
  // which are rare: the one look that nearly every block gets.
  const __m128i one = _mm_set1_epi8(1), bound = _mm_set1_epi8(0x21);
  const auto hits = [&](std::size_t at) {
    const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text.data() + at));
    return static_cast<unsigned>(_mm_movemask_epi8(_mm_cmplt_epi8(_mm_add_epi8(block, one), bound)));
  };
  const auto first_of = [&](std::size_t at, unsigned mask) {  // text.size(): none of them is a control byte
    for (; mask != 0; mask &= mask - 1) {
      const std::size_t place = at + static_cast<std::size_t>(std::countr_zero(mask));
      if (is_control(text[place])) return place;
    }
    return text.size();
  };
  for (; from + 16 <= text.size(); from += 16) {
    const unsigned mask = hits(from);
    if (mask == 0) continue;
    if (const std::size_t place = first_of(from, mask); place != text.size()) return place;
  }
  if (text.size() >= 16 && from < text.size()) {  // the last 16 bytes, without those before `from`
    const std::size_t at = text.size() - 16;
    return first_of(from, hits(at) >> (from - at));
  }
#endif
  return find_control_portable(text, from);
}

Authority parse_authority(std::string_view text) {
  Authority authority;
  if (text.empty() || text.size() > 255) return authority;
  std::string_view rest;
  if (text.front() == '[') {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return authority;
    const std::string_view inside = text.substr(1, end - 1);
    if (inside.find(':') == std::string_view::npos || !parse_address(inside)) return authority;
    authority.host = text.substr(0, end + 1);
    rest = text.substr(end + 1);
  } else {
    const std::size_t colon = text.find(':');
    authority.host = text.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon);
    if (!is_valid_name(authority.host)) return authority;
  }
  if (rest.empty()) {
    authority.valid = true;
    return authority;
  }
  if (rest.front() != ':' || rest.size() > 6) return authority;
  authority.port = rest.substr(1);
  unsigned port = 0;
  for (char c : authority.port) {
    if (!is_digit(c)) return authority;
    port = port * 10 + static_cast<unsigned>(c - '0');
  }
  authority.valid = port <= 65'535;
  return authority;
}

}  // namespace tollgate::http
