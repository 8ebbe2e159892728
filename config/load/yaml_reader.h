// Strict reading of a YAML tree (config/yaml_tree.h): every map is read key by key, a key may occur once and must be known,
// and the first mistake is kept with its place. After a mistake all answers are empty, so callers need not check each step.
//
//   YamlReader reader;
//   reader.map(tree.root, "the rulebook", {{"version", [&](const Node& n) { ... }}, ...});
//   if (auto error = reader.error()) return std::unexpected(*error);
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/yaml_tree.h"
#include "metering/base/error.h"

namespace tollgate::config {

class YamlReader {
 public:
  using Read = std::function<void(const Node&)>;
  using ReadEntry = std::function<void(const std::string& key, const Node& key_node, const Node& value)>;
  struct Key {
    std::string_view name;
    Read read;
    bool required = false;
  };

  // A map with fixed keys.
  void map(const Node& node, std::string_view what, const std::vector<Key>& keys);
  // A map whose keys are names.
  void entries(const Node& node, std::string_view what, const ReadEntry& read);
  std::string text(const Node& node, std::string_view what);
  std::vector<std::string> texts(const Node& node, std::string_view what);  // a list of text; null is empty
  std::uint32_t number(const Node& node, std::string_view what);

  void fail_at(const Node& node, std::string_view message);
  const std::optional<Error>& error() const { return error_; }

 private:
  std::optional<Error> error_;
};

}  // namespace tollgate::config
