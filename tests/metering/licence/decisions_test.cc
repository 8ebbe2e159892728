// The licence rules of Cherwell portals: every row of the published table, against every combination of circumstances.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/load/rulebook.h"
#include "embedded_cherwell.h"
#include "metering/licence/owners.h"
#include "metering/licence/policy.h"

namespace tollgate::licence {
namespace {

using catalogue::Classification;
using catalogue::Kind;
using catalogue::Operation;
using catalogue::Via;

constexpr int kAny = -1;

// As the sheet has it: site always uses, record, action, alters data, kind, rating field, security right, may consume.
struct SheetRow {
  const char* id;
  std::array<int, 8> when;
  Outcome outcome;
};
constexpr int kFalse = 0, kTrue = 1, kMine = kOwn, kTheirs = kOther;
constexpr int kNormal = 0, kJournal = 1, kRating = 2;
constexpr int kSeeing = kView, kMaking = kCreate, kEditing = kEdit, kStep = kOneStep;
const std::vector<SheetRow> kSheet = {
    {"C1", {kAny, kTheirs, kAny, kAny, kAny, kAny, kFalse, kAny}, Outcome::denied_rights},
    {"C2", {kTrue, kAny, kAny, kAny, kAny, kAny, kAny, kFalse}, Outcome::denied_cannot_edit},
    {"C3", {kTrue, kAny, kAny, kAny, kAny, kAny, kAny, kTrue}, Outcome::consumes},
    {"C4", {kFalse, kMine, kSeeing, kAny, kAny, kAny, kAny, kAny}, Outcome::free},
    {"C5", {kFalse, kMine, kMaking, kAny, kAny, kAny, kAny, kAny}, Outcome::free},
    {"C6", {kFalse, kMine, kEditing, kAny, kAny, kAny, kAny, kAny}, Outcome::free},
    {"C7", {kFalse, kTheirs, kSeeing, kAny, kAny, kAny, kTrue, kAny}, Outcome::free},
    {"C8", {kFalse, kTheirs, kEditing, kAny, kAny, kAny, kTrue, kTrue}, Outcome::consumes},
    {"C9", {kFalse, kTheirs, kEditing, kAny, kAny, kAny, kTrue, kFalse}, Outcome::denied_cannot_edit},
    {"C10", {kFalse, kAny, kStep, kFalse, kAny, kAny, kAny, kAny}, Outcome::free},
    {"C11", {kFalse, kMine, kStep, kTrue, kAny, kAny, kAny, kAny}, Outcome::free},
    {"C12", {kFalse, kTheirs, kStep, kTrue, kJournal, kAny, kTrue, kAny}, Outcome::free},
    {"C13", {kFalse, kTheirs, kStep, kTrue, kRating, kTrue, kTrue, kAny}, Outcome::free},
    {"C14", {kFalse, kTheirs, kStep, kTrue, kRating, kFalse, kTrue, kTrue}, Outcome::consumes},
    {"C15", {kFalse, kTheirs, kStep, kTrue, kRating, kFalse, kTrue, kFalse}, Outcome::denied_cannot_edit},
    {"C16", {kFalse, kTheirs, kStep, kTrue, kNormal, kAny, kTrue, kTrue}, Outcome::consumes},
    {"C17", {kFalse, kTheirs, kStep, kTrue, kNormal, kAny, kTrue, kFalse}, Outcome::denied_cannot_edit},
};

Rulebook rulebook() {
  auto loaded = config::load_rulebook(embedded::k_cherwell, "cherwell.yaml");
  EXPECT_TRUE(loaded) << loaded.error().message;
  return *loaded;
}

// Calls body(facts) for each combination of values.
template <class Body>
void each_combination(Body&& body) {
  Facts facts{};
  for (std::size_t at = 0; at < kInputs;) {
    body(facts);
    for (at = 0; at < kInputs; ++at) {
      if (++facts[at] < values_of(static_cast<Input>(at)).size()) break;
      facts[at] = 0;
    }
  }
}

TEST(Decisions, EveryCombinationIsDecidedByTheRowOfTheSheet) {
  const Rulebook book = rulebook();
  std::map<std::string, int> used;
  int combinations = 0;
  each_combination([&](const Facts& facts) {
    ++combinations;
    const SheetRow* expected = nullptr;
    for (const SheetRow& row : kSheet) {
      bool fits = true;
      for (std::size_t i = 0; i < row.when.size(); ++i)
        fits = fits && (row.when[i] == kAny || row.when[i] == facts[i]);
      if (fits) {
        expected = &row;
        break;
      }
    }
    const DecisionRow* row = first_row(book.decisions, facts);
    const bool switched = facts[0] == kTrue && facts[2] == kView && facts[7] == kFalse && facts[8] == 1;
    if (expected == nullptr) {
      EXPECT_TRUE(facts[1] == kTheirs && facts[2] == kMaking) << "what is made is nobody else's";
      EXPECT_EQ(row, nullptr);
      return;
    }
    ASSERT_NE(row, nullptr) << expected->id;
    if (switched && std::string(expected->id) != "C1") {
      EXPECT_EQ(row->id, "V1");
      EXPECT_EQ(row->outcome, Outcome::free);
    } else {
      EXPECT_EQ(row->id, expected->id);
      EXPECT_EQ(row->outcome, expected->outcome) << row->id;
    }
    ++used[row->id];
  });
  EXPECT_EQ(combinations, 1536);
  EXPECT_EQ(used.size(), kSheet.size() + 1) << "every row decides something";
}

struct Portal {
  explicit Portal(Rulebook book = rulebook()) : policy(std::make_shared<const Rulebook>(std::move(book))) {}
  Decision decide(const catalogue::ObjectUse& use, Owner owner = Owner::unknown, std::string process = "") {
    call = {.kind = Kind::objects, .uses = {use}, .process = std::move(process)};
    const Owner owners[] = {owner};
    return policy.decide(user, call, {}, owners);
  }
  Policy policy;
  identity::Principal user{.user = "ann", .user_type = identity::UserType::portal};
  Classification call;
};

catalogue::ObjectUse use(Operation operation, Via via = Via::primary) {
  return {.object = "Incident", .operation = operation, .via = via, .record = "6dd5/945f/"};
}

TEST(Decisions, UnknownRecordsAreSomebodyElses) {
  Portal portal;
  EXPECT_TRUE(portal.decide(use(Operation::edit)).consumes);
  EXPECT_TRUE(portal.decide(use(Operation::remove), Owner::other).consumes) << "a delete is an edit";
  EXPECT_FALSE(portal.decide(use(Operation::edit), Owner::own).consumes);
  EXPECT_FALSE(portal.decide(use(Operation::remove), Owner::own).consumes);
  EXPECT_FALSE(portal.decide(use(Operation::create)).consumes) << "the creator is its requester";
  EXPECT_EQ(portal.decide(use(Operation::edit)).units.size(), 1U);
}

TEST(Decisions, RightsOfTheUserWinOverTheDefaults) {
  Rulebook book = rulebook();
  book.consume_license_default = false;
  Portal portal(book);
  EXPECT_EQ(portal.decide(use(Operation::edit)).reason, Reason::license_required);
  EXPECT_THAT(portal.decide(use(Operation::edit)).detail, testing::HasSubstr("cannot edit this record"));
  portal.user.consume_license = true;
  EXPECT_EQ(portal.decide(use(Operation::edit)).reason, Reason::ok);
  portal.user.security_right = false;
  const Decision denied = portal.decide(use(Operation::read));
  EXPECT_EQ(denied.reason, Reason::operation_not_licensed);
  EXPECT_FALSE(denied.consumes);
  EXPECT_EQ(portal.decide(use(Operation::read), Owner::own).reason, Reason::ok);
}

TEST(Decisions, AOneStepIsWhatItIsDeclaredToBe) {
  Rulebook book = rulebook();
  book.one_steps = {{"mail", {.alters_data = false}},
                    {"note", {.kind = kJournal}},
                    {"deftype:onestepdef#scope:global#id:whole", {.alters_data = false}}};
  Portal portal(book);
  const auto run = use(Operation::edit, Via::process);
  EXPECT_TRUE(portal.decide(run, Owner::other, "DefType:OneStepDef#Scope:Global#Id:944ab").consumes)
      << "not declared: alters data";
  EXPECT_FALSE(portal.decide(run, Owner::own, "DefType:OneStepDef#Scope:Global#Id:944ab").consumes);
  EXPECT_FALSE(portal.decide(run, Owner::other, "DefType:OneStepDef#Scope:Global#Id:MAIL").consumes);
  EXPECT_FALSE(portal.decide(run, Owner::other, "DefType:OneStepDef#Id:note#Scope:Global").consumes);
  EXPECT_FALSE(portal.decide(run, Owner::other, "DefType:OneStepDef#Scope:Global#Id:whole").consumes);
}

TEST(Decisions, AJournalEntryThatIsSavedDirectlyIsOneWhereItsObjectIsListed) {
  Rulebook book = rulebook();
  book.journal_objects = {"journalnote"};
  Portal portal(book);
  const auto saved_below = [&](const char* child, Owner owner) {
    portal.call = {.kind = Kind::objects, .uses = {use(Operation::edit)}, .makes_related = child};
    return portal.policy.decide(portal.user, portal.call, {}, std::span(&owner, 1));
  };
  EXPECT_FALSE(saved_below("JournalNote", Owner::other).consumes);
  EXPECT_EQ(saved_below("JournalNote", Owner::other).units.size(), 1U) << "it is an operation all the same";
  EXPECT_TRUE(saved_below("Task", Owner::other).consumes);
  EXPECT_FALSE(saved_below("Task", Owner::own).consumes);
  portal.user.security_right = false;
  EXPECT_EQ(saved_below("JournalNote", Owner::other).reason, Reason::operation_not_licensed);
}

TEST(Decisions, OnAnAlwaysUseSiteEverythingConsumesAndStaffNever) {
  Rulebook book = rulebook();
  book.always_use_sites = {"it"};
  Portal portal(book);
  EXPECT_FALSE(portal.decide(use(Operation::read), Owner::own).consumes);
  portal.user.site = "it";
  EXPECT_TRUE(portal.decide(use(Operation::read), Owner::own).consumes);
  portal.user.consume_license = false;
  EXPECT_EQ(portal.decide(use(Operation::read), Owner::own).reason, Reason::license_required);
  portal.user.user_type = identity::UserType::staff;
  EXPECT_EQ(portal.decide(use(Operation::edit), Owner::other).reason, Reason::ok);
  EXPECT_FALSE(portal.decide(use(Operation::edit), Owner::other).consumes);
}

TEST(Decisions, OneRefusedPartRefusesABatchAndOneThatConsumesMakesItConsume) {
  Portal portal;
  portal.call = {.kind = Kind::objects, .uses = {use(Operation::edit), use(Operation::edit)}};
  portal.call.uses[1].part = 1;
  const Owner mixed[] = {Owner::own, Owner::other};
  Decision decision = portal.policy.decide(portal.user, portal.call, {}, mixed);
  EXPECT_TRUE(decision.consumes);
  EXPECT_EQ(decision.units.size(), 2U);
  portal.user.consume_license = false;
  decision = portal.policy.decide(portal.user, portal.call, {}, mixed);
  EXPECT_EQ(decision.reason, Reason::license_required);
  EXPECT_FALSE(decision.consumes);
}

TEST(Owners, AreBoundedInNumberAndAge) {
  const UnixTime now = from_unix_seconds(1'795'000'000);
  OwnerTable table(160);
  for (int i = 0; i < 10'000; ++i) table.learn("crm", std::to_string(i), "ann", now);
  EXPECT_LE(table.size(), 176U);
  table.learn("crm", "a", "ann", now);
  EXPECT_EQ(table.find("crm", "a", now + Seconds(300), Seconds(300)), "ann");
  EXPECT_FALSE(table.find("crm", "a", now + Seconds(301), Seconds(300))) << "it may be another's by now";
  EXPECT_FALSE(table.find("crm", "a", now - Seconds(301), Seconds(300)));
  EXPECT_FALSE(table.find("other", "a", now, Seconds(300))) << "of another CRM";
  table.learn("crm", "a", "bob", now);
  EXPECT_EQ(table.find("crm", "a", now, Seconds(300)), "bob");
  table.forget("crm", "a");
  EXPECT_FALSE(table.find("crm", "a", now, Seconds(300)));
}

}  // namespace
}  // namespace tollgate::licence
