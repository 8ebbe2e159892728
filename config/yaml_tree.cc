#include "config/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <optional>
#include <sstream>

#include "config/parse.h"

namespace tollgate::config {
namespace {

// Ends the parse from inside yaml-cpp; never leaves read_yaml.
struct Refusal {
  int line, column;
  std::string message;
};

[[noreturn]] void refuse(const YAML::Mark& mark, std::string message) {
  throw Refusal{mark.line + 1, mark.column + 1, std::move(message)};
}

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(Node& root, std::string_view file_name) : root_(root), file_name_(file_name) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check(mark, "", anchor);
    place(make(Node::Kind::null, mark), mark);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "aliases (*name) are not supported: write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check(mark, tag, anchor);
    Node node = make(Node::Kind::scalar, mark);
    node.text = value;
    node.quoted = tag == "!";
    place(std::move(node), mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check(mark, tag, anchor);
    open(make(Node::Kind::list, mark), mark);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check(mark, tag, anchor);
    open(make(Node::Kind::map, mark), mark);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    Node node;
    std::optional<Node> key;  // map: the key whose value comes next
  };

  Node make(Node::Kind kind, const YAML::Mark& mark) const {
    Node node;
    node.kind = kind;
    node.at = {std::string(file_name_), mark.line + 1, mark.column + 1};
    return node;
  }
  static void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) refuse(mark, "anchors (&name) are not supported: write the value out");
    if (!tag.empty() && tag != "?" && tag != "!") refuse(mark, "tags (!name) are not supported");
  }
  bool key_expected() const {
    return !levels_.empty() && levels_.back().node.kind == Node::Kind::map && !levels_.back().key;
  }
  void open(Node node, const YAML::Mark& mark) {
    if (key_expected()) refuse(mark, "a key must be text, not a list or a map");
    if (levels_.size() >= static_cast<std::size_t>(kNestingMax))
      refuse(mark, fmt::format("nested more than {} levels deep", kNestingMax));
    levels_.push_back({std::move(node), std::nullopt});
  }
  void close() {
    Node done = std::move(levels_.back().node);
    levels_.pop_back();
    place(std::move(done), {});
  }
  void place(Node node, const YAML::Mark& mark) {
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == Node::Kind::list) {
      level.node.items.push_back(std::move(node));
    } else if (level.key) {
      level.node.entries.emplace_back(std::move(*level.key), std::move(node));
      level.key.reset();
    } else {
      if (node.kind != Node::Kind::scalar) refuse(mark, "a key must be text");
      level.key = std::move(node);
    }
  }

  Node& root_;
  std::string_view file_name_;
  std::vector<Level> levels_;
};

// Meets whatever follows the first document. Asking once more is safe; asking until the end is not: yaml-cpp
// finds documents without end in some broken texts.
class NothingMore : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    refuse(mark, "one document only: remove what begins here");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
  }
  void OnMapEnd() override {}
};

// The first byte that no configuration holds, if any.
std::optional<Refusal> find_control_character(std::string_view text) {
  int line = 1, column = 1;
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\r' && c != '\t') || byte == 0x7F)
      return Refusal{line, column, fmt::format("control character 0x{:02x}", byte)};
    if (c == '\n') {
      ++line;
      column = 1;
    } else if ((byte & 0xC0) != 0x80) {
      ++column;
    }
  }
  return std::nullopt;
}

}  // namespace

std::string_view kind_name(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "nothing";
    case Node::Kind::scalar:
      return "a single value";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a map";
  }
  return "";
}

YamlTree read_yaml(std::string_view text, std::string_view file_name) {
  YamlTree tree;
  tree.root.at = {std::string(file_name), 1, 1};
  auto add = [&](int line, int column, std::string message) {
    tree.root = Node{};
    tree.root.at = {std::string(file_name), 1, 1};
    tree.diagnostics.push_back({std::string(file_name), line, column, Severity::error, std::move(message)});
  };
  if (text.size() > kFileBytesMax) {
    add(0, 0, fmt::format("the file has {} bytes; at most {} are read", text.size(), kFileBytesMax));
    return tree;
  }
  if (auto found = find_control_character(text)) {
    add(found->line, found->column, found->message);
    return tree;
  }
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    TreeBuilder builder(tree.root, file_name);
    NothingMore end;
    if (parser.HandleNextDocument(builder)) parser.HandleNextDocument(end);
  } catch (const Refusal& refusal) {
    add(refusal.line, refusal.column, refusal.message);
  } catch (const YAML::Exception& e) {
    add(e.mark.is_null() ? 0 : e.mark.line + 1, e.mark.is_null() ? 0 : e.mark.column + 1,
        "not YAML: " + e.msg);
  } catch (const std::exception& e) {
    add(0, 0, fmt::format("cannot be read as YAML: {}", e.what()));
  }
  return tree;
}

}  // namespace tollgate::config
