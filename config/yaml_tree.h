// A YAML text as a tree of our own with the place of every node. yaml-cpp 0.7 only cuts it into events; its
// own tree is not used because it keeps duplicate keys, forgets whether a scalar was quoted and follows
// aliases.
//
// Refused, each with its place: control characters (yaml-cpp takes byte 4 for the end of the file), more than
// one document, anchors, aliases, tags, keys that are not text, nesting beyond kNestingMax, texts beyond
// kFileBytesMax.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "config/diagnostic.h"

namespace tollgate::config {

struct Entry;

struct Node {
  enum class Kind : std::uint8_t { null, scalar, list, map };
  Kind kind = Kind::null;
  Position at;
  std::string text;            // scalar; ${...} already replaced where the parser did so
  bool quoted = false;         // scalar in quotes or a block scalar
  bool has_reference = false;  // scalar that held ${...} as written
  bool from_environment = false;
  bool broken = false;         // already reported: its text means nothing
  std::vector<Node> items;     // list
  std::vector<Entry> entries;  // map; in the order of the file, repeats kept
};

struct Entry {
  Node key;  // scalar
  Node value;
};

// What a node is, for messages: "a list".
std::string_view kind_name(const Node& node);

struct YamlTree {
  Node root;  // null when the text is empty or broken
  std::vector<Diagnostic> diagnostics;
};

YamlTree read_yaml(std::string_view text, std::string_view file_name);

}  // namespace tollgate::config
