#include "metering/catalogue/schema.h"

#include <gtest/gtest.h>

namespace tollgate::catalogue {
namespace {

TEST(Schema, ObjectsAreFoundInAnyCaseAndSpelledCanonically) {
  Schema schema;
  schema.add_object("KnowledgeBase");
  EXPECT_EQ(schema.canonical("knowledgebase"), "KnowledgeBase");
  EXPECT_EQ(schema.canonical("Knowledge"), std::nullopt);
  EXPECT_EQ(schema.canonical(std::string(10000, 'a')), std::nullopt);
}

TEST(Schema, UidsMatchWithAndWithoutDashesAndBraces) {
  Schema schema;
  schema.add_uid("117d32f9-8275-4534-8411-1c66115ce9cd", "Case");
  schema.add_uid("93405caa107c376a2bd15c4c8885a900be316f3a72", "Customer");
  EXPECT_EQ(schema.object_of_uid("117D32F9-8275-4534-8411-1C66115CE9CD"), "Case");
  EXPECT_EQ(schema.object_of_uid("{117d32f982754534 84111c66115ce9cd}"), std::nullopt);
  EXPECT_EQ(schema.object_of_uid("{117d32f98275453484111c66115ce9cd}"), "Case");
  EXPECT_EQ(schema.object_of_uid("93405CAA107c376a2bd15c4c8885a900be316f3a72"), "Customer");
  EXPECT_EQ(schema.canonical("customer"), "Customer");
}

TEST(Schema, ADeclaredRelationWinsThenTheColumnsNameThenObjectAndColumn) {
  Schema schema;
  for (const char* object : {"Case", "CaseStatus", "Contact", "Opportunity", "OpportunityContact", "Account"})
    schema.add_object(object);
  schema.add_relation("*", "Owner", "Contact");
  schema.add_relation("Lead", "Owner", "Account");
  EXPECT_EQ(schema.relation("case", "OWNER"), "Contact");
  EXPECT_EQ(schema.relation("Lead", "Owner"), "Account");
  EXPECT_EQ(schema.relation("Case", "Status"), "CaseStatus");
  EXPECT_EQ(schema.relation("Opportunity", "Contact"), "Contact");
  EXPECT_EQ(schema.relation("Case", "Number"), std::nullopt);
}

}  // namespace
}  // namespace tollgate::catalogue
