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

}  // namespace

std::optional<JsonElement> JsonDocument::parse(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (text.empty()) return std::nullopt;
  simdjson::dom::element root;
  if (parser_.parse(text.data(), text.size(), true).get(root) != simdjson::SUCCESS) return std::nullopt;
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

std::optional<JsonObject> Member::object() const { return value ? as_object(*value) : std::nullopt; }

std::optional<JsonArray> Member::array() const {
  JsonArray out;
  if (!value || value->get(out) != simdjson::SUCCESS) return std::nullopt;
  return out;
}

std::optional<std::string_view> Member::text() const { return value ? as_text(*value) : std::nullopt; }

}  // namespace tollgate::catalogue
