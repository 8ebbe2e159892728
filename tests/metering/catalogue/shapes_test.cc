// 118 request shapes of real clients and vendors' documents, each with what it touches (shapes.jsonl).
#include <gtest/gtest.h>
#include <simdjson.h>

#include <fstream>
#include <set>
#include <sstream>

#include "config/load/rulebook.h"
#include "tests/metering/catalogue/catalogue_fixture.h"

namespace tollgate::catalogue {
namespace {

namespace dom = simdjson::dom;

struct Shape {
  std::string id, dialect, expected;
  Told told;
  std::uint64_t units = 0;
};

std::string text_of(dom::element element, const char* key) {
  std::string_view value;
  return element[key].get(value) == simdjson::SUCCESS ? std::string(value) : std::string();
}

// The expectation in the form of describe(), without " (free)".
std::string expected_of(dom::element shape) {
  std::string kind = text_of(shape, "kind"), uses;
  dom::array list;
  if (shape["uses"].get(list) != simdjson::SUCCESS) return "no uses";
  for (dom::element use : list) {
    if (!uses.empty()) uses += "; ";
    std::uint64_t part = 0;
    if (use["part"].get(part) == simdjson::SUCCESS) uses += fmt::format("[{}] ", part);
    uses += text_of(use, "object") + " " + text_of(use, "operation");
    if (std::string via = text_of(use, "via"); !via.empty()) uses += " " + via;
  }
  if (kind == "objects") return uses.empty() ? "objects" : uses;
  return uses.empty() ? kind : kind + ": " + uses;
}

std::vector<Shape> load_shapes() {
  std::ifstream file(TOLLGATE_SOURCE_DIR "/tests/metering/catalogue/shapes.jsonl");
  std::vector<Shape> shapes;
  dom::parser parser;
  for (std::string line; std::getline(file, line);) {
    dom::element root;
    if (parser.parse(line).get(root) != simdjson::SUCCESS) continue;
    Shape shape{text_of(root, "id"), text_of(root, "dialect"), expected_of(root), {}, 0};
    shape.told.line = text_of(root, "method") + " " + text_of(root, "target");
    shape.told.body = text_of(root, "body");
    dom::object headers;
    if (root["headers"].get(headers) == simdjson::SUCCESS)
      for (auto field : headers)
        shape.told.headers.emplace_back(field.key, std::string_view(field.value.get_string().value_unsafe()));
    if (root["units"].get(shape.units) != simdjson::SUCCESS) shape.units = 999;
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

Dialect dialect_of(const std::string& name) {
  return name == "creatio" ? Dialect::creatio : name == "zoho" ? Dialect::zoho : Dialect::cherwell;
}

// Objects that belong to no section in the samples; everything else there is licensed.
bool is_free(const std::string& object) {
  static const std::set<std::string> kFree = {"CaseStatus", "OrderPaymentStatus", "City", "SysImage",
                                              "SysSettings"};
  return kFree.contains(object);
}

std::uint64_t units_of(const Classification& c) {
  if (c.kind != Kind::objects || !c.counted) return 0;
  std::set<std::uint32_t> parts;
  for (const ObjectUse& use : c.uses)
    if (use.via != Via::expand && use.via != Via::filter && use.via != Via::join && !is_free(use.object))
      parts.insert(use.part);
  return parts.size();
}

void check_all(const std::vector<Shape>& shapes, const std::shared_ptr<const Schema>& schema,
               const char* only) {
  for (const Shape& shape : shapes) {
    if (only && shape.dialect != only) continue;
    SCOPED_TRACE(shape.id + " " + shape.told.line);
    Classification c = shape.told.classify(dialect_of(shape.dialect), schema);
    EXPECT_EQ(units_of(c), shape.units);
    c.counted = true;
    EXPECT_EQ(describe(c), shape.expected) << c.reject_detail;
  }
}

TEST(Shapes, AllKnownRequestsAreClassifiedAsDocumented) {
  auto shapes = load_shapes();
  ASSERT_EQ(shapes.size(), 118U);
  check_all(shapes, small_schema(), nullptr);
}

TEST(Shapes, ThePresetKnowsTheObjectsOfAllCreatioRequests) {
  std::ifstream file(TOLLGATE_SOURCE_DIR "/config/presets/bpmonline.yaml");
  std::stringstream text;
  text << file.rdbuf();
  auto rulebook = config::load_rulebook(text.str(), "bpmonline.yaml");
  ASSERT_TRUE(rulebook.has_value()) << rulebook.error().message;
  check_all(load_shapes(), config::make_schema(*rulebook), "creatio");
}

TEST(Shapes, DialectsTriedInOrderDoNotTakeEachOthersRequests) {
  std::vector<HeaderField> fields;
  for (const Shape& shape : load_shapes()) {
    SCOPED_TRACE(shape.id);
    fields.clear();
    Request request = shape.told.request(fields);
    Classifier all(Options{{Dialect::creatio, Dialect::zoho, Dialect::cherwell}}, small_schema());
    Classification c = all.classify(request);
    c.counted = true;
    EXPECT_EQ(describe(c), shape.expected);
  }
}

TEST(Shapes, WhatNeedsNoBodyIsTheSameWithoutIt) {
  for (Shape shape : load_shapes()) {
    Dialect dialect = dialect_of(shape.dialect);
    if (shape.told.need(dialect) == BodyNeed::whole) continue;
    SCOPED_TRACE(shape.id);
    std::string with_body = describe(shape.told.classify(dialect));
    shape.told.body.clear();
    EXPECT_EQ(describe(shape.told.classify(dialect)), with_body);
  }
}

TEST(Shapes, MethodsAreReadInAnyCaseAndRootsAtAnyDepth) {
  for (Shape shape : load_shapes()) {
    if (shape.dialect != "creatio") continue;
    SCOPED_TRACE(shape.id);
    std::string plain = describe(shape.told.classify(Dialect::creatio));
    std::string line = shape.told.line;
    std::size_t space = line.find(' ');
    for (const char* prefix : {"/crm", "/apps/bpm", "/.//crm"}) {
      shape.told.line = line.substr(0, space + 1) + prefix + line.substr(space + 1);
      if (plain == "asset" || plain == "metadata" || plain == "authentication") continue;
      EXPECT_EQ(describe(shape.told.classify(Dialect::creatio)), plain) << shape.told.line;
    }
    for (std::size_t i = 0; i < space; ++i) line[i] = static_cast<char>(std::tolower(line[i]));
    shape.told.line = line;
    EXPECT_EQ(describe(shape.told.classify(Dialect::creatio)), plain) << line;
  }
}

}  // namespace
}  // namespace tollgate::catalogue
