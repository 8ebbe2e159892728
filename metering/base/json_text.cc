#include "metering/base/json_text.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "metering/base/words.h"

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

// Sixteen bytes, looked at as one.
using Block = signed char __attribute__((vector_size(16)));
using Words = std::uint64_t __attribute__((vector_size(16)));

Block load_block(const char* from) {
  Block block;
  std::memcpy(&block, from, sizeof block);
  return block;
}

// Not zero where a byte is not plain. As signed numbers the bytes from 0x80 are below all others.
Words not_plain(Block block) {
  return reinterpret_cast<Words>((block < 0x20) | (block == 0x7F) | (block == '"') | (block == '\\'));
}

bool any(Words words) {
  return (words[0] | words[1]) != 0;
}

// The plain bytes that the text begins with.
std::size_t plain_length(std::string_view text) {
  std::size_t at = 0;
  while (at + sizeof(Block) <= text.size() && !any(not_plain(load_block(text.data() + at))))
    at += sizeof(Block);
  while (at < text.size() && is_plain(static_cast<unsigned char>(text[at]))) ++at;
  return at;
}

// Copies text; is all of it plain? The end is taken as a whole block or word once more, which may overlap.
bool copy_plain(std::string_view text, char* to) {
  const char* const from = text.data();
  const std::size_t size = text.size();
  if (size >= sizeof(Block)) {
    Words other{};
    const auto step = [&](std::size_t at) {
      const Block block = load_block(from + at);
      std::memcpy(to + at, &block, sizeof block);
      other |= not_plain(block);
    };
    for (std::size_t at = 0; at + sizeof(Block) < size; at += sizeof(Block)) step(at);
    step(size - sizeof(Block));
    return !any(other);
  }
  if (size >= 8) {
    const auto first = load_word(from), last = load_word(from + size - 8);
    store_word(to, first);
    store_word(to + size - 8, last);
    return !any(not_plain(reinterpret_cast<Block>(Words{first, last})));
  }
  if (size >= 4) {
    const auto first = load_word<std::uint32_t>(from), last = load_word<std::uint32_t>(from + size - 4);
    store_word(to, first);
    store_word(to + size - 4, last);
    const std::uint64_t both = std::uint64_t{last} << 32 | first;
    return !any(not_plain(reinterpret_cast<Block>(Words{both, both})));
  }
  bool plain = true;
  for (std::size_t at = 0; at < size; ++at) {
    to[at] = from[at];
    plain &= is_plain(static_cast<unsigned char>(from[at]));
  }
  return plain;
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

void JsonWriter::plain_key(std::string_view name) {
  char* at = to_->room(name.size() + 4);
  if (!first_) *at++ = ',';
  *at++ = '"';
  at = Appender::put(at, name);
  *at++ = '"';
  *at++ = ':';
  to_->advance_to(at);
  first_ = true;
}

void JsonWriter::value(double number) {
  if (!std::isfinite(number)) return null();
  raw(fmt::format("{}", number));
}

}  // namespace tollgate
