#include "metering/quota/rules.h"

#include <gtest/gtest.h>

#include "metering/quota/keys.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;

Rule rule(std::string name, std::uint64_t limit, std::vector<Dimension> per = {Dimension::user}) {
  Rule out;
  out.name = std::move(name);
  out.limit = limit;
  out.window = 86'400'000ms;
  out.per = std::move(per);
  return out;
}

const Caller kAnn{"acme", "org1", "ann", false};
const CountedOperation kReadCase{"Case", "read", "customer"};
const CountedOperation kEditCase{"Case", "edit", "customer"};
const CountedOperation kReadOrder{"Order", "read", "partner"};

TEST(Rules, ABatchIsOneChargeOfItsOperations) {
  Rules rules({rule("daily", 1000)}, false);
  std::vector<CountedOperation> batch(37, kReadCase);
  auto charges = rules.charges(kAnn, batch);
  ASSERT_EQ(charges.size(), 1U);
  EXPECT_EQ(charges[0].key.subject_key, subject_key({"acme", std::nullopt, "ann"}));
  EXPECT_EQ(charges[0].key.field, "daily");
  EXPECT_EQ(charges[0].units, 37U);
  EXPECT_EQ(charges[0].limit, 1000U);
  EXPECT_EQ(charges[0].window, 86'400'000ms);
  EXPECT_EQ(charges[0].bucket, 60'000ms);
  EXPECT_EQ(charges[0].rule, 0U);
}

TEST(Rules, LicensedRuleCostsNothingForACallWithoutLicensedObjects) {
  Rules rules({rule("daily", 1000)}, true);
  EXPECT_TRUE(rules.charges(kAnn, {}).empty());
}

TEST(Rules, RuleOnAllChargesOneUnitACall) {
  Rule all = rule("requests", 10);
  all.on = Scope::all;
  Rules rules({all}, false);
  EXPECT_EQ(rules.charges(kAnn, {})[0].units, 1U);
  std::vector<CountedOperation> batch(37, kReadCase);
  ASSERT_EQ(rules.charges(kAnn, batch).size(), 1U);
  EXPECT_EQ(rules.charges(kAnn, batch)[0].units, 1U);
}

TEST(Rules, FinerRulesSplitABatchByWhatTheyName) {
  Rules rules({rule("fine", 100, {Dimension::user, Dimension::object, Dimension::operation})}, false);
  std::vector<CountedOperation> batch{kReadCase, kEditCase, kReadCase, kReadOrder};
  auto charges = rules.charges(kAnn, batch);
  ASSERT_EQ(charges.size(), 3U);
  EXPECT_EQ(charges[0].key.field, "fine|case|read");
  EXPECT_EQ(charges[0].units, 2U);
  EXPECT_EQ(charges[1].key.field, "fine|case|edit");
  EXPECT_EQ(charges[2].key.field, "fine|order|read");
}

TEST(Rules, SubjectsFollowTheDimensions) {
  Rules rules({rule("t", 1, {Dimension::tenant}), rule("o", 1, {Dimension::organization}),
               rule("p", 1, {Dimension::user, Dimension::product}),
               rule("ou", 1, {Dimension::organization, Dimension::user})},
              false);
  std::vector<CountedOperation> one{kReadCase};
  auto charges = rules.charges(kAnn, one);
  ASSERT_EQ(charges.size(), 4U);
  EXPECT_EQ(charges[0].key.subject_key, subject_key({"acme", std::nullopt, std::nullopt}));
  EXPECT_EQ(charges[1].key.subject_key, subject_key({"acme", "org1", std::nullopt}));
  EXPECT_EQ(charges[2].key.field, "p|customer");
  EXPECT_EQ(charges[3].key.subject_key, subject_key({"acme", "org1", "ann"}));
}

TEST(Rules, CallerWithoutAnOrganizationSharesTheAccountOfTheEmptyName) {
  Rules rules({rule("o", 1, {Dimension::organization})}, false);
  std::vector<CountedOperation> one{kReadCase};
  EXPECT_EQ(rules.charges({"acme", "", "ann", false}, one)[0].key.subject_key,
            subject_key({"acme", "", std::nullopt}));
}

TEST(Rules, StaffIsBoundOnlyByRulesThatSaySo) {
  Rule both = rule("both", 5);
  both.applies_to_staff = true;
  Rules rules({rule("daily", 1000), both}, true);
  std::vector<CountedOperation> one{kReadCase};
  auto charges = rules.charges({"acme", "", "bob", true}, one);
  ASSERT_EQ(charges.size(), 1U);
  EXPECT_EQ(charges[0].key.field, "both");
  EXPECT_EQ(rules.accounts({"acme", "", "bob", true}).size(), 1U);
}

TEST(Rules, OverridesNameUsersOrOrganizations) {
  Rule user = rule("daily", 1000), organization = rule("org", 5000, {Dimension::organization});
  user.overrides["ann"] = 7;
  organization.overrides["org1"] = 9;
  Rules rules({user, organization}, false);
  std::vector<CountedOperation> one{kReadCase};
  auto charges = rules.charges(kAnn, one);
  EXPECT_EQ(charges[0].limit, 7U);
  EXPECT_EQ(charges[1].limit, 9U);
  EXPECT_EQ(rules.charges({"acme", "org2", "bob", false}, one)[0].limit, 1000U);
}

TEST(Rules, ObservationsAreCountedByObjectAndNeverLimited) {
  Rules rules({rule("daily", 1000)}, true);
  std::vector<CountedOperation> batch{kReadCase, kEditCase, kReadCase};
  auto charges = rules.charges(kAnn, batch);
  ASSERT_EQ(charges.size(), 3U);
  EXPECT_EQ(charges[1].key.field, "#|Case|read");
  EXPECT_EQ(charges[1].units, 2U);
  EXPECT_EQ(charges[1].limit, kUnlimited);
  EXPECT_EQ(charges[1].rule, Rules::kObservation);
  EXPECT_EQ(charges[1].key.subject_key, charges[0].key.subject_key) << "same slot as the user's own quota";
  EXPECT_EQ(charges[2].key.field, "#|Case|edit");
}

TEST(Rules, ObservationsStandWhereTheyAreListedOverTheWindowOfTheFirstRulePerUser) {
  Rule organization = rule("org", 5, {Dimension::organization}), hour = rule("hour", 5);
  organization.window = 60'000ms;
  hour.window = 3'600'000ms;
  Rules rules({organization, hour, rule("daily", 1000)}, true);
  std::vector<CountedOperation> one{kReadCase};
  const AccountCharge charge = rules.charges(kAnn, one).back();
  const auto listed = rules.observation(kAnn);
  EXPECT_EQ(listed.window, 3'600'000ms);
  EXPECT_EQ(listed.bucket, 2'500ms);
  EXPECT_EQ(charge.window, listed.window);
  EXPECT_EQ(charge.bucket, listed.bucket);
  EXPECT_EQ(charge.key.subject_key, listed.subject_key);
  EXPECT_TRUE(charge.key.field.starts_with(listed.prefix));
  EXPECT_EQ(Rules({}, true).observation(kAnn).window, 86'400'000ms);
  EXPECT_EQ(Rules({}, false).observation(kAnn).subject_key, "");
}

TEST(Rules, ObservationFieldsReadBack) {
  auto parsed = Rules::parse_observation("#|Case|read");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->object, "Case");
  EXPECT_EQ(parsed->operation, "read");
  for (const char* other : {"", "#", "#|", "#|Case", "#|a|b|c", "daily", "daily|Case|read", "##|Case|read"})
    EXPECT_FALSE(Rules::parse_observation(other)) << other;
}

TEST(Rules, ObjectNamesCannotForgeAField) {
  Rules rules({rule("fine", 100, {Dimension::user, Dimension::object})}, false);
  std::vector<CountedOperation> one{{"Case|read", "read", ""}};
  EXPECT_EQ(rules.charges(kAnn, one)[0].key.field, "fine|case%7Cread");
}

TEST(Rules, AnotherSpellingOfAnObjectIsNoSecondAccount) {
  Rules rules({rule("fine", 100, {Dimension::user, Dimension::object})}, false);
  std::vector<CountedOperation> two{{"UsrThing", "read", ""}, {"usrTHING", "read", ""}};
  auto charges = rules.charges(kAnn, two);
  ASSERT_EQ(charges.size(), 1U);
  EXPECT_EQ(charges[0].units, 2U);
}

TEST(Rules, AccountsListsWhatNeedsNoCall) {
  Rules rules({rule("daily", 1000), rule("fine", 1, {Dimension::user, Dimension::object}),
               rule("org", 5, {Dimension::organization})},
              true);
  auto accounts = rules.accounts(kAnn);
  ASSERT_EQ(accounts.size(), 2U);
  EXPECT_EQ(accounts[0].key.field, "daily");
  EXPECT_EQ(accounts[1].rule, 2U);
}

TEST(Rules, CandidateLimitMarksEveryAccountItMakes) {
  Rule candidate = rule("next", 10, {Dimension::user, Dimension::object});
  candidate.shadow = true;
  Rule wide = rule("wide", 10);
  wide.shadow = true;
  Rules rules({rule("daily", 1000), candidate, wide}, true);
  std::vector<CountedOperation> batch{kReadCase, kReadOrder};
  for (const AccountCharge& charge : rules.charges(kAnn, batch))
    EXPECT_EQ(charge.shadow, charge.rule == 1 || charge.rule == 2) << charge.key.field;
  auto accounts = rules.accounts(kAnn);
  ASSERT_EQ(accounts.size(), 2U);
  EXPECT_FALSE(accounts[0].shadow);
  EXPECT_TRUE(accounts[1].shadow);
}

}  // namespace
}  // namespace tollgate::quota
