// Characters and small grammars of HTTP (RFC 9110 section 5.6, RFC 9112), shared by the parsers of this room.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "metering/base/ascii.h"

namespace tollgate::http {

enum CharClass : std::uint8_t {
  kTokenChar = 1,   // tchar: names, methods
  kTargetChar = 2,  // printable ASCII but '#' (fragment) and '%' (checked on its own)
  kNameChar = 4,    // host names: letters, digits, - . _ ~
};
extern const std::array<std::uint8_t, 256> kCharClasses;
inline bool is_char(char c, CharClass wanted) {
  return (kCharClasses[static_cast<unsigned char>(c)] & wanted) != 0;
}
bool is_token(std::string_view text);  // one or more tchar

// Offset of the first byte that is no tchar; text.size() when there is none. Letters, digits and '-' are
// passed 16 at a time on x86-64; never reads outside `text`.
std::size_t find_token_end(std::string_view text);

// Offset of the first byte in [from, text.size()) that may not stand inside a line: below 0x20 but HTAB, or
// 0x7f. text.size() when there is none. 16 bytes a step on x86-64, 8 elsewhere; never reads outside `text`.
std::size_t find_control(std::string_view text, std::size_t from);
std::size_t find_control_portable(std::string_view text, std::size_t from);  // the 8-byte form, for tests

// Host and authority: name | IPv4 | "[" IPv6 "]", optionally ":" port. Stricter than RFC 3986: no userinfo,
// no percent-encoding, no sub-delims (comma!), no empty label but a final one; at most 255 bytes; port empty
// or 0..65535.
struct Authority {
  bool valid = false;
  std::string_view host;  // without port, brackets kept
  std::string_view port;  // digits; empty when absent
};
Authority parse_authority(std::string_view text);

// Calls visit(element) for each non-empty element of a comma separated list, trimmed of OWS; quotes are not
// looked at. visit returns false to stop; the answer is false then.
template <class Visit>
bool for_each_element(std::string_view list, Visit&& visit) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    const std::string_view element = trim(list.substr(0, comma));
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
    if (!element.empty() && !visit(element)) return false;
  }
  return true;
}

}  // namespace tollgate::http
