#include "config/schema.h"

#include <fmt/format.h>

#include "config/dump.h"
#include "config/keys.h"
#include "config/values.h"
#include "metering/base/json_text.h"

namespace tollgate::config {
namespace {

constexpr std::string_view kDurationPattern =
    "^(0|([1-9][0-9]*d)?([1-9][0-9]*h)?([1-9][0-9]*m)?([1-9][0-9]*s)?([1-9][0-9]*ms)?)$";
constexpr std::string_view kSizePattern = "^(0|[1-9][0-9]*)(KiB|MiB|GiB)?$";
// Any value may come from the environment, so every kind of value also accepts a text with a reference.
constexpr std::string_view kReferencePattern = "\\$\\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\\}";

std::string_view pattern_of(Format format) {
  switch (format) {
    case Format::server_url:
      return "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+/?$";
    case Format::web_url:
      return "^([Hh][Tt][Tt][Pp][Ss]?://.+)?$";
    case Format::store_url:
      return "^(embedded:.+|rediss?://.+|redis\\+unix://.+|rediss?\\+(sentinel|cluster)://.+)$";
    case Format::identifier:
      return "^[a-z0-9_-]{1,64}$";
    case Format::name:
      return "^[A-Za-z0-9_.-]{1,64}$";
    case Format::target:
      return "^(/.*)?$";
    case Format::statuses:
      return "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$";
    case Format::hash_key:
      return "^(user|ip|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$";
    case Format::path_prefix:
      return "^/";
    case Format::sent_prefix:
      return "^(/[A-Za-z0-9/_.~$,=:@-]*)?$";
    case Format::object_name:
      return "^[A-Za-z_][A-Za-z0-9_]*$";
    case Format::relation:
      return "^([A-Za-z_][A-Za-z0-9_]*|[*])[.][A-Za-z_][A-Za-z0-9_]*$";
    case Format::column_path:
      return "^([A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*)?$";
    case Format::uid:
      return "^(-*[0-9A-Fa-f]-*){32}$";
    default:
      return "";
  }
}

class SchemaWriter {
 public:
  std::string write() {
    Settings defaults;
    json_.object([&] {
      json_.field("$schema", "https://json-schema.org/draft/2020-12/schema");
      json_.field("title", "Tollgate configuration");
      group(describe(defaults));
    });
    return std::move(out_);
  }

 private:
  // Members of an object schema; the caller has opened the object.
  void group(const Fields& fields) {
    json_.field_array("type", [&] {
      json_.value("object");
      json_.value("null");
    });
    json_.field("additionalProperties", false);
    json_.field_object("properties", [&] {
      for (const Field& field : fields) {
        json_.field_object(field.name, [&] {
          json_.field("description", field.about);
          std::visit([this](const auto& value) { members(value); }, field.value);
          if (std::string text = value_text(field.value); !field.required && !text.empty()) {
            json_.key("default");
            json_.raw(text);
          }
        });
      }
    });
    bool any = false;
    for (const Field& field : fields) any = any || field.required;
    if (!any) return;
    json_.field_array("required", [&] {
      for (const Field& field : fields)
        if (field.required) json_.value(field.name);
    });
  }

  void reference_or(const std::function<void()>& other) {
    json_.field_array("anyOf", [&] {
      json_.object(other);
      json_.object([&] {
        json_.field("type", "string");
        json_.field("pattern", kReferencePattern);
      });
    });
  }
  void choices(const Names& names) {
    json_.field_array("enum", [&] {
      for (std::string_view name : names) json_.value(name);
    });
  }
  // YAML writes 1.2 as a number, and names of digits alone too: a text key takes both.
  void text(Format format, const Names& names, bool may_be_empty) {
    if (!names.empty()) {
      choices(names);
      return;
    }
    json_.field_array("type", [&] {
      json_.value("string");
      json_.value("number");
      json_.value("boolean");
    });
    if (!may_be_empty) json_.field("minLength", 1);
    if (std::string_view pattern = pattern_of(format); !pattern.empty()) json_.field("pattern", pattern);
  }

  void members(const Text& v) {
    if (v.choices == Names{"1.2", "1.3"}) {
      json_.key("enum");
      json_.raw(R"(["1.2","1.3",1.2,1.3])");
      return;
    }
    reference_or([&] { text(v.format, v.choices, v.may_be_empty); });
  }
  void list_of(const TextList& v) {
    json_.field("type", "array");
    if (v.items_min > 0) json_.field("minItems", v.items_min);
    json_.field("maxItems", v.items_max);
    json_.field("uniqueItems", true);
    json_.field_object("items", [&] { reference_or([&] { text(v.format, v.choices, false); }); });
  }
  void members(const TextList& v) {
    if (!v.single) return list_of(v);
    json_.field_array("anyOf", [&] {
      json_.object([&] { list_of(v); });
      json_.object([&] { reference_or([&] { text(v.format, v.choices, false); }); });
    });
  }
  void members(const Flag&) {
    reference_or([&] { json_.field("type", "boolean"); });
  }
  void number(std::uint64_t min, std::uint64_t max) {
    json_.field("type", "integer");
    json_.field("minimum", min);
    json_.field("maximum", max);
  }
  void members(const Number& v) {
    reference_or([&] { number(v.min, v.max); });
  }
  void members(const Size& v) {
    json_.field_array("anyOf", [&] {
      json_.object([&] { number(v.min, v.max); });
      json_.object([&] {
        json_.field("type", "string");
        json_.field("pattern", fmt::format("({})|({})", kSizePattern, kReferencePattern));
      });
    });
  }
  void members(const Span&) {
    json_.field_array("anyOf", [&] {
      json_.object([&] { json_.field("const", 0); });
      json_.object([&] {
        json_.field("type", "string");
        json_.field("minLength", 1);
        json_.field("pattern", fmt::format("({})|({})", kDurationPattern, kReferencePattern));
      });
    });
  }
  void members(const Choice& v) {
    reference_or([&] { choices(v.choices); });
  }
  void members(const Group& v) { group(v.fields); }
  void members(const OptionalGroup& v) { group(v.get()); }
  void members(const Items& v) {
    if (v.named) {
      json_.field("type", "object");
      json_.field("minProperties", v.items_min);
      json_.field_object("propertyNames", [&] { json_.field("pattern", pattern_of(Format::name)); });
      json_.field_object("additionalProperties", [&] { group(v.add("name")); });
      return;
    }
    json_.field_array("type", [&] {
      json_.value("array");
      if (v.items_min == 0) json_.value("null");
    });
    if (v.items_min > 0) json_.field("minItems", v.items_min);
    json_.field_object("items", [&] { group(v.add("")); });
  }
  template <class Member>
  void map(Member&& value) {
    json_.field_array("type", [&] {
      json_.value("object");
      json_.value("null");
    });
    json_.field_object("additionalProperties", value);
  }
  void members(const TextMap& v) {
    map([&] { text(v.value, {}, false); });
  }
  void members(const TextListMap& v) {
    map([&] { list_of(TextList{nullptr, v.value}); });
  }
  void members(const NumberMap& v) {
    map([&] { number(v.min, v.max); });
  }
  void members(const Effects&) {
    map([&] {
      json_.field("type", "array");
      json_.field_object("items", [&] {
        std::string object, operation;
        group({{"object", Text{&object, Format::object_name, {}, false}, "Entity that the process touches.",
                true},
               {"operation", Text{&operation, Format::any, operation_names(), false}, "What it does to it.",
                true}});
      });
    });
  }

  std::string out_;
  JsonWriter json_{out_};
};

// Line breaks and two spaces a level; the input is valid JSON.
std::string indented(std::string_view json) {
  std::string out;
  std::size_t level = 0;
  bool in_text = false;
  auto line = [&] { out.append(1, '\n').append(level * 2, ' '); };
  for (std::size_t i = 0; i < json.size(); ++i) {
    char c = json[i];
    if (in_text) {
      out.push_back(c);
      if (c == '\\')
        out.push_back(json[++i]);
      else if (c == '"')
        in_text = false;
      continue;
    }
    bool empty = i + 1 < json.size() && (json[i + 1] == '}' || json[i + 1] == ']');
    if (c == '"') in_text = true;
    if (c == ' ') continue;
    if (c == '}' || c == ']') {
      bool was_empty = out.back() == '{' || out.back() == '[';
      --level;
      if (!was_empty) line();
    }
    out.push_back(c);
    if (c == '{' || c == '[') {
      ++level;
      if (!empty) line();
    } else if (c == ',') {
      line();
    } else if (c == ':') {
      out.push_back(' ');
    }
  }
  out.push_back('\n');
  return out;
}

// ---- docs/configuration.md

std::string type_text(const Value& value) {
  struct Type {
    std::string operator()(const Text& v) const {
      if (v.choices.empty()) return "text";
      return fmt::format("one of `{}`", fmt::join(v.choices, "`, `"));
    }
    std::string operator()(const TextList& v) const {
      if (v.choices.empty()) return "list of text";
      return fmt::format("list of `{}`", fmt::join(v.choices, "`, `"));
    }
    std::string operator()(const Flag&) const { return "`true` or `false`"; }
    std::string operator()(const Number& v) const {
      return v.min == v.max ? fmt::format("{}", v.min) : fmt::format("number, {} .. {}", v.min, v.max);
    }
    std::string operator()(const Size& v) const {
      return fmt::format("size, {} .. {}", size_text(v.min), size_text(v.max));
    }
    std::string operator()(const Span& v) const {
      return fmt::format("duration, {} .. {}", duration_text(v.min), duration_text(v.max));
    }
    std::string operator()(const Choice& v) const {
      return fmt::format("one of `{}`", fmt::join(v.choices, "`, `"));
    }
    std::string operator()(const Group&) const { return "group"; }
    std::string operator()(const OptionalGroup&) const { return "group"; }
    std::string operator()(const Items& v) const { return v.named ? "map of groups" : "list of groups"; }
    std::string operator()(const TextMap&) const { return "map"; }
    std::string operator()(const TextListMap&) const { return "map of lists"; }
    std::string operator()(const NumberMap&) const { return "map of numbers"; }
    std::string operator()(const Effects&) const { return "map of lists"; }
  };
  return std::visit(Type{}, value);
}

void write_rows(const Fields& fields, const std::string& prefix, std::string& out) {
  for (const Field& field : fields) {
    std::string path = prefix + std::string(field.name);
    std::string fallback = value_text(field.value);
    if (field.required)
      fallback = "required";
    else if (!fallback.empty())
      fallback = "`" + fallback + "`";
    out += fmt::format("| `{}` | {} | {} | {} |\n", path, type_text(field.value), fallback, field.about);
    if (const auto* group = std::get_if<Group>(&field.value)) write_rows(group->fields, path + ".", out);
    if (const auto* group = std::get_if<OptionalGroup>(&field.value))
      write_rows(group->get(), path + ".", out);
    if (const auto* items = std::get_if<Items>(&field.value))
      write_rows(items->add(""), path + (items->named ? ".<name>." : "[]."), out);
  }
}

constexpr std::string_view kIntroduction = R"(# Configuration

<!-- Made by `tollgate schema --markdown` from config/keys.cc; a test compares them. -->

One YAML file, read at start and at SIGHUP. `tollgate check -c FILE` shows every mistake at once, each with line and
column; `tollgate check -c FILE --dump` shows every key with its value and where the value comes from. A file with
mistakes never replaces the running configuration. Examples are in `config/examples/`.

- **Paths** are relative to the folder of the file.
- **Durations**: `250ms`, `10s`, `5m`, `24h`, `31d`, or several with falling units: `1h30m`. **Sizes**: `512`, `64KiB`,
  `8MiB`, `1GiB`.
- **Secrets** stand in files of their own (`*_file` keys) or in the environment, never in the configuration.
- **`${NAME}`** in a value is replaced by the environment variable; `${NAME:-fallback}` by the fallback when the variable
  is unset or empty; `$${` is a literal `${`. A variable that is not set is an error.
- **`TOLLGATE_STORE__URL`** in the environment wins over `store.url` in the file, and so on for every key: two underscores
  between the levels, entries of a list by number from 0 (`TOLLGATE_LISTENERS__0__ADDRESS`), names of a map as they are
  in the file, in any case (`TOLLGATE_UPSTREAMS__CRM__SERVERS`). Lists may be written with commas, or as `[a, b]`.
- Anchors, aliases, tags and a second document are refused; a key may stand in its place once.
- For completion in an editor, write the schema to a file with `tollgate schema > tollgate.schema.json` and begin the
  configuration with `# yaml-language-server: $schema=tollgate.schema.json`.

`[]` stands for an entry of a list, `<name>` for a name of your choice.

| key | value | default | meaning |
|---|---|---|---|
)";

}  // namespace

std::string json_schema() {
  return indented(SchemaWriter().write());
}

std::string reference_markdown() {
  Settings defaults;
  std::string out(kIntroduction);
  write_rows(describe(defaults), "", out);
  return out;
}

}  // namespace tollgate::config
