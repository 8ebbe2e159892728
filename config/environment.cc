#include "config/environment.h"

#include <fmt/format.h>

#include <algorithm>

#include "config/keys.h"
#include "metering/base/ascii.h"

namespace tollgate::config {
namespace {

constexpr std::size_t kListItemsMax = 1'000;  // a number beyond it in a variable's name is a mistake

bool is_variable_name(std::string_view name) {
  if (name.empty() || is_digit(name.front())) return false;
  return std::all_of(name.begin(), name.end(), [](char c) { return is_alpha(c) || is_digit(c) || c == '_'; });
}

// The value of what stands between "${" and "}"; the error is a sentence.
std::expected<std::string, std::string> look_up(std::string_view reference, const Environment& environment) {
  std::size_t fallback_at = reference.find(":-");
  std::string name(reference.substr(0, fallback_at));
  if (!is_variable_name(name))
    return std::unexpected(
        fmt::format("\"${{{}}}\" names no environment variable; write $${{ for a literal ${{", reference));
  auto found = environment.find(name);
  bool has_fallback = fallback_at != std::string_view::npos;
  if (found != environment.end() && !(has_fallback && found->second.empty())) return found->second;
  if (has_fallback) return std::string(reference.substr(fallback_at + 2));
  return std::unexpected(fmt::format(
      "environment variable {} is not set; set it, or give a fallback: ${{{}:-...}}", name, name));
}

void replace_in_text(Node& node, const Environment& environment, std::vector<Diagnostic>& diagnostics) {
  if (node.text.find("${") == std::string::npos) return;
  auto report = [&](std::string message) {
    node.broken = true;
    diagnostics.push_back({node.at.file, node.at.line, node.at.column, Severity::error, std::move(message)});
  };
  std::string out;
  std::string_view rest = node.text;
  for (std::size_t at = rest.find("${"); at != std::string_view::npos; at = rest.find("${")) {
    if (at > 0 && rest[at - 1] == '$') {
      out.append(rest.substr(0, at - 1)).append("${");
      rest.remove_prefix(at + 2);
      continue;
    }
    out.append(rest.substr(0, at));
    std::size_t end = rest.find('}', at);
    if (end == std::string_view::npos) {
      report("\"${\" without \"}\"; write $${ for a literal ${");
      return;
    }
    node.has_reference = true;
    if (auto value = look_up(rest.substr(at + 2, end - at - 2), environment))
      out.append(*value);
    else
      report(value.error());
    rest.remove_prefix(end + 1);
  }
  out.append(rest);
  node.text = std::move(out);
}

std::vector<std::string> segments_of(std::string_view name) {
  std::vector<std::string> segments;
  while (true) {
    std::size_t at = name.find("__");
    segments.push_back(to_lower(name.substr(0, at)));
    if (at == std::string_view::npos) return segments;
    name.remove_prefix(at + 2);
  }
}

bool is_top_level_key(std::string_view name) {
  static const std::vector<std::string> paths = key_paths();
  return std::find(paths.begin(), paths.end(), name) != paths.end();
}

// The child that a segment of a variable's name leads to; made when it is not there. nullptr: it cannot be.
Node* step(Node& node, const std::string& segment, const Position& at) {
  bool number = !segment.empty() && std::all_of(segment.begin(), segment.end(), is_digit);
  if (node.kind == Node::Kind::list || (number && node.kind == Node::Kind::null)) {
    auto index = parse_decimal(segment);
    if (!index || *index > node.items.size() || *index >= kListItemsMax) return nullptr;
    node.kind = Node::Kind::list;
    if (*index == node.items.size()) node.items.emplace_back().at = at;
    return &node.items[static_cast<std::size_t>(*index)];
  }
  if (node.kind == Node::Kind::scalar) return nullptr;
  node.kind = Node::Kind::map;
  for (auto& [key, value] : node.entries)
    if (equals_ignore_case(key.text, segment)) return &value;
  Node key;
  key.kind = Node::Kind::scalar;
  key.text = segment;
  key.at = at;
  node.entries.emplace_back(std::move(key), Node{});
  node.entries.back().value.at = at;
  return &node.entries.back().value;
}

void mark_from_environment(Node& node, const Position& at) {
  node.at = at;
  node.from_environment = true;
  for (Node& item : node.items) mark_from_environment(item, at);
  for (auto& [key, value] : node.entries) {
    mark_from_environment(key, at);
    mark_from_environment(value, at);
  }
}

}  // namespace

void replace_references(Node& root, const Environment& environment, std::vector<Diagnostic>& diagnostics) {
  if (root.kind == Node::Kind::scalar) replace_in_text(root, environment, diagnostics);
  for (Node& item : root.items) replace_references(item, environment, diagnostics);
  for (auto& entry : root.entries) replace_references(entry.value, environment, diagnostics);
}

void apply_overrides(Node& root, const Environment& environment, std::vector<Diagnostic>& diagnostics) {
  for (const auto& [variable, text] : environment) {
    if (!variable.starts_with(kEnvironmentPrefix)) continue;
    std::string_view name = std::string_view(variable).substr(kEnvironmentPrefix.size());
    std::vector<std::string> segments = segments_of(name);
    // Images and Kubernetes set TOLLGATE_VERSION, TOLLGATE_PORT and the like for other ends.
    if (segments.size() == 1 && (!is_top_level_key(segments[0]) || segments[0] == "version")) continue;
    Position at{"environment " + variable, 0, 0};
    auto report = [&](std::string message) {
      diagnostics.push_back({at.file, 0, 0, Severity::error, std::move(message)});
    };
    Node* node = &root;
    for (const std::string& segment : segments) {
      node = segment.empty() ? nullptr : step(*node, segment, at);
      if (node == nullptr) break;
    }
    if (node == nullptr) {
      report(
          "leads to no key: levels are separated by \"__\", entries of a list are counted from 0 without "
          "gaps");
      continue;
    }
    Node value;
    if (text.starts_with('[') || text.starts_with('{')) {
      YamlTree tree = read_yaml(text, at.file);
      for (const Diagnostic& d : tree.diagnostics) report(d.message);
      value = std::move(tree.root);
    } else {
      value.kind = Node::Kind::scalar;
      value.text = text;
    }
    mark_from_environment(value, at);
    *node = std::move(value);
  }
}

}  // namespace tollgate::config
