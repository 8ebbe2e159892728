#include "config/parse.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "config/environment.h"
#include "config/keys.h"
#include "config/suggest.h"
#include "config/validate.h"
#include "config/values.h"
#include "config/yaml_tree.h"
#include "metering/base/ascii.h"

namespace tollgate::config {
namespace {

constexpr std::size_t kShownTextMax = 80;

std::string shown(std::string_view text) {
  if (text.size() > kShownTextMax) return fmt::format("\"{}...\"", text.substr(0, kShownTextMax));
  return fmt::format("\"{}\"", text);
}

// Walks the tree of the file along the table of keys and fills the settings the table points into.
class Reader {
 public:
  explicit Reader(ParseOutcome& outcome) : outcome_(outcome) {}

  void read_group(const Fields& fields, const Node& node, const std::string& path) {
    outcome_.positions.emplace(path, node.at);
    if (node.kind != Node::Kind::map && node.kind != Node::Kind::null)
      return error(node, fmt::format("{} must be a map of keys and values, not {}",
                                     path.empty() ? "the file" : path, kind_name(node)));
    report_repeats(node);
    for (const auto& [key, value] : node.entries) {
      auto field =
          std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.name == key.text; });
      if (field == fields.end()) {
        report_unknown(fields, key, path);
        continue;
      }
      std::string field_path = join(path, key.text);
      outcome_.positions.emplace(field_path, value.kind == Node::Kind::null ? key.at : value.at);
      if (value.kind == Node::Kind::null && !is_container(*field)) {
        error(key, fmt::format("\"{}\" has no value: give it one or remove the key", key.text));
        continue;
      }
      read_value(*field, value, field_path);
    }
    report_missing(fields, node, path);
  }

 private:
  void error(const Node& node, std::string message) {
    outcome_.diagnostics.push_back(
        {node.at.file, node.at.line, node.at.column, Severity::error, std::move(message)});
  }
  static std::string join(const std::string& path, std::string_view name) {
    return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
  }
  static bool is_container(const Field& field) {
    return !std::holds_alternative<Text>(field.value) && !std::holds_alternative<Flag>(field.value) &&
           !std::holds_alternative<Number>(field.value) && !std::holds_alternative<Size>(field.value) &&
           !std::holds_alternative<Span>(field.value) && !std::holds_alternative<Choice>(field.value);
  }

  void report_repeats(const Node& map) {
    std::map<std::string_view, const Node*> seen;
    for (const auto& [key, value] : map.entries) {
      auto [first, fresh] = seen.emplace(key.text, &key);
      if (!fresh)
        error(key, fmt::format("\"{}\" is there twice; first in line {}", key.text, first->second->at.line));
    }
  }

  void report_unknown(const Fields& fields, const Node& key, const std::string& path) {
    Names names;
    for (const Field& field : fields) names.push_back(field.name);
    std::string hint;
    std::string file_key = key.text + "_file";
    if (std::find(names.begin(), names.end(), file_key) != names.end()) {
      hint = fmt::format("; it is not written into the configuration: name a file with \"{}\"", file_key);
    } else if (nearest(key.text, names).empty()) {
      hint = elsewhere(key.text);
      if (hint.empty()) hint = did_you_mean(key.text, names);
    } else {
      hint = did_you_mean(key.text, names);
    }
    error(key, fmt::format("unknown key {}{}{}", shown(key.text), path.empty() ? "" : " in " + path, hint));
  }

  // The key exists, but in another place.
  static std::string elsewhere(std::string_view name) {
    static const std::vector<std::string> paths = key_paths();
    for (const std::string& path : paths) {
      std::size_t dot = path.rfind('.');
      if (dot != std::string::npos && std::string_view(path).substr(dot + 1) == name)
        return fmt::format("; it belongs into {}", path.substr(0, dot));
    }
    return "";
  }

  void report_missing(const Fields& fields, const Node& node, const std::string& path) {
    for (const Field& field : fields) {
      if (!field.required) continue;
      bool present = std::any_of(node.entries.begin(), node.entries.end(),
                                 [&](const auto& entry) { return entry.key.text == field.name; });
      if (!present)
        error(node, path.empty() ? fmt::format("\"{}\" is missing", field.name)
                                 : fmt::format("\"{}\" is missing in {}", field.name, path));
    }
  }

  void read_value(const Field& field, const Node& node, const std::string& path) {
    if (!node.broken) std::visit([&](const auto& value) { read(value, node, path); }, field.value);
  }

  // The text of a single value, or nullptr after an error.
  const std::string* scalar(const Node& node, const std::string& path) {
    if (node.broken) return nullptr;
    if (node.kind == Node::Kind::scalar) return &node.text;
    error(node, fmt::format("{} must be a single value, not {}", path, kind_name(node)));
    return nullptr;
  }

  // Stores a parsed value, or says what is wrong with the text.
  template <class T, class Store>
  void accept(const Node& node, const std::string& path, const std::expected<T, std::string>& parsed,
              Store&& store) {
    if (parsed) return store(*parsed);
    error(node, fmt::format("{}: {} {}", path, shown(node.text), parsed.error()));
  }

  std::expected<std::string, std::string> check_text(std::string_view text, Format format,
                                                     const Names& choices) {
    if (!choices.empty()) {
      if (std::find(choices.begin(), choices.end(), text) != choices.end()) return std::string(text);
      return std::unexpected("is not known" + did_you_mean(text, choices));
    }
    return check_format(text, format);
  }

  void read(const Text& text, const Node& node, const std::string& path) {
    const std::string* value = scalar(node, path);
    if (value == nullptr) return;
    if (value->empty() && !text.may_be_empty) return error(node, fmt::format("{} must not be empty", path));
    if (value->empty() && text.choices.empty()) {
      text.target->clear();
      return;
    }
    if (text.format == Format::store_url && !node.has_reference && !node.from_environment &&
        !password_of_url(*value).empty())
      outcome_.diagnostics.push_back(
          {node.at.file, node.at.line, node.at.column, Severity::warning,
           fmt::format("{} holds a password: move it to password_file or write ${{ENV}} in its place",
                       path)});
    if (text.format == Format::store_url) {
      // The text is not repeated: it may hold a password.
      auto checked = check_format(*value, text.format);
      if (!checked) return error(node, fmt::format("{} {}", path, checked.error()));
      *text.target = *checked;
      return;
    }
    *text.target = *value;  // also when it is refused: the rules between keys shall not report it as missing
    accept(node, path, check_text(*value, text.format, text.choices),
           [&](const std::string& checked) { *text.target = checked; });
  }

  void read(const TextList& list, const Node& node, const std::string& path) {
    Node split = node;
    if (node.kind == Node::Kind::scalar && (list.single || node.from_environment)) split = as_list(node);
    if (node.kind == Node::Kind::null) split.kind = Node::Kind::list;
    if (split.kind != Node::Kind::list)
      return error(node, fmt::format("{} must be a list such as [a, b], not {}", path, kind_name(node)));
    std::vector<std::string> values;
    std::set<std::string, std::less<>> seen;
    for (std::size_t i = 0; i < split.items.size(); ++i) {
      const Node& item = split.items[i];
      std::string item_path = fmt::format("{}[{}]", path, i);
      outcome_.positions.emplace(item_path, item.at);
      const std::string* value = scalar(item, item_path);
      if (value == nullptr) continue;
      if (value->empty()) {
        error(item, fmt::format("{} must not be empty", item_path));
        continue;
      }
      accept(item, item_path, check_text(*value, list.format, list.choices), [&](const std::string& checked) {
        if (!seen.insert(checked).second)
          return error(item, fmt::format("{}: {} is there twice", path, shown(checked)));
        values.push_back(checked);
      });
    }
    if (split.items.size() < list.items_min)
      return error(node, fmt::format("{} needs at least {} entry", path, list.items_min));
    if (split.items.size() > list.items_max)
      return error(node, fmt::format("{} has {} entries; at most {} are allowed", path, split.items.size(),
                                     list.items_max));
    *list.target = std::move(values);
  }

  // One text is a list of one; a text from the environment is cut at commas.
  static Node as_list(const Node& node) {
    Node list;
    list.kind = Node::Kind::list;
    list.at = node.at;
    std::string_view rest = node.text;
    while (true) {
      std::size_t comma = node.from_environment ? rest.find(',') : std::string_view::npos;
      Node item = node;
      item.text = node.from_environment ? std::string(trim(rest.substr(0, comma))) : std::string(rest);
      if (!item.text.empty() || !node.from_environment) list.items.push_back(std::move(item));
      if (comma == std::string_view::npos) return list;
      rest.remove_prefix(comma + 1);
    }
  }

  void read(const Flag& flag, const Node& node, const std::string& path) {
    if (const std::string* value = scalar(node, path))
      accept(node, path, parse_flag(*value), [&](bool yes) { *flag.target = yes; });
  }

  void read(const Number& number, const Node& node, const std::string& path) {
    const std::string* value = scalar(node, path);
    if (value == nullptr) return;
    accept(node, path, parse_number(*value), [&](std::uint64_t n) {
      if (path == "version" && n != 1)
        return error(node, fmt::format("version {} is not known: this program reads version 1", n));
      if (n < number.min || n > number.max)
        return error(node, fmt::format("{}: {} is outside {} .. {}", path, n, number.min, number.max));
      std::visit([n](auto* target) { *target = static_cast<std::remove_pointer_t<decltype(target)>>(n); },
                 number.target);
    });
  }

  void read(const Size& size, const Node& node, const std::string& path) {
    const std::string* value = scalar(node, path);
    if (value == nullptr) return;
    accept(node, path, parse_size(*value), [&](std::uint64_t n) {
      if (n < size.min || n > size.max)
        return error(node, fmt::format("{}: {} is outside {} .. {}", path, *value, size_text(size.min),
                                       size_text(size.max)));
      *size.target = n;
    });
  }

  void read(const Span& span, const Node& node, const std::string& path) {
    const std::string* value = scalar(node, path);
    if (value == nullptr) return;
    accept(node, path, parse_duration(*value), [&](Milliseconds d) {
      if (d < span.min || d > span.max)
        return error(node, fmt::format("{}: {} is outside {} .. {}", path, *value, duration_text(span.min),
                                       duration_text(span.max)));
      *span.target = d;
    });
  }

  void read(const Choice& choice, const Node& node, const std::string& path) {
    const std::string* value = scalar(node, path);
    if (value == nullptr) return;
    auto found = std::find(choice.choices.begin(), choice.choices.end(), *value);
    if (found == choice.choices.end())
      return error(node, fmt::format("{}: {} is not known{}", path, shown(*value),
                                     did_you_mean(*value, choice.choices)));
    choice.set(static_cast<std::size_t>(found - choice.choices.begin()));
  }

  void read(const Group& group, const Node& node, const std::string& path) {
    read_group(group.fields, node, path);
  }

  void read(const OptionalGroup& group, const Node& node, const std::string& path) {
    if (node.kind == Node::Kind::null) return;
    read_group(group.get(), node, path);
  }

  void read(const Items& items, const Node& node, const std::string& path) {
    if (node.kind == Node::Kind::null && items.items_min == 0) return;
    if (items.named) return read_named(items, node, path);
    if (node.kind != Node::Kind::list)
      return error(
          node, fmt::format("{} must be a list (entries begin with \"- \"), not {}", path, kind_name(node)));
    if (node.items.size() < items.items_min)
      return error(node, fmt::format("{} needs at least {} entry", path, items.items_min));
    for (std::size_t i = 0; i < node.items.size(); ++i)
      read_group(items.add(""), node.items[i], fmt::format("{}[{}]", path, i));
  }

  void read_named(const Items& items, const Node& node, const std::string& path) {
    if (node.kind != Node::Kind::map)
      return error(node, fmt::format("{} must be a map of names, not {}", path, kind_name(node)));
    report_repeats(node);
    if (node.entries.size() < items.items_min)
      return error(node, fmt::format("{} needs at least {} entry", path, items.items_min));
    std::set<std::string_view> seen;
    for (const auto& [key, value] : node.entries) {
      if (!seen.insert(key.text).second) continue;
      auto name = check_format(key.text, Format::name);
      if (!name) error(key, fmt::format("{}: {} {}", path, shown(key.text), name.error()));
      read_group(items.add(key.text), value, join(path, key.text));
    }
  }

  // Calls `each` for the entries of a map of any names whose key has the right format.
  template <class Each>
  void read_entries(const Node& node, const std::string& path, Format key_format, Each&& each) {
    if (node.kind == Node::Kind::null) return;
    if (node.kind != Node::Kind::map)
      return error(node, fmt::format("{} must be a map, not {}", path, kind_name(node)));
    report_repeats(node);
    for (const auto& [key, value] : node.entries) {
      std::string entry_path = join(path, key.text);
      outcome_.positions.emplace(entry_path, value.at);
      if (key.text.empty())
        error(key, fmt::format("{}: the name before the colon is empty", path));
      else
        accept(key, path, check_format(key.text, key_format),
               [&](const std::string& name) { each(name, value, entry_path); });
    }
  }

  void read(const TextMap& map, const Node& node, const std::string& path) {
    map.target->clear();
    read_entries(node, path, map.key,
                 [&](const std::string& key, const Node& value, const std::string& entry_path) {
                   std::string text;
                   read(Text{&text, map.value, {}, false}, value, entry_path);
                   (*map.target)[key] = text;
                 });
  }
  void read(const TextListMap& map, const Node& node, const std::string& path) {
    map.target->clear();
    read_entries(node, path, map.key,
                 [&](const std::string& key, const Node& value, const std::string& entry_path) {
                   read(TextList{&(*map.target)[key], map.value}, value, entry_path);
                 });
  }
  void read(const NumberMap& map, const Node& node, const std::string& path) {
    map.target->clear();
    read_entries(node, path, map.key,
                 [&](const std::string& key, const Node& value, const std::string& entry_path) {
                   read(Number{&(*map.target)[key], map.min, map.max}, value, entry_path);
                 });
  }
  void read(const Effects& effects, const Node& node, const std::string& path) {
    effects.target->clear();
    read_entries(
        node, path, Format::any,
        [&](const std::string& key, const Node& value, const std::string& entry_path) {
          auto& list = (*effects.target)[key];
          if (value.kind != Node::Kind::list)
            return error(value, fmt::format("{} must be a list of {{object: ..., operation: ...}}, not {}",
                                            entry_path, kind_name(value)));
          for (std::size_t i = 0; i < value.items.size(); ++i) {
            std::string object, operation;
            Fields fields{{"object", Text{&object, Format::object_name, {}, false}, "", true},
                          {"operation", Text{&operation, Format::any, operation_names(), false}, "", true}};
            read_group(fields, value.items[i], fmt::format("{}[{}]", entry_path, i));
            list.emplace_back(object, operation);
          }
        });
  }

  ParseOutcome& outcome_;
};

// What the smallest useful file may leave out.
void fill_in(Settings& settings, const Positions& positions) {
  if (!positions.contains("listeners")) settings.listeners.emplace_back().address = "127.0.0.1:8080";
  if (!positions.contains("routes") && settings.upstreams.size() == 1) {
    settings.routes.emplace_back();
    settings.routes.back().upstream = settings.upstreams.front().name;
  }
}

}  // namespace

ParseOutcome parse(std::string_view yaml, std::string_view file_name, const Environment& environment) {
  ParseOutcome outcome;
  YamlTree tree = read_yaml(yaml, file_name);
  outcome.diagnostics = std::move(tree.diagnostics);
  if (!has_errors(outcome.diagnostics)) {
    replace_references(tree.root, environment, outcome.diagnostics);
    apply_overrides(tree.root, environment, outcome.diagnostics);
    Reader(outcome).read_group(describe(outcome.settings), tree.root, "");
    if (tree.root.kind == Node::Kind::map || tree.root.kind == Node::Kind::null) {
      fill_in(outcome.settings, outcome.positions);
      validate(outcome);
    }
  }
  std::stable_sort(outcome.diagnostics.begin(), outcome.diagnostics.end(),
                   [](const Diagnostic& a, const Diagnostic& b) {
                     return std::tie(a.line, a.column) < std::tie(b.line, b.column);
                   });
  return outcome;
}

}  // namespace tollgate::config
