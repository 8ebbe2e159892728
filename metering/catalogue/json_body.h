// Inside the catalogue room: JSON bodies (RFC 8259) read so that no two parsers can disagree about the keys we use.
//
// CRM servers compare keys without case and keep the first or the last of two equal ones; JavaScript keeps case and
// the last. member() therefore finds a key in any case and says `repeated` when it occurs twice; a repeated key that
// matters is a rejection. Non-ASCII letters that some servers fold to ASCII (long s, dotless i, Kelvin sign) count as
// their ASCII letter.
#pragma once
#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

namespace tollgate::catalogue {

using JsonElement = simdjson::dom::element;
using JsonObject = simdjson::dom::object;
using JsonArray = simdjson::dom::array;

// One parsed text. Elements live as long as the document.
class JsonDocument {
 public:
  // Accepts a UTF-8 byte order mark. nullopt: not JSON (also: UTF-16, text after the value, depth over 1024). Half a
  // surrogate pair reads as U+FFFD, a whole number beyond 64 bits as 0.
  std::optional<JsonElement> parse(std::string_view text);

 private:
  simdjson::dom::parser parser_;
};

struct Member {
  std::optional<JsonElement> value;
  bool repeated = false;

  explicit operator bool() const { return value.has_value(); }
  std::optional<JsonObject> object() const;
  std::optional<JsonArray> array() const;
  std::optional<std::string_view> text() const;  // of a string
};

bool same_key(std::string_view sent, std::string_view key);  // key: ASCII
Member member(JsonObject object, std::string_view key);
std::optional<JsonObject> as_object(JsonElement element);
std::optional<std::string_view> as_text(JsonElement element);

}  // namespace tollgate::catalogue
