#include "config/dump.h"

#include <fmt/format.h>

#include "config/values.h"
#include "metering/base/json_text.h"

namespace tollgate::config {
namespace {

std::string quoted(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

// "${" in a value that is written back is not a reference.
std::string written(std::string_view text, bool escape) {
  std::string out(text);
  if (escape)
    for (std::size_t at = out.find("${"); at != std::string::npos; at = out.find("${", at + 3))
      out.insert(at, "$");
  return quoted(out);
}

// One value as JSON. Groups and lists of groups are walked by the writers below.
struct ValueText {
  bool escape = false;

  std::string operator()(const Text& v) const {
    if (v.format == Format::store_url) return written(redact_url(*v.target), escape);
    return written(*v.target, escape);
  }
  std::string list(const std::vector<std::string>& values) const {
    std::vector<std::string> texts;
    for (const std::string& value : values) texts.push_back(written(value, escape));
    return fmt::format("[{}]", fmt::join(texts, ", "));
  }
  std::string operator()(const TextList& v) const { return list(*v.target); }
  std::string operator()(const Flag& v) const { return *v.target ? "true" : "false"; }
  std::string operator()(const Number& v) const {
    return std::visit([](const auto* target) { return std::to_string(*target); }, v.target);
  }
  std::string operator()(const Size& v) const { return quoted(size_text(*v.target)); }
  std::string operator()(const Span& v) const { return quoted(duration_text(*v.target)); }
  std::string operator()(const Choice& v) const { return quoted(v.choices[v.get()]); }
  std::string operator()(const TextMap& v) const {
    std::vector<std::string> entries;
    for (const auto& [key, value] : *v.target) entries.push_back(quoted(key) + ": " + written(value, escape));
    return fmt::format("{{{}}}", fmt::join(entries, ", "));
  }
  std::string operator()(const TextListMap& v) const {
    std::vector<std::string> entries;
    for (const auto& [key, values] : *v.target) entries.push_back(quoted(key) + ": " + list(values));
    return fmt::format("{{{}}}", fmt::join(entries, ", "));
  }
  std::string operator()(const NumberMap& v) const {
    std::vector<std::string> entries;
    for (const auto& [key, value] : *v.target) entries.push_back(fmt::format("{}: {}", quoted(key), value));
    return fmt::format("{{{}}}", fmt::join(entries, ", "));
  }
  std::string operator()(const Effects& v) const {
    std::vector<std::string> entries;
    for (const auto& [process, effects] : *v.target) {
      std::vector<std::string> list;
      for (const auto& [object, operation] : effects)
        list.push_back(
            fmt::format("{{\"object\": {}, \"operation\": {}}}", quoted(object), quoted(operation)));
      entries.push_back(fmt::format("{}: [{}]", quoted(process), fmt::join(list, ", ")));
    }
    return fmt::format("{{{}}}", fmt::join(entries, ", "));
  }
  std::string operator()(const Group&) const { return ""; }
  std::string operator()(const OptionalGroup&) const { return ""; }
  std::string operator()(const Items&) const { return ""; }
};

// An empty text of a key with choices or a fixed format is written too: it reads back as empty.
class YamlWriter {
 public:
  explicit YamlWriter(const Positions& positions) : positions_(positions) {}

  void write(const Fields& fields, const std::string& path, std::string indent) {
    for (const Field& field : fields) {
      std::string field_path =
          path.empty() ? std::string(field.name) : fmt::format("{}.{}", path, field.name);
      std::string start = fmt::format("{}{}:", indent, field.name);
      std::string deeper(indent.size() + 2, ' ');
      if (const auto* group = std::get_if<Group>(&field.value)) {
        out_ += start + "\n";
        write(group->fields, field_path, deeper);
      } else if (const auto* optional = std::get_if<OptionalGroup>(&field.value)) {
        if (!optional->present()) continue;
        out_ += start + "\n";
        write(optional->get(), field_path, deeper);
      } else if (const auto* items = std::get_if<Items>(&field.value)) {
        write_items(*items, field_path, start, deeper);
      } else {
        out_ += fmt::format("{} {}{}\n", start, std::visit(ValueText{true}, field.value), origin(field_path));
      }
      // Only the first line of a list entry carries the dash.
      indent.assign(indent.size(), ' ');
    }
  }
  std::string take() { return std::move(out_); }

 private:
  void write_items(const Items& items, const std::string& path, const std::string& start,
                   const std::string& deeper) {
    if (items.count() == 0) {
      // Where an entry is required the empty list would be an error; without the key it reads back the same.
      if (items.items_min == 0) out_ += fmt::format("{} {}\n", start, items.named ? "{}" : "[]");
      return;
    }
    out_ += start + "\n";
    for (std::size_t i = 0; i < items.count(); ++i) {
      if (items.named) {
        out_ += fmt::format("{}{}:\n", deeper, quoted(items.name_of(i)));
        write(items.at(i), fmt::format("{}.{}", path, items.name_of(i)), std::string(deeper.size() + 2, ' '));
      } else {
        write(items.at(i), fmt::format("{}[{}]", path, i), deeper + "- ");
      }
    }
  }
  std::string origin(const std::string& path) const {
    auto found = positions_.find(path);
    if (found == positions_.end()) return "";
    if (found->second.line == 0) return "  # " + found->second.file;
    return fmt::format("  # {}:{}", found->second.file, found->second.line);
  }

  const Positions& positions_;
  std::string out_;
};

void write_json(JsonWriter& json, const Fields& fields) {
  for (const Field& field : fields) {
    if (const auto* group = std::get_if<Group>(&field.value)) {
      json.field_object(field.name, [&] { write_json(json, group->fields); });
    } else if (const auto* optional = std::get_if<OptionalGroup>(&field.value)) {
      if (optional->present()) json.field_object(field.name, [&] { write_json(json, optional->get()); });
    } else if (const auto* items = std::get_if<Items>(&field.value)) {
      json.key(field.name);
      auto each = [&] {
        for (std::size_t i = 0; i < items->count(); ++i) {
          if (items->named) json.key(items->name_of(i));
          json.object([&] { write_json(json, items->at(i)); });
        }
      };
      if (items->named)
        json.object(each);
      else
        json.array(each);
    } else {
      json.key(field.name);
      json.raw(std::visit(ValueText{}, field.value));
    }
  }
}

}  // namespace

std::string value_text(const Value& value) {
  return std::visit(ValueText{}, value);
}

std::string effective_yaml(Settings settings, const Positions& positions) {
  YamlWriter writer(positions);
  writer.write(describe(settings), "", "");
  return writer.take();
}

std::string effective_json(Settings settings) {
  std::string out;
  JsonWriter json(out);
  json.object([&] { write_json(json, describe(settings)); });
  out.push_back('\n');
  return out;
}

}  // namespace tollgate::config
