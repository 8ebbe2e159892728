// The table of every configuration key, written once: name, place in Settings, kind of value, permitted
// range, meaning. The parser, the JSON Schema, docs/configuration.md and `check --dump` are four walks over
// this table; the defaults are those of settings.h, read from a fresh Settings. A new key is a member in
// settings.h and a line in keys.cc.
//
//   Settings settings;
//   for (const Field& field : describe(settings)) ...   // field.value points into `settings`
//
// The pointers live as long as the Settings they were made from, and those into a list only until it grows.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "config/settings.h"

namespace tollgate::config {

// What a text has to look like.
enum class Format : std::uint8_t {
  any,
  input_file,      // must exist and be readable; its content is loaded
  output_file,     // "-" is standard output, "" is off
  directory,       // written to
  listen_address,  // 127.0.0.1:8080, [::1]:8080, localhost:8080 (becomes 127.0.0.1:8080); "" only where
                   // allowed
  server_url,      // http://host:port or https://host:port, nothing after it
  web_url,         // http(s)://...
  store_url,
  network,      // CIDR: 10.0.0.0/8, fd00::/8, 192.0.2.7
  identifier,   // [a-z0-9_-]+, at most 64
  name,         // [A-Za-z0-9_.-]+, at most 64
  header_name,  // token of RFC 9110 section 5.6.2
  cookie_name,  // the same
  host_name,    // without port
  path_prefix,  // begins with "/"
  sent_prefix,  // a path_prefix that is written into requests; "" only where allowed
  target,       // of a request: /health?full=1; "" only where allowed
  statuses,     // 200 or 200-399
  hash_key,     // user, ip or header:NAME
  uid,          // 32 hexadecimal digits, dashes allowed
  object_name,  // entity of the CRM: [A-Za-z_][A-Za-z0-9_]*; "" only where allowed
  relation,     // a column of an entity, Object.Column, or of every one, *.Column
  column_path,  // columns of the CRM, each an object_name, with slashes between them; "" only where allowed
};

using Names = std::vector<std::string_view>;  // literals

struct Field;
using Fields = std::vector<Field>;

struct Text {
  std::string* target = nullptr;
  Format format = Format::any;
  Names choices{};  // not empty: one of these
  bool may_be_empty = true;
};
struct TextList {
  std::vector<std::string>* target = nullptr;
  Format format = Format::any;
  Names choices{};
  std::size_t items_min = 0, items_max = 10'000;
  bool single = false;  // one text instead of a list is fine too
};
struct Flag {
  bool* target = nullptr;
};
struct Number {
  std::variant<int*, std::uint32_t*, std::uint64_t*> target{static_cast<int*>(nullptr)};
  std::uint64_t min = 0, max = 0;
};
struct Size {
  std::uint64_t* target = nullptr;  // bytes
  std::uint64_t min = 0, max = 0;
};
struct Span {
  Milliseconds* target = nullptr;
  Milliseconds min{0}, max{0};
};
struct Choice {  // an enumeration: the index into `choices` is its value
  std::function<std::size_t()> get;
  std::function<void(std::size_t)> set;
  Names choices;
};
struct Group {
  Fields fields;
};
struct OptionalGroup {  // a group whose presence means something (listeners[].tls)
  std::function<bool()> present;
  std::function<Fields()> get;  // creates it when it is not there
};
struct Items {  // a list of groups, or with `named` a map from name to group
  bool named = false;
  std::size_t items_min = 0;
  std::function<std::size_t()> count;
  std::function<Fields(std::size_t)> at;
  std::function<std::string(std::size_t)> name_of;     // named only
  std::function<Fields(const std::string& name)> add;  // name is ignored unless named
};
struct TextMap {
  std::map<std::string, std::string>* target = nullptr;
  Format key = Format::any, value = Format::any;
};
struct TextListMap {
  std::map<std::string, std::vector<std::string>>* target = nullptr;
  Format key = Format::any, value = Format::any;
};
struct NumberMap {
  std::map<std::string, std::uint64_t>* target = nullptr;
  std::uint64_t min = 0, max = 0;
  Format key = Format::any;
};
struct Effects {  // process -> list of {object, operation}
  std::map<std::string, std::vector<std::pair<std::string, std::string>>>* target = nullptr;
};

using Value = std::variant<Text, TextList, Flag, Number, Size, Span, Choice, Group, OptionalGroup, Items,
                           TextMap, TextListMap, NumberMap, Effects>;

struct Field {
  std::string_view name;
  Value value;
  std::string_view about;  // one or two sentences for the manual and for editors
  bool required = false;
};

Fields describe(Settings& settings);

// Every key with the way to it: "store.url", "listeners[].tls.key_file", "upstreams.<name>.servers". In file
// order.
std::vector<std::string> key_paths();

// Largest limit and override: what a double still holds exactly, because the store counts in doubles.
inline constexpr std::uint64_t kUnitsMax = 9'007'199'254'740'991;

// Names that values may have; the same lists serve the suggestions.
const Names& algorithm_names();  // RFC 7518 section 3.1, RFC 8037
const Names& session_names();
const Names& dialect_names();
const Names& system_names();
const Names& retry_names();
const Names& dimension_names();
const Names& operation_names();

}  // namespace tollgate::config
