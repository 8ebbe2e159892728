#include "config/load/yaml_reader.h"

#include <fmt/format.h>

#include <limits>
#include <set>

#include "metering/base/ascii.h"

namespace tollgate::config {

void YamlReader::fail_at(const Node& node, std::string_view message) {
  if (error_) return;
  error_ = Error{fmt::format("{}:{}:{}: {}", node.at.file, node.at.line, node.at.column, message),
                 Origin::config, false};
}

void YamlReader::entries(const Node& node, std::string_view what, const ReadEntry& read) {
  if (error_) return;
  if (node.kind == Node::Kind::null) return;
  if (node.kind != Node::Kind::map) return fail_at(node, fmt::format("{} must be a map of key: value", what));
  std::set<std::string> seen;
  for (const auto& [key, value] : node.entries) {
    if (error_) return;
    if (!seen.insert(key.text).second)
      return fail_at(key, fmt::format("\"{}\" occurs twice in {}", key.text, what));
    read(key.text, key, value);
  }
}

void YamlReader::map(const Node& node, std::string_view what, const std::vector<Key>& keys) {
  std::set<std::string_view> seen;
  entries(node, what, [&](const std::string& name, const Node& key_node, const Node& value) {
    for (const Key& key : keys) {
      if (key.name != name) continue;
      seen.insert(key.name);
      return key.read(value);
    }
    std::string known;
    for (const Key& key : keys) known += fmt::format("{}{}", known.empty() ? "" : ", ", key.name);
    fail_at(key_node, fmt::format("unknown key \"{}\" in {}; known: {}", name, what, known));
  });
  for (const Key& key : keys)
    if (key.required && !seen.contains(key.name) && !error_)
      return fail_at(node, fmt::format("{} lacks \"{}\"", what, key.name));
}

std::string YamlReader::text(const Node& node, std::string_view what) {
  if (error_) return {};
  if (node.kind != Node::Kind::scalar || node.text.empty()) {
    fail_at(node, fmt::format("{} must be text", what));
    return {};
  }
  return node.text;
}

std::vector<std::string> YamlReader::texts(const Node& node, std::string_view what) {
  std::vector<std::string> out;
  if (error_ || node.kind == Node::Kind::null) return out;
  if (node.kind != Node::Kind::list) {
    fail_at(node, fmt::format("{} must be a list", what));
    return out;
  }
  for (const Node& item : node.items) out.push_back(text(item, fmt::format("an entry of {}", what)));
  return out;
}

std::uint32_t YamlReader::number(const Node& node, std::string_view what) {
  auto value = parse_decimal(text(node, what));
  if (!error_ && (!value || *value > std::numeric_limits<std::uint32_t>::max()))
    fail_at(node, fmt::format("{} must be a whole number", what));
  return value ? static_cast<std::uint32_t>(*value) : 0;
}

}  // namespace tollgate::config
