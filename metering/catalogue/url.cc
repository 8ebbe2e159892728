#include "metering/catalogue/url.h"

#include <simdjson.h>

#include "metering/base/ascii.h"

namespace tollgate::catalogue {
namespace {

bool is_hex_pair(std::string_view text, std::size_t at) {
  return at + 1 < text.size() && hex_value(text[at]) >= 0 && hex_value(text[at + 1]) >= 0;
}
char hex_pair(std::string_view text, std::size_t at) {
  return static_cast<char>(hex_value(text[at]) * 16 + hex_value(text[at + 1]));
}
std::unexpected<Error> refuse(const char* why) {
  return fail(Origin::client, why);
}

// A slash that belongs to a quoted key is kept apart from separators by this byte, which never survives decoding.
constexpr char kQuotedSlash = '\x01';

struct Decoded {
  std::string text;         // separators are '/', slashes inside quoted keys kQuotedSlash
  bool raw_quoted = false;  // a quoted slash was sent unencoded
  bool encoded_quoted = false;
  bool balanced = true;
  bool has_quote = false, non_ascii = false;
};

// Characters that stand for themselves wherever they are.
constexpr auto kPlainInPath = byte_table([](char c) {
  return is_alpha(c) || is_digit(c) || c == '-' || c == '_' || c == '.' || c == '~' || c == ',' || c == '=' ||
         c == '$';
});

Result<Decoded> decode(std::string_view raw) {
  Decoded out;
  out.text.reserve(raw.size());
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    const std::size_t plain_from = i;
    while (i < raw.size() && kPlainInPath[static_cast<unsigned char>(raw[i])]) ++i;
    out.text.append(raw.substr(plain_from, i - plain_from));
    if (i == raw.size()) break;
    char c = raw[i];
    bool encoded = c == '%';
    if (encoded) {
      if (!is_hex_pair(raw, i + 1))
        return refuse("the path has a '%' that is not followed by two hex digits");
      c = hex_pair(raw, i + 1);
      i += 2;
    }
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) return refuse("the path contains a control character");
    switch (c) {
      case '\\':
        return refuse("the path contains a backslash");
      case '#':
        if (!encoded) return refuse("the target contains a fragment");
        break;
      case ';':
        if (!encoded && !quoted) return refuse("the path contains ';' parameters");
        break;
      case '(':
        if (!quoted) ++depth;
        break;
      case ')':
        if (!quoted && depth > 0) --depth;
        break;
      case '\'':
        if (depth > 0) quoted = !quoted;
        break;
      case '/':
        if (quoted) {
          (encoded ? out.encoded_quoted : out.raw_quoted) = true;
          c = kQuotedSlash;
        } else if (encoded) {
          return refuse("the path contains an encoded slash");
        }
        break;
      default:
        out.non_ascii |= byte >= 0x80;
    }
    out.text.push_back(c);
  }
  out.balanced = !quoted && depth == 0;
  out.has_quote = out.raw_quoted || out.encoded_quoted;
  return out;
}

const char* check_decoded(std::string_view text, bool non_ascii) {
  for (std::size_t at = text.find('%'); at != text.npos; at = text.find('%', at + 1))
    if (is_hex_pair(text, at + 1) || (at + 1 < text.size() && ascii_lower(text[at + 1]) == 'u'))
      return "the path is percent-encoded twice";
  if (non_ascii && !simdjson::validate_utf8(text.data(), text.size())) return "the path is not valid UTF-8";
  return nullptr;
}

bool is_dots(std::string_view segment) {
  return segment == "." || segment == "..";
}

// A segment that other readers change: path parameters after dots, trailing dots or spaces (Windows file names),
// and dot segments hidden between the quotes of a key.
const char* check_segment(std::string_view segment) {
  if (segment.back() == '.' || segment.back() == ' ' || segment.front() == ' ')
    return "a path segment ends in '.' or has a space at its edge";
  if (std::size_t semicolon = segment.find(';');
      semicolon != segment.npos && is_dots(segment.substr(0, semicolon)))
    return "the path contains ';' parameters";
  for (std::size_t at = segment.find(kQuotedSlash); at != segment.npos;) {
    std::size_t end = segment.find(kQuotedSlash, at + 1);
    if (is_dots(segment.substr(at + 1, end == segment.npos ? end : end - at - 1)))
      return "a quoted key contains a dot segment";
    at = end;
  }
  return nullptr;
}

void set_lower(NormalPath& out) {
  // libstdc++ 12 says the new capacity where the standard says the asked-for size, when the string has to grow.
  out.lower.resize_and_overwrite(out.path.size(), [&](char* to, std::size_t) {
    to_lower(out.path, to);
    return out.path.size();
  });
}

// Splits text at '/', resolves dot segments and writes path, lower and spans.
Result<void> assemble(std::string_view text, bool has_quoted_slash, NormalPath& out) {
  std::array<std::string_view, kPathSegmentsMax> parts;
  std::size_t count = 0;
  for (std::size_t begin = 1; begin <= text.size();) {
    std::size_t end = std::min(text.find('/', begin), text.size());
    std::string_view segment = text.substr(begin, end - begin);
    begin = end + 1;
    if (segment.empty() || segment == ".") continue;
    if (segment == "..") {
      if (count == 0) return refuse("the path climbs above the root");
      if (has_quoted_slash) return refuse("the path mixes '..' with a slash inside a quoted key");
      --count;
      // Without it, what stands before and behind could be read as a key.
      if (contains_any(parts[count], "()'")) return refuse("the path removes a key by '..'");
      continue;
    }
    if (const char* why = check_segment(segment)) return refuse(why);
    if (count == kPathSegmentsMax) return refuse("the path has too many segments");
    parts[count++] = segment;
  }
  out.path.clear();
  out.path.reserve(text.size());
  out.count = count;
  for (std::size_t i = 0; i < count; ++i) {
    out.path.push_back('/');
    out.spans[i] = {static_cast<std::uint32_t>(out.path.size()), static_cast<std::uint32_t>(parts[i].size())};
    out.path.append(parts[i]);
  }
  if (count == 0) out.path.push_back('/');
  if (has_quoted_slash)
    for (char& c : out.path)
      if (c == kQuotedSlash) c = '/';
  set_lower(out);
  return {};
}

// A path that is its own reading, which nearly every one is: nothing to decode, to resolve or to refuse. False: ask the
// long way, which knows; `out` is as before but for its spans.
bool take_plain(std::string_view raw, NormalPath& out) {
  std::size_t count = 0, begin = 1;
  int depth = 0;
  bool quoted = false;
  const auto end_segment = [&](std::size_t end) {
    if (end == begin || raw[end - 1] == '.' || count == kPathSegmentsMax) return false;
    out.spans[count++] = {static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end - begin)};
    begin = end + 1;
    return true;
  };
  for (std::size_t i = 1; i < raw.size(); ++i) {
    const char c = raw[i];
    if (kPlainInPath[static_cast<unsigned char>(c)]) continue;
    if (c == '/') {
      if (quoted || !end_segment(i)) return false;
    } else if (c == '(') {
      if (!quoted) ++depth;
    } else if (c == ')') {
      if (!quoted && depth > 0) --depth;
    } else if (c == '\'') {
      if (depth > 0) quoted = !quoted;
    } else {
      return false;
    }
  }
  if (!end_segment(raw.size())) return false;
  out.count = count;
  out.path = raw;
  set_lower(out);
  return true;
}

// Decodes a query component. Returns raw itself when there is nothing to decode.
std::string_view decode_component(std::string_view raw, std::string& buffer) {
  if (!contains_any(raw, "%+")) return raw;
  buffer.clear();
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] == '+') {
      buffer.push_back(' ');
    } else if (raw[i] == '%' && is_hex_pair(raw, i + 1)) {
      buffer.push_back(hex_pair(raw, i + 1));
      i += 2;
    } else {
      buffer.push_back(raw[i]);
    }
  }
  return buffer;
}

}  // namespace

Result<void> normalise(std::string_view target, NormalPath& out) {
  if (target.empty() || target.front() != '/') return refuse("the target does not begin with '/'");
  if (target.size() > UINT32_MAX) return refuse("the target is too long");
  std::string_view raw = target;
  out.query = {};
  if (std::size_t mark = target.find('?'); mark != target.npos) {
    raw = target.substr(0, mark);
    out.query = target.substr(mark + 1);
    if (out.query.find('#') != out.query.npos) return refuse("the target contains a fragment");
  }
  if (take_plain(raw, out)) return {};
  auto decoded = decode(raw);
  if (!decoded) return std::unexpected(decoded.error());
  if (const char* why = check_decoded(decoded->text, decoded->non_ascii)) return refuse(why);
  if (!decoded->balanced && decoded->has_quote) {
    // The quote never closed, so it was no key: an apostrophe in a file name. Its slashes are separators after all,
    // which only holds when they were sent as such.
    if (decoded->encoded_quoted) return refuse("the path contains an encoded slash");
    for (char& c : decoded->text)
      if (c == kQuotedSlash) c = '/';
    decoded->has_quote = false;
  }
  return assemble(decoded->text, decoded->has_quote, out);
}

Result<NormalPath> normalise(std::string_view target) {
  Result<NormalPath> out(std::in_place);
  if (auto done = normalise(target, *out); !done) return std::unexpected(std::move(done.error()));
  return out;
}

void NormalPath::append_encoded(std::string& out, std::size_t first) const {
  static constexpr char kHex[] = "0123456789ABCDEF";
  static constexpr std::string_view kPlain = "-._~!$&'()*+,=:@";
  for (std::size_t i = first; i < count; ++i) {
    out.push_back('/');
    for (char c : segment(i)) {
      if (is_alpha(c) || is_digit(c) || kPlain.find(c) != kPlain.npos) {
        out.push_back(c);
      } else {
        auto byte = static_cast<unsigned char>(c);
        out.push_back('%');
        out.push_back(kHex[byte >> 4]);
        out.push_back(kHex[byte & 15]);
      }
    }
  }
}

std::string NormalPath::encoded() const {
  std::string out;
  append_encoded(out, 0);
  if (count == 0) out.push_back('/');
  if (!query.empty()) out.append("?").append(query);
  return out;
}

bool QueryCursor::next() {
  while (!rest_.empty()) {
    std::size_t end = std::min(rest_.find('&'), rest_.size());
    std::string_view pair = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    if (pair.empty()) continue;
    std::size_t equals = pair.find('=');
    name_ = decode_component(pair.substr(0, equals), name_buffer_);
    value_ =
        equals == pair.npos ? std::string_view() : decode_component(pair.substr(equals + 1), value_buffer_);
    return true;
  }
  return false;
}

QueryMatch find_parameter(std::string_view query, std::string_view name) {
  QueryMatch match;
  QueryCursor cursor(query);
  while (cursor.next()) {
    if (!equals_ignore_case(trim(cursor.name()), name)) continue;
    if (++match.count == 1) match.value = cursor.value();
  }
  return match;
}

}  // namespace tollgate::catalogue
