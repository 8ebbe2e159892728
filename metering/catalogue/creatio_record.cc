// Which single records a request names: by a key, or by a filter that compares the key with ids.
#include "metering/catalogue/creatio_record.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/guid.h"
#include "metering/catalogue/creatio.h"

namespace tollgate::catalogue {
namespace {

constexpr std::string_view kKey = "Id";  // the primary column of every entity

}  // namespace

CreatioRecord read_creatio_record(std::string_view record) {
  const std::size_t slash = record.find('/');
  CreatioRecord out{record.substr(0, slash), {}, {}};
  if (slash == record.npos) return out;
  const std::string_view rest = record.substr(slash + 1);
  if (rest.starts_with('@'))
    out.owner = rest.substr(1);
  else if (rest != "/")
    out.id = rest;
  return out;
}

std::optional<std::string> read_creatio_owner(std::string_view body, std::string_view column) {
  JsonDocument document;
  const auto root = document.parse(body);
  const auto record = root ? as_object(*root) : std::nullopt;
  if (!record) return std::nullopt;
  const Member owner = member(*record, column);
  if (!owner || owner.repeated) return std::nullopt;
  if (owner.value->is_null()) return "";
  const auto text = owner.text();
  if (!text || !is_guid(*text)) return std::nullopt;
  return read_guid(*text).value_or("");
}

namespace creatio {
namespace {

// A piece of an OData expression: "Id", "eq", a literal without its quotes, ")". Other punctuation only parts them.
struct Token {
  enum class Kind : std::uint8_t { word, literal, closing };
  Kind kind;
  std::string_view text;

  bool is(std::string_view word) const { return kind == Kind::word && equals_ignore_case(text, word); }
};

std::vector<Token> tokens_of(std::string_view text) {
  constexpr std::string_view kBetween = " \t\r\n(),", kEnds = " \t\r\n(),'";
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < text.size();) {
    if (kBetween.find(text[i]) != kBetween.npos) {
      if (text[i] == ')') tokens.push_back({Token::Kind::closing, {}});
      ++i;
      continue;
    }
    const std::size_t end = std::min(text.find_first_of(kEnds, i), text.size());
    if (end < text.size() && text[end] == '\'') {  // '...' and guid'...'
      const std::size_t close = std::min(text.find('\'', end + 1), text.size());
      tokens.push_back({Token::Kind::literal, text.substr(end + 1, close - end - 1)});
      i = std::min(close + 1, text.size());
    } else {
      tokens.push_back({Token::Kind::word, text.substr(i, end - i)});
      i = end;
    }
  }
  return tokens;
}

// What a filter compares: the key, the owner's column, or something else.
enum class Side : std::uint8_t { other, key, owner };

// A value of an enumeration, which may be sent as a number, as digits or by its name.
struct EnumValue {
  std::int64_t number;
  std::string_view digits, name;

  bool is_in(const Member& member) const {
    std::int64_t sent = 0;
    if (member && member.value->get(sent) == simdjson::SUCCESS) return sent == number;
    const auto text = member.text();
    return text && (trim(*text) == digits || equals_ignore_case(trim(*text), name));
  }
};
constexpr EnumValue kEqual{3, "3", "equal"};  // comparisonType (CrtNUI: Terrasoft.ComparisonType)
constexpr EnumValue kPrimaryColumn{34, "34",
                                   "primarycolumn"};  // macrosType (CrtNUI: Terrasoft.QueryMacrosType)

// The id that a parameter holds: {"parameter":{"value":"5f3e.."}}, or of a look-up {"value":{"value":"5f3e.."}}.
std::optional<std::string> id_of(JsonObject expression) {
  Member held = member(expression, "parameter");
  for (int depth = 0; depth < 2 && held.object() && !held.repeated; ++depth) {
    held = member(*held.object(), "value");
    if (held.text() && !held.repeated) return read_guid(*held.text());
  }
  return std::nullopt;
}

}  // namespace

RecordNames::RecordNames(const Schema& schema, std::vector<ObjectUse>& uses, std::size_t at)
    : uses_(uses), at_(at), column_(schema.owner_column(uses[at].object)) {}

void RecordNames::add(std::string record) {
  if (named_ == kNamedMax) return;
  const std::string_view object = uses_[at_].object;
  record = ++named_ == kNamedMax ? fmt::format("{}//", object) : fmt::format("{}/{}", object, record);
  if (uses_[at_].record.empty()) {
    uses_[at_].record = std::move(record);
    return;
  }
  for (std::size_t i = at_; i < uses_.size(); ++i)
    if (uses_[i].record == record) return;
  ObjectUse another = uses_[at_];
  another.record = std::move(record);
  uses_.push_back(std::move(another));
}

void RecordNames::add_id(const std::optional<std::string>& id) {
  add(id.value_or("/"));
}

void RecordNames::read_key(std::string_view key) {
  key = trim(key);
  if (starts_with_ignore_case(key, kKey)) {  // Id=5f3e..
    const std::string_view rest = trim(key.substr(kKey.size()));
    if (rest.starts_with('=')) key = trim(rest.substr(1));
  }
  if (starts_with_ignore_case(key, "guid'")) key.remove_prefix(4);
  if (key.size() >= 2 && key.front() == '\'' && key.back() == '\'') key = key.substr(1, key.size() - 2);
  add_id(read_guid(key));
}

void RecordNames::read_query(std::string_view query) {
  QueryCursor cursor(query);
  while (cursor.next()) {
    std::string_view name = trim(cursor.name());
    if (name.starts_with('$')) name.remove_prefix(1);
    if (equals_ignore_case(name, "filter")) read_expression(cursor.value());
  }
}

void RecordNames::read_expression(std::string_view text) {
  const auto side_of = [&](std::string_view name) {
    if (name.starts_with("$it/")) name.remove_prefix(4);
    if (equals_ignore_case(name, kKey)) return Side::key;
    return is_owner_column(name, '/') ? Side::owner : Side::other;
  };
  const auto note = [&](Side column, std::string_view value) {
    const auto id = read_guid(value);
    if (column == Side::key) add_id(id);
    if (column == Side::owner && id) add("@" + *id);
  };
  const std::vector<Token> tokens = tokens_of(text);
  std::string_view left;  // the word before
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool equal = tokens[i].is("eq");
    if (!equal && !tokens[i].is("in")) {
      if (tokens[i].kind != Token::Kind::closing) left = tokens[i].text;
      continue;
    }
    const Side column = side_of(left);
    if (equal && i + 1 < tokens.size()) {
      const std::string_view right = tokens[i + 1].text;
      if (column != Side::other)
        note(column, right);
      else
        note(side_of(right), left);
    }
    for (std::size_t item = i + 1; !equal && item < tokens.size(); ++item) {
      if (tokens[item].kind == Token::Kind::closing) break;
      note(column, tokens[item].text);
    }
  }
}

bool RecordNames::is_owner_column(std::string_view path, char between) const {
  if (equals_ignore_case(path, *column_)) return true;
  const std::string_view lookup = std::string_view(*column_).substr(0, column_->size() - kKey.size());
  if (!column_->ends_with(kKey) || !starts_with_ignore_case(path, lookup)) return false;
  // PartnerId is Partner/Id of OData, and Partner or Partner.Id of DataService.
  const std::string_view rest = path.substr(lookup.size());
  if (rest.empty()) return between == '.';
  return rest.front() == between && equals_ignore_case(rest.substr(1), kKey);
}

void RecordNames::read_filters(JsonObject query) {
  if (const Member value = member(query, "primaryColumnValue"); value && !value.value->is_null())
    add_id(value.repeated ? std::nullopt : read_guid(value.text().value_or("")));
  for (const auto field : query)
    if (const auto filters = as_object(field.value); filters && same_key(field.key, "filters"))
      read_filter(*filters);
}

// A comparison, or a group of filters. The recursion is as deep as the JSON parser allows: 1024.
void RecordNames::read_filter(JsonObject filter) {
  const Member enabled = member(filter, "isEnabled");
  bool flag = true;
  if (enabled && !enabled.repeated && enabled.value->get(flag) == simdjson::SUCCESS && !flag) return;
  read_comparison(filter);
  for (const auto field : filter) {
    const auto items = as_object(field.value);
    if (!items || !same_key(field.key, "items")) continue;
    for (const auto item : *items)
      if (const auto inner = as_object(item.value)) read_filter(*inner);
  }
}

void RecordNames::read_comparison(JsonObject filter) {
  const Member type = member(filter, "comparisonType");
  if (!type.repeated && !kEqual.is_in(type)) return;
  Side column = Side::other;
  std::vector<std::optional<std::string>> values;
  const auto take = [&](JsonElement element) {
    const auto expression = as_object(element);
    if (!expression) return;
    const Member path = member(*expression, "columnPath"), macro = member(*expression, "macrosType");
    const bool key = kPrimaryColumn.is_in(macro) || (path.text() && equals_ignore_case(*path.text(), kKey));
    if (path.repeated || macro.repeated) values.emplace_back();  // which counts cannot be told
    if (key || path.repeated || macro.repeated)
      column = Side::key;
    else if (path.text() && is_owner_column(*path.text(), '.'))
      column = Side::owner;
    else
      values.push_back(id_of(*expression));
  };
  for (const auto field : filter) {
    if (same_key(field.key, "leftExpression") || same_key(field.key, "rightExpression")) take(field.value);
    JsonArray list;
    if (same_key(field.key, "rightExpressions") && field.value.get(list) == simdjson::SUCCESS)
      for (const JsonElement element : list) take(element);
  }
  if (column == Side::key && values.empty()) add_id(std::nullopt);
  for (const auto& value : values) {
    if (column == Side::key) add_id(value);
    if (column == Side::owner && value) add("@" + *value);
  }
}

}  // namespace creatio
}  // namespace tollgate::catalogue
