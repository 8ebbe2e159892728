// The guard around yaml-cpp: what it must refuse although yaml-cpp takes it.
#include "config/yaml_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/parse.h"

namespace tollgate::config {
namespace {

using testing::HasSubstr;

std::string complaint(std::string_view yaml) {
  YamlTree tree = read_yaml(yaml, "t.yaml");
  return tree.diagnostics.empty() ? "" : to_string(tree.diagnostics.front());
}

TEST(YamlTree, PlacesCountFromOne) {
  YamlTree tree = read_yaml("a: 1\nb:\n  - x\n  - {c: d}\n", "t.yaml");
  ASSERT_EQ(tree.root.entries.size(), 2U);
  const Node& list = tree.root.entries[1].value;
  EXPECT_EQ(list.items[0].at.line, 3);
  EXPECT_EQ(list.items[0].at.column, 5);
  EXPECT_EQ(list.items[1].entries[0].value.at.column, 9);
}

TEST(YamlTree, RepeatedKeysAreKeptSoThatTheyCanBeReported) {
  EXPECT_EQ(read_yaml("a: 1\na: 2\n", "t").root.entries.size(), 2U);
}

TEST(YamlTree, AnchorsAliasesAndTagsAreRefusedInTheirPlace) {
  EXPECT_THAT(complaint("a: &x 1\nb: *x\n"), HasSubstr("t.yaml:1:4: error: anchors"));
  EXPECT_THAT(complaint("a: !!int 3\n"), HasSubstr("t.yaml:1:4: error: tags"));
  EXPECT_THAT(complaint("a: [&x [1]]\n"), HasSubstr("anchors"));
}

TEST(YamlTree, BillionLaughsIsRefusedAtItsFirstAnchor) {
  std::string bomb = "a0: &a0 [x,x]\n";
  for (int i = 1; i < 40; ++i) bomb += fmt::format("a{}: &a{} [*a{},*a{}]\n", i, i, i - 1, i - 1);
  EXPECT_THAT(complaint(bomb), HasSubstr("t.yaml:1:5: error: anchors"));
}

TEST(YamlTree, SecondDocumentIsRefused) {
  EXPECT_THAT(complaint("a: 1\n---\nb: 2\n"), HasSubstr("one document only"));
  EXPECT_EQ(complaint("---\na: 1\n...\n"), "");
}

TEST(YamlTree, DocumentsWithoutEndAreCutShort) {
  // Shapes that make yaml-cpp's LoadAll allocate without end.
  for (std::string_view text : {"- a\n]\n", "a: b\n- c\n", "[a]\n[b]\n", "a: 1\n}\n", "? a\n]"})
    EXPECT_NE(complaint(text), "") << text;
}

TEST(YamlTree, ByteFourIsNotTakenForTheEndOfTheFile) {
  EXPECT_THAT(complaint(std::string_view("a: 1\nb: x\x04y\nc: 2\n")),
              HasSubstr("t.yaml:2:5: error: control character 0x04"));
  EXPECT_THAT(complaint(std::string_view("a\0b", 3)), HasSubstr("control character 0x00"));
}

TEST(YamlTree, DepthAndSizeAreBounded) {
  EXPECT_NE(complaint(std::string(200'000, '[')), "");
  EXPECT_THAT(complaint(std::string(40, '[') + std::string(40, ']')), HasSubstr("nested more than 32"));
  std::string large = "a: \"" + std::string(kFileBytesMax, 'x') + "\"\n";
  EXPECT_THAT(complaint(large), HasSubstr("at most 1048576 are read"));
}

TEST(YamlTree, SyntaxErrorHasItsPlace) {
  EXPECT_THAT(complaint("a: 1\nb: [1, 2\nc: 3\n"), HasSubstr("t.yaml:"));
  EXPECT_THAT(complaint("a:\n\t- 1\n"), HasSubstr("t.yaml:2:"));
  EXPECT_THAT(complaint("? [a]\n: b\n"), HasSubstr("a key must be text"));
}

TEST(YamlTree, QuotedAndPlainScalarsAreToldApart) {
  YamlTree tree = read_yaml("[a, \"b\", 'c', null, ~, ]\n", "t");
  ASSERT_EQ(tree.root.items.size(), 5U);
  EXPECT_FALSE(tree.root.items[0].quoted);
  EXPECT_TRUE(tree.root.items[1].quoted);
  EXPECT_TRUE(tree.root.items[2].quoted);
  EXPECT_EQ(tree.root.items[3].kind, Node::Kind::null);
  EXPECT_EQ(tree.root.items[4].kind, Node::Kind::null);
}

}  // namespace
}  // namespace tollgate::config
