#include "metering/catalogue/json_body.h"

#include "metering/base/ascii.h"

namespace tollgate::catalogue {
namespace {

// Replaces the non-ASCII letters that case folding maps to ASCII ones.
std::string fold(std::string_view text) {
  struct Folding {
    std::string_view sent;
    char letter;
  };
  static constexpr Folding kFoldings[] = {
      {"\xC5\xBF", 's'}, {"\xC4\xB1", 'i'}, {"\xC4\xB0", 'i'}, {"\xE2\x84\xAA", 'k'}};
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    bool folded = false;
    for (const Folding& f : kFoldings) {
      if (!text.substr(i).starts_with(f.sent)) continue;
      out.push_back(f.letter);
      i += f.sent.size();
      folded = true;
      break;
    }
    if (!folded) out.push_back(text[i++]);
  }
  return out;
}

// The code unit of \uXXXX at `at`, or -1.
int escaped_unit(std::string_view text, std::size_t at) {
  if (at + 6 > text.size() || text[at] != '\\' || text[at + 1] != 'u') return -1;
  int unit = 0;
  for (std::size_t i = at + 2; i < at + 6; ++i) {
    int digit = hex_value(text[i]);
    if (digit < 0) return -1;
    unit = unit * 16 + digit;
  }
  return unit;
}
bool is_number_char(char c) {
  return is_digit(c) || std::string_view("+-.eE").find(c) != std::string_view::npos;
}
bool is_high(int unit) {
  return unit >= 0xD800 && unit < 0xDC00;
}
bool is_low(int unit) {
  return unit >= 0xDC00 && unit < 0xE000;
}

// Appends the escape at `at` and returns its length: half a surrogate pair becomes U+FFFD.
std::size_t copy_escape(std::string_view text, std::size_t at, std::string& out) {
  int unit = escaped_unit(text, at);
  std::size_t length = unit < 0 ? 2 : 6;
  if (is_high(unit) && is_low(escaped_unit(text, at + 6))) length = 12;
  if (length == 6 && (is_high(unit) || is_low(unit)))
    out.append("\\uFFFD");
  else
    out.append(text.substr(at, length));
  return length;
}

// The same text for a parser that knows neither half a surrogate pair (JavaScript writes one when it cuts a text inside
// an emoji) nor whole numbers of more than 64 bits: RFC 8259 sections 7 and 6 allow both. Such a number becomes 0; the
// catalogue reads no number that large.
std::string simplified(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool quoted = false;
  for (std::size_t i = 0; i < text.size();) {
    if (quoted && text[i] == '\\') {
      i += copy_escape(text, i, out);
      continue;
    }
    quoted ^= text[i] == '"';
    if (!quoted && is_digit(text[i])) {
      std::size_t end = i;
      bool whole = true;
      for (; end < text.size() && is_number_char(text[end]); ++end) whole = whole && is_digit(text[end]);
      bool large = whole && end - i > 18 && text[i] != '0';
      out.append(large ? std::string_view("0") : text.substr(i, end - i));
      i = end;
      continue;
    }
    out.push_back(text[i++]);
  }
  return out;
}

}  // namespace

std::optional<JsonElement> JsonDocument::parse(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (text.empty()) return std::nullopt;
  simdjson::dom::element root;
  auto error = parser_.parse(text.data(), text.size(), true).get(root);
  if (error == simdjson::STRING_ERROR || error == simdjson::NUMBER_ERROR) {
    const std::string simple = simplified(text);
    error = parser_.parse(simple.data(), simple.size(), true).get(root);
  }
  if (error != simdjson::SUCCESS) return std::nullopt;
  return root;
}

bool same_key(std::string_view sent, std::string_view key) {
  if (equals_ignore_case(sent, key)) return true;
  for (char c : sent)
    if (static_cast<unsigned char>(c) >= 0x80) return equals_ignore_case(fold(sent), key);
  return false;
}

Member member(JsonObject object, std::string_view key) {
  Member found;
  for (auto field : object) {
    if (!same_key(field.key, key)) continue;
    if (found.value) {
      found.repeated = true;
      break;
    }
    found.value = field.value;
  }
  return found;
}

std::optional<JsonObject> as_object(JsonElement element) {
  JsonObject out;
  if (element.get(out) != simdjson::SUCCESS) return std::nullopt;
  return out;
}

std::optional<std::string_view> as_text(JsonElement element) {
  std::string_view out;
  if (element.get(out) != simdjson::SUCCESS) return std::nullopt;
  return out;
}

std::optional<JsonObject> Member::object() const {
  return value ? as_object(*value) : std::nullopt;
}

std::optional<JsonArray> Member::array() const {
  JsonArray out;
  if (!value || value->get(out) != simdjson::SUCCESS) return std::nullopt;
  return out;
}

std::optional<std::string_view> Member::text() const {
  return value ? as_text(*value) : std::nullopt;
}

}  // namespace tollgate::catalogue
