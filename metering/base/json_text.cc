#include "metering/base/json_text.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "metering/base/words.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace tollgate {
namespace {

// Length of the UTF-8 sequence at text[0], or 0 when it is not valid (RFC 3629: no overlong forms, no surrogates).
std::size_t utf8_length(std::string_view text) {
  auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  auto continues = [&](std::size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if ((lead & 0xF0) == 0xE0) {
    if (!continues(1) || !continues(2)) return 0;
    if (lead == 0xE0 && byte(1) < 0xA0) return 0;
    if (lead == 0xED && byte(1) > 0x9F) return 0;
    return 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (lead == 0xF0 && byte(1) < 0x90) return 0;
    if (lead == 0xF4 && byte(1) > 0x8F) return 0;
    return 4;
  }
  return 0;
}

// Bytes that stand for themselves in a JSON string.
constexpr bool is_plain(unsigned char c) {
  return c >= 0x20 && c < 0x7F && c != '"' && c != '\\';
}

// High bits where a byte of `word` is none of them, perhaps with false ones above a true one.
std::uint64_t not_plain(std::uint64_t word) {
  return (word | bytes_below(word, 0x20) | zero_bytes(word ^ (kEachByte * '"')) |
          zero_bytes(word ^ (kEachByte * '\\')) | zero_bytes(word ^ (kEachByte * 0x7F))) &
         kHighBits;
}

// Where the first other one is.
std::size_t plain_length(std::string_view text) {
  std::size_t at = 0;
  while (at + 8 <= text.size() && not_plain(load_word(text.data() + at)) == 0) at += 8;
  while (at < text.size() && is_plain(static_cast<unsigned char>(text[at]))) ++at;
  return at;
}

// Copies text; is all of it plain? The end is taken as a whole word once more, which may overlap.
bool copy_plain(std::string_view text, char* to) {
  const char* from = text.data();
  const std::size_t size = text.size();
  std::uint64_t other = 0;
  const auto step = [&](std::size_t at) {
    const auto word = load_word(from + at);
    store_word(to + at, word);
    other |= not_plain(word);
  };
  if (size < 4) {
    for (std::size_t at = 0; at < size; ++at) {
      to[at] = from[at];
      if (!is_plain(static_cast<unsigned char>(from[at]))) other = 1;
    }
    return other == 0;
  }
  if (size < 8) {
    const auto first = load_word<std::uint32_t>(from), last = load_word<std::uint32_t>(from + size - 4);
    store_word(to, first);
    store_word(to + size - 4, last);
    return not_plain(std::uint64_t{last} << 32 | first) == 0;
  }
  std::size_t at = 0;
#if defined(__SSE2__)
  __m128i odd = _mm_setzero_si128();
  for (; at + 16 <= size; at += 16) {
    const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + at), block);
    // As signed numbers the bytes from 0x80 are below all others.
    odd = _mm_or_si128(odd, _mm_or_si128(_mm_cmplt_epi8(block, _mm_set1_epi8(0x20)),
                                         _mm_cmpeq_epi8(block, _mm_set1_epi8(0x7F))));
    odd = _mm_or_si128(odd, _mm_or_si128(_mm_cmpeq_epi8(block, _mm_set1_epi8('"')),
                                         _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'))));
  }
  other = static_cast<unsigned>(_mm_movemask_epi8(odd));
#endif
  for (; at + 8 <= size; at += 8) step(at);
  if (at < size) step(size - 8);
  return other == 0;
}

void append_escaped(std::string& out, std::string_view text) {
  out.push_back('"');
  std::size_t i = 0;
  while (i < text.size()) {
    const std::size_t plain = plain_length(text.substr(i));
    out.append(text.substr(i, plain));
    i += plain;
    if (i == text.size()) break;
    auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      std::size_t length = utf8_length(text.substr(i));
      if (length == 0) {
        out.append("\\ufffd");
        ++i;
      } else {
        out.append(text.substr(i, length));
        i += length;
      }
      continue;
    }
    switch (c) {
      case '"':
        out.append("\\\"");
        break;
      case '\\':
        out.append("\\\\");
        break;
      case '\n':
        out.append("\\n");
        break;
      case '\r':
        out.append("\\r");
        break;
      case '\t':
        out.append("\\t");
        break;
      default:
        fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
    }
    ++i;
  }
  out.push_back('"');
}

}  // namespace

char* write_json_string(char* to, std::string_view text) {
  if (!copy_plain(text, to + 1)) {
    std::string escaped;
    append_escaped(escaped, text);
    std::memcpy(to, escaped.data(), escaped.size());
    return to + escaped.size();
  }
  *to = to[1 + text.size()] = '"';
  return to + 2 + text.size();
}

void append_json_string(std::string& out, std::string_view text) {
  Appender to(out);
  put_json_string(to, text);
}

// Nearly every text stands for itself: copied and looked at in one go, and written anew where it does not.
void put_json_string(Appender& to, std::string_view text) {
  char* const at = to.room(2 + text.size());
  if (copy_plain(text, at + 1)) {
    *at = at[1 + text.size()] = '"';
    to.advance_to(at + 2 + text.size());
  } else {
    std::string escaped;
    append_escaped(escaped, text);
    to.text(escaped);
  }
}

void JsonWriter::value(double number) {
  if (!std::isfinite(number)) return null();
  raw(fmt::format("{}", number));
}

}  // namespace tollgate
