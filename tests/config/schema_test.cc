// The table of keys and what is derived from it: manual, schema and dump agree with the parser.
#include "config/schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "config/dump.h"
#include "config/keys.h"
#include "config/parse.h"
#include "config/yaml_tree.h"
#include "tests/config/support/samples.h"

namespace tollgate::config {
namespace {

std::string read(const std::string& path) {
  std::ifstream in(std::string(TOLLGATE_SOURCE_DIR "/") + path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The value of a key in a map node, or nullptr.
const Node* child(const Node& node, std::string_view key) {
  for (const auto& [name, value] : node.entries)
    if (name.text == key) return &value;
  return nullptr;
}

// Every key of the table must be a property of the schema, with a description.
void expect_in_schema(const Fields& fields, const Node& schema, const std::string& path) {
  const Node* properties = child(schema, "properties");
  ASSERT_NE(properties, nullptr) << path;
  EXPECT_EQ(properties->entries.size(), fields.size()) << path;
  const Node* additional = child(schema, "additionalProperties");
  ASSERT_NE(additional, nullptr) << path;
  EXPECT_EQ(additional->text, "false") << path;
  for (const Field& field : fields) {
    std::string field_path = path + "." + std::string(field.name);
    const Node* property = child(*properties, field.name);
    ASSERT_NE(property, nullptr) << field_path;
    const Node* about = child(*property, "description");
    ASSERT_NE(about, nullptr) << field_path;
    EXPECT_GE(about->text.size(), 10U) << field_path;
    EXPECT_TRUE(about->text.ends_with('.') || about->text.ends_with(':'))
        << field_path << ": " << about->text;
    if (const auto* group = std::get_if<Group>(&field.value))
      expect_in_schema(group->fields, *property, field_path);
    if (const auto* group = std::get_if<OptionalGroup>(&field.value))
      expect_in_schema(group->get(), *property, field_path);
    if (const auto* items = std::get_if<Items>(&field.value)) {
      const Node* item = child(*property, items->named ? "additionalProperties" : "items");
      ASSERT_NE(item, nullptr) << field_path;
      expect_in_schema(items->add("x"), *item, field_path);
    }
  }
}

TEST(Schema, IsJsonAndListsEveryKeyOfTheTable) {
  std::string schema = json_schema();
  YamlTree tree = read_yaml(schema, "schema");  // JSON is YAML
  ASSERT_TRUE(tree.diagnostics.empty()) << to_string(tree.diagnostics.front());
  EXPECT_EQ(child(tree.root, "$schema")->text, "https://json-schema.org/draft/2020-12/schema");
  Settings settings;
  expect_in_schema(describe(settings), tree.root, "");
}

TEST(Schema, ManualIsWhatTheTableSays) {
  EXPECT_EQ(read("docs/configuration.md"), reference_markdown())
      << "config/keys.cc changed: write the manual anew with `tollgate schema --markdown > "
         "docs/configuration.md`";
}

TEST(Schema, ManualMentionsEveryKey) {
  std::string manual = read("docs/configuration.md");
  for (const std::string& path : key_paths())
    EXPECT_NE(manual.find("`" + path + "`"), std::string::npos) << path;
}

// Every value of a key at its default, written by the dump, is read back as the same.
TEST(Dump, EveryDefaultReadsBackAsItself) {
  ParseOutcome first = parse(kSmallest, "t.yaml", {});
  ASSERT_TRUE(first.ok());
  std::string text = effective_yaml(first.settings, {});
  ParseOutcome second = parse(text, "dump.yaml", {});
  for (const Diagnostic& d : second.diagnostics)
    EXPECT_EQ(d.severity, Severity::warning) << to_string(d) << "\n" << text;
  EXPECT_EQ(effective_json(first.settings), effective_json(second.settings));
  EXPECT_EQ(effective_yaml(second.settings, {}), text);
}

TEST(Dump, EveryExampleReadsBackAsItself) {
  for (const char* name : {"minimal", "demo", "production"}) {
    ParseOutcome first = parse(read(fmt::format("config/examples/{}.yaml", name)), "t.yaml", {});
    ASSERT_TRUE(first.ok()) << name << ": " << to_string(first.diagnostics.front());
    ParseOutcome second = parse(effective_yaml(first.settings, {}), "dump.yaml", {});
    ASSERT_TRUE(second.ok()) << name << ": " << to_string(second.diagnostics.front());
    EXPECT_EQ(effective_json(first.settings), effective_json(second.settings)) << name;
  }
}

TEST(Dump, TextsThatLookLikeReferencesOrNeedQuotesSurvive) {
  ParseOutcome first = parse(std::string(kSmallest) +
                                 "access_log: {file: 'a $${X} \"q\" # \\ ü: - [x]'}\nquotas: [{name: q, "
                                 "limit: 1, overrides: {'on: off': 2, 'a\"b': 3}}]\n",
                             "t", {});
  ASSERT_TRUE(first.ok()) << to_string(first.diagnostics.front());
  ParseOutcome second = parse(effective_yaml(first.settings, {}), "dump.yaml", {});
  ASSERT_TRUE(second.ok()) << to_string(second.diagnostics.front());
  EXPECT_EQ(second.settings.access_log.file, "a ${X} \"q\" # \\ ü: - [x]");
  EXPECT_EQ(second.settings.quotas[0].overrides.at("a\"b"), 3U);
}

TEST(Dump, SaysWhereAValueComesFromAndHidesThePassword) {
  ParseOutcome outcome = parse(std::string(kSmallest) + "store: {url: 'redis://u:${PW}@h'}\n", "t.yaml",
                               {{"PW", "hunter2"}, {"TOLLGATE_WORKERS", "3"}});
  std::string text = effective_yaml(outcome.settings, outcome.positions);
  EXPECT_THAT(text, testing::HasSubstr("workers: 3  # environment TOLLGATE_WORKERS\n"));
  EXPECT_THAT(text, testing::HasSubstr("url: \"redis://u:***@h\"  # t.yaml:7\n"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("hunter2")));
  EXPECT_THAT(effective_json(outcome.settings), testing::Not(testing::HasSubstr("hunter2")));
  EXPECT_THAT(text, testing::HasSubstr("  timeout: \"50ms\"\n")) << "defaults have no remark";
}

TEST(Keys, PathsAreUnique) {
  std::vector<std::string> paths = key_paths();
  std::sort(paths.begin(), paths.end());
  EXPECT_EQ(std::adjacent_find(paths.begin(), paths.end()), paths.end());
  EXPECT_GT(paths.size(), 100U);
}

}  // namespace
}  // namespace tollgate::config
