#include "metering/licence/policy.h"

#include <gtest/gtest.h>

#include <deque>

#include <fstream>
#include <sstream>

#include "config/load/rulebook.h"
#include "embedded_bpmonline.h"

namespace tollgate::licence {
namespace {

using catalogue::Classification;
using catalogue::Kind;
using catalogue::ObjectUse;
using catalogue::Operation;
using catalogue::Via;

constexpr Operation kReadCreateEditDelete[] = {Operation::read, Operation::create, Operation::edit,
                                               Operation::remove};

const std::vector<std::string> kSelfService{"bpm'online self-service portal cloud"};
const std::vector<std::string> kCustomer{"Creatio Customer Portal on-site"};
const std::vector<std::string> kPartner{"Creatio partner portal cloud"};

Rulebook preset(std::vector<std::string> main_products = {"service_enterprise", "sales_enterprise"}) {
  auto rulebook = config::load_rulebook(embedded::k_bpmonline, "bpmonline.yaml");
  EXPECT_TRUE(rulebook.has_value()) << (rulebook ? "" : rulebook.error().message);
  rulebook->main_products = std::move(main_products);
  rulebook->custom_prefixes = {"Usr"};
  return *rulebook;
}
Policy policy_of(Rulebook rulebook) {
  return Policy(std::make_shared<const Rulebook>(std::move(rulebook)));
}

identity::Principal user(std::vector<std::string> licenses,
                         identity::UserType type = identity::UserType::portal) {
  identity::Principal out;
  out.user = "ann";
  out.tenant = "acme";
  out.user_type = type;
  out.licenses = std::move(licenses);
  return out;
}
ObjectUse use(std::string object, Operation operation, Via via = Via::primary, std::uint32_t part = 0,
              bool batch = false) {
  return {std::move(object), operation, via, part, batch};
}
// A decision's units view the classification: it is kept until the program ends.
Classification& touching(std::vector<ObjectUse> uses, Kind kind = Kind::objects) {
  static std::deque<Classification> kept;
  Classification& out = kept.emplace_back();
  out.kind = kind;
  out.uses = std::move(uses);
  return out;
}
Reason decide(const Policy& policy, const std::vector<std::string>& licenses, const std::string& object,
              Operation op) {
  return policy.decide(user(licenses), touching({use(object, op)})).reason;
}

// The whole table of the vendor's licence sheet: section, its root, and what self-service, customer and partner may do.
struct Row {
  const char* section;
  const char* root;
  const char* rights[3];
};
constexpr Row kMatrix[] = {
    {"contractors", "Account", {"-", "-", "-"}},
    {"contacts", "Contact", {"-", "-", "-"}},
    {"knowledge_base", "KnowledgeBase", {"R", "R", "R"}},
    {"cases", "Case", {"RCE", "RCE", "RCE"}},
    {"leads", "Lead", {"-", "-", "RCE"}},
    {"sales", "Opportunity", {"-", "-", "RCE"}},
    {"orders", "Order", {"-", "-", "RCE"}},
    {"documents", "Document", {"-", "-", "RCE"}},
    {"marketing_activities", "MktgActivity", {"-", "-", "RCE"}},
    {"fin_requests", "FinApplication", {"-", "RCE", "-"}},
    {"contracts", "Contract", {"-", "RCE", "-"}},
    {"partner_program", "Partnership", {"-", "-", "R"}},
};
const std::vector<std::string>* const kLicenses[] = {&kSelfService, &kCustomer, &kPartner};

TEST(PortalMatrix, EveryProductSectionAndOperationIsAsTheLicenceSheetSays) {
  Policy policy = policy_of(preset());
  for (const Row& row : kMatrix)
    for (std::size_t product = 0; product < 3; ++product)
      for (std::size_t i = 0; i < 4; ++i) {
        const std::string_view rights = row.rights[product];
        const bool granted = rights.find("RCED"[i]) != std::string_view::npos;
        const Reason expected = granted         ? Reason::ok
                                : rights == "-" ? Reason::section_not_licensed
                                                : Reason::operation_not_licensed;
        Decision decision =
            policy.decide(user(*kLicenses[product]), touching({use(row.root, kReadCreateEditDelete[i])}));
        SCOPED_TRACE(testing::Message() << row.section << " " << catalogue::name(kReadCreateEditDelete[i])
                                        << " product " << product << ": " << decision.detail);
        EXPECT_EQ(decision.reason, expected);
        EXPECT_EQ(decision.metered, granted);
        EXPECT_EQ(decision.detail.empty(), granted);
        ASSERT_EQ(decision.units.size(), 1U) << "listed for the usage fact also when denied";
        EXPECT_EQ(decision.units[0].section, row.section);
        EXPECT_EQ(decision.units[0].object, row.root);
        EXPECT_EQ(decision.units[0].product.empty(), !granted);
      }
}

TEST(PortalMatrix, ChildrenFollowTheirSectionAndAnyWriteOnThemIsAnEdit) {
  Policy policy = policy_of(preset());
  for (const Section& section : policy.rulebook().sections)
    for (const std::string& child : section.children)
      for (std::size_t product = 0; product < 3; ++product)
        for (Operation operation : kReadCreateEditDelete) {
          const Operation on_section = operation == Operation::read ? Operation::read : Operation::edit;
          EXPECT_EQ(decide(policy, *kLicenses[product], child, operation),
                    decide(policy, *kLicenses[product], section.entity, on_section))
              << child << " " << catalogue::name(operation) << " product " << product;
        }
}

TEST(PortalMatrix, DeleteOnTheRootIsNeverGrantedButOnAChildItIsAnEdit) {
  Policy policy = policy_of(preset());
  EXPECT_EQ(decide(policy, kCustomer, "CaseFile", Operation::remove), Reason::ok);
  EXPECT_EQ(decide(policy, kCustomer, "Case", Operation::remove), Reason::operation_not_licensed);
}

// A path that goes on by a name which the rulebook does not know: it may lead to an object of any section.
TEST(UnknownName, LeadsNowhereFromAFreeObjectNorInOrderToWrite) {
  using catalogue::Beyond;
  Rulebook strict = preset();
  strict.unknown_denied = true;
  const Policy lenient_policy = policy_of(preset()), strict_policy = policy_of(std::move(strict));
  struct Cell {
    const char* object;
    Operation operation;
    Beyond beyond;
    Reason lenient, strict;
  };
  constexpr Reason kOk = Reason::ok, kDenied = Reason::section_not_licensed;
  for (const Cell& cell : {Cell{"City", Operation::read, Beyond::nothing, kOk, kOk},
                           Cell{"City", Operation::edit, Beyond::nothing, kOk, kOk},
                           Cell{"City", Operation::read, Beyond::property, kOk, kDenied},
                           Cell{"Unheard", Operation::read, Beyond::property, kOk, kDenied},
                           Cell{"City", Operation::edit, Beyond::property, kDenied, kDenied},
                           Cell{"City", Operation::read, Beyond::object, kDenied, kDenied},
                           Cell{"Unheard", Operation::read, Beyond::object, kDenied, kDenied},
                           Cell{"CaseStatus", Operation::read, Beyond::object, kDenied, kDenied},
                           Cell{"City", Operation::edit, Beyond::object, kDenied, kDenied},
                           Cell{"Case", Operation::read, Beyond::property, kOk, kOk},
                           Cell{"Case", Operation::edit, Beyond::property, kOk, kOk},
                           Cell{"Case", Operation::read, Beyond::object, kOk, kOk},
                           Cell{"Case", Operation::edit, Beyond::object, kDenied, kDenied}}) {
    ObjectUse asked = use(cell.object, cell.operation);
    asked.beyond = cell.beyond;
    SCOPED_TRACE(testing::Message() << cell.object << " " << catalogue::name(cell.operation) << " "
                                    << static_cast<int>(cell.beyond));
    EXPECT_EQ(lenient_policy.decide(user(kSelfService), touching({asked})).reason, cell.lenient);
    EXPECT_EQ(strict_policy.decide(user(kSelfService), touching({asked})).reason, cell.strict);
    EXPECT_EQ(strict_policy.decide(user({}, identity::UserType::staff), touching({asked})).reason, kOk);
  }
}

TEST(PortalMatrix, ViewsAreReadInPlaceOfTheRoot) {
  Policy policy = policy_of(preset());
  EXPECT_EQ(decide(policy, kPartner, "VwPortalOpportunity", Operation::read), Reason::ok);
  EXPECT_EQ(decide(policy, kPartner, "VwPortalOpportunity", Operation::remove),
            Reason::operation_not_licensed);
  EXPECT_EQ(decide(policy, kCustomer, "VwPortalOpportunity", Operation::read), Reason::section_not_licensed);
}

TEST(PortalMatrix, LookupsFeedAndKnownObjectsAreFree) {
  Policy policy = policy_of(preset());
  for (const char* object : {"OrderPaymentStatus", "CaseStatus", "LeadType", "Comment", "Like", "City",
                             "SysImage", "Activity", "NobodyKnowsThis"}) {
    Decision decision = policy.decide(user(kSelfService), touching({use(object, Operation::read)}));
    EXPECT_EQ(decision.reason, Reason::ok) << object;
    EXPECT_FALSE(decision.metered) << object;
    EXPECT_TRUE(decision.units.empty()) << object;
  }
}

TEST(PortalMatrix, NamesCompareWithoutCase) {
  Policy policy = policy_of(preset());
  Decision decision = policy.decide(user(kCustomer), touching({use("cASE", Operation::read)}));
  ASSERT_EQ(decision.units.size(), 1U);
  EXPECT_EQ(decision.units[0].object, "Case");
  EXPECT_EQ(decide(policy, kCustomer, "ACCOUNT", Operation::read), Reason::section_not_licensed);
}

// Bits of Rulebook::products, by their ids.
std::vector<std::string> seats_for(const Policy& policy, std::vector<std::string> licenses,
                                   std::vector<ObjectUse> uses,
                                   identity::UserType type = identity::UserType::portal) {
  const std::uint32_t needed =
      policy.decide(user(std::move(licenses), type), touching(std::move(uses))).seat_products;
  std::vector<std::string> out;
  for (std::size_t i = 0; i < policy.rulebook().products.size(); ++i)
    if ((needed >> i & 1) != 0) out.push_back(policy.rulebook().products[i].id);
  return out;
}
std::vector<std::string> joined(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(SeatCaps, OnlyOperationsThatACappedProductAloneGrantsNeedItsSeat) {
  const Policy policy = policy_of(preset());
  const std::vector<std::string> self_service{"self_service"}, none;
  EXPECT_EQ(seats_for(policy, kSelfService, {use("Case", Operation::read)}), self_service);
  EXPECT_EQ(seats_for(policy, kSelfService, {use("CaseFile", Operation::remove)}), self_service);
  EXPECT_EQ(seats_for(policy, kSelfService, {use("City", Operation::read)}), none) << "free for all";
  EXPECT_EQ(seats_for(policy, kSelfService, {use("Case", Operation::read, Via::expand)}), none);
  EXPECT_EQ(seats_for(policy, kCustomer, {use("Case", Operation::read)}), none);
  EXPECT_EQ(seats_for(policy, joined(kSelfService, kCustomer), {use("Case", Operation::read)}), none);
  EXPECT_EQ(seats_for(policy, kSelfService, {use("Case", Operation::read)}, identity::UserType::staff), none);
}

TEST(SeatCaps, CallOfSeveralPartsNeedsASeatWhenOneOfThemDoes) {
  Rulebook rulebook = preset();
  rulebook.products[1].rights.erase("cases");  // a customer portal without cases
  const Policy policy = policy_of(rulebook);
  const std::vector<std::string> both = joined(kSelfService, kCustomer), self_service{"self_service"};
  EXPECT_TRUE(seats_for(policy, both, {use("KnowledgeBase", Operation::read)}).empty());
  EXPECT_EQ(seats_for(policy, both,
                      {use("KnowledgeBase", Operation::read, Via::primary, 0, true),
                       use("Case", Operation::read, Via::primary, 1, true)}),
            self_service);
}

TEST(SeatCaps, ProductWithoutACapIsTheOneThatIsNamed) {
  const Policy policy = policy_of(preset());
  const Classification& read = touching({use("Case", Operation::read)});
  EXPECT_EQ(policy.decide(user(kSelfService), read).units[0].product, "self_service");
  EXPECT_EQ(policy.decide(user(joined(kSelfService, kCustomer)), read).units[0].product, "customer");
}

TEST(SeatCaps, CapacityIsTheLeastOfTheSheetsNumbersThatAreKnown) {
  Rulebook rulebook = preset();
  const auto capacity = [&](std::uint32_t users) {
    rulebook.main_product_users = users;
    return seat_capacity(rulebook, rulebook.products[0]);
  };
  EXPECT_EQ(capacity(1), 100U);
  EXPECT_EQ(capacity(99), 9'900U);
  EXPECT_EQ(capacity(100), 10'000U);
  EXPECT_EQ(capacity(4'000'000'000), 10'000U);
  EXPECT_EQ(capacity(0), 10'000U);
  EXPECT_FALSE(seat_capacity(rulebook, rulebook.products[1]));
}

TEST(Availability, FollowsTheOwnedMainProduct) {
  const std::vector<std::string> owned{"studio",
                                       "sales",
                                       "sales_enterprise",
                                       "marketing",
                                       "customer_center",
                                       "service_enterprise",
                                       "bank_customer_journey",
                                       "crm_bundle"};
  for (const std::string& main_product : owned) {
    Policy policy = policy_of(preset({main_product}));
    const bool service = main_product == "customer_center" || main_product == "service_enterprise" ||
                         main_product == "bank_customer_journey";
    const bool sales = main_product == "sales_enterprise" || main_product == "crm_bundle";
    EXPECT_EQ(decide(policy, kSelfService, "Case", Operation::read),
              service ? Reason::ok : Reason::product_unavailable)
        << main_product;
    EXPECT_EQ(decide(policy, kPartner, "Case", Operation::read),
              sales ? Reason::ok : Reason::product_unavailable)
        << main_product;
    EXPECT_EQ(decide(policy, kCustomer, "Case", Operation::read), Reason::ok) << main_product;
  }
}

TEST(Availability, OneSuitableMainProductIsEnough) {
  Policy policy = policy_of(preset({"studio", "sales", "customer_center"}));
  EXPECT_EQ(decide(policy, kSelfService, "Case", Operation::read), Reason::ok);
  EXPECT_EQ(decide(policy, kPartner, "Case", Operation::read), Reason::product_unavailable);
}

TEST(Availability, WithoutAnyMainProductOnlyTheUnrestrictedProductWorks) {
  Policy policy = policy_of(preset({}));
  EXPECT_EQ(decide(policy, kSelfService, "Case", Operation::read), Reason::product_unavailable);
  EXPECT_EQ(decide(policy, kCustomer, "Case", Operation::read), Reason::ok);
}

TEST(Availability, AnUnavailableLicenceDoesNotSpoilAnAvailableOne) {
  Policy policy = policy_of(preset({"studio"}));
  std::vector<std::string> both = kPartner;
  both.push_back(kCustomer[0]);
  EXPECT_EQ(decide(policy, both, "Contract", Operation::read), Reason::ok);
  EXPECT_EQ(decide(policy, both, "Lead", Operation::read), Reason::section_not_licensed);
}

TEST(LicenseNames, MatchAnySpellingOfTheDeployment) {
  Policy policy = policy_of(preset());
  const char* good[] = {"customer portal on-site", "CUSTOMER PORTAL CLOUD",
                        "bpm'online customer portal onsite (2020)", "Creatio customer portal on site",
                        "customer portal on-site/cloud"};
  for (const char* name : good)
    EXPECT_EQ(decide(policy, {name}, "Contract", Operation::read), Reason::ok) << name;
  EXPECT_EQ(decide(policy, {"Creatio self service portal cloud"}, "Case", Operation::read), Reason::ok);
  EXPECT_EQ(decide(policy, {"creatio self-service portal on-site"}, "Case", Operation::read), Reason::ok);
  EXPECT_EQ(decide(policy, {"partner portal on-site/cloud"}, "Lead", Operation::create), Reason::ok);
}

TEST(LicenseNames, OtherNamesGrantNothing) {
  Policy policy = policy_of(preset());
  const char* bad[] = {"",
                       "customer portal",
                       "portal cloud",
                       "service enterprise cloud",
                       "customer  portal cloud",
                       "customerportal cloud",
                       "External user"};
  for (const char* name : bad)
    EXPECT_EQ(decide(policy, {name}, "Case", Operation::read), Reason::license_missing) << name;
  EXPECT_EQ(decide(policy, {}, "Case", Operation::read), Reason::license_missing);
}

TEST(LicenseNames, AVeryLongNameMatchesNothing) {
  Policy policy = policy_of(preset());
  const std::string name = std::string(Policy::kLicenseNameMax, 'x') + "customer portal cloud";
  EXPECT_EQ(decide(policy, {name}, "Case", Operation::read), Reason::license_missing);
}

TEST(LicenseNames, SeveralLicencesAddUp) {
  Policy policy = policy_of(preset());
  std::vector<std::string> both = kCustomer;
  both.push_back(kPartner[0]);
  EXPECT_EQ(decide(policy, both, "Contract", Operation::edit), Reason::ok);
  EXPECT_EQ(decide(policy, both, "Lead", Operation::edit), Reason::ok);
  EXPECT_EQ(decide(policy, both, "Account", Operation::read), Reason::section_not_licensed);
  Decision decision = policy.decide(user(both), touching({use("Lead", Operation::edit)}));
  EXPECT_EQ(decision.units.at(0).product, "partner");
}

TEST(LicenseNames, AnotherPolicyIsNotJudgedByRememberedNames) {
  Policy first = policy_of(preset());
  EXPECT_EQ(decide(first, {"gold card"}, "Case", Operation::read), Reason::license_missing);
  Rulebook changed = preset();
  changed.products[1].name_patterns = {"gold"};
  Policy second = policy_of(std::move(changed));
  EXPECT_EQ(decide(second, {"gold card"}, "Case", Operation::read), Reason::ok);
  EXPECT_EQ(decide(first, {"gold card"}, "Case", Operation::read), Reason::license_missing);
}

TEST(CustomSections, OnlyListedRootsUpToTheProductsLimit) {
  Rulebook rulebook = preset();
  rulebook.custom_sections = {"UsrOne", "UsrTwo", "UsrThree"};
  Policy policy = policy_of(std::move(rulebook));
  for (const char* root : {"UsrOne", "UsrTwo", "UsrThree", "usrtwo"}) {
    EXPECT_EQ(decide(policy, kCustomer, root, Operation::create), Reason::ok) << root;
    EXPECT_EQ(decide(policy, kPartner, root, Operation::edit), Reason::ok) << root;
    EXPECT_EQ(decide(policy, kSelfService, root, Operation::read), Reason::custom_section_limit) << root;
    EXPECT_EQ(decide(policy, kCustomer, root, Operation::remove), Reason::operation_not_licensed) << root;
  }
  EXPECT_EQ(decide(policy, kCustomer, "UsrFour", Operation::read), Reason::custom_section_limit);
  EXPECT_EQ(decide(policy, kCustomer, "usrfour", Operation::read), Reason::custom_section_limit);
  EXPECT_EQ(decide(policy, kCustomer, "UsrFour", Operation::remove), Reason::operation_not_licensed);
  Decision decision = policy.decide(user(kCustomer), touching({use("usrtwo", Operation::read)}));
  EXPECT_EQ(decision.units.at(0).section, "custom:UsrTwo");
  EXPECT_EQ(decision.units.at(0).object, "UsrTwo");
}

TEST(CustomSections, AFourthInTheListIsBeyondTheLimitOfThree) {
  Rulebook rulebook = preset();
  rulebook.custom_sections = {"UsrOne", "UsrTwo", "UsrThree", "UsrFour"};
  Policy policy = policy_of(std::move(rulebook));
  EXPECT_EQ(decide(policy, kCustomer, "UsrThree", Operation::read), Reason::ok);
  EXPECT_EQ(decide(policy, kCustomer, "UsrFour", Operation::read), Reason::custom_section_limit);
}

TEST(CustomSections, WithNoneListedThePrefixIsEnoughToDeny) {
  Policy policy = policy_of(preset());
  Decision decision = policy.decide(user(kCustomer), touching({use("UsrRealty", Operation::read)}));
  EXPECT_EQ(decision.reason, Reason::custom_section_limit);
  EXPECT_EQ(decision.detail,
            "UsrRealty belongs to a custom section that is not one of the permitted ones (none is "
            "configured); Customer "
            "Portal includes 3 of them");
}

TEST(CustomSections, DetailsOfAListedRootFollowIt) {
  Rulebook rulebook = preset();
  rulebook.custom_sections = {"UsrRealty"};
  rulebook.custom_children["UsrRealty"] = {"UsrRealtyFile", "RealtyVisit"};
  rulebook.unlicensed_objects = {"UsrColour"};
  Policy policy = policy_of(std::move(rulebook));
  EXPECT_EQ(decide(policy, kCustomer, "UsrRealtyFile", Operation::remove), Reason::ok)
      << "an edit of the section";
  EXPECT_EQ(decide(policy, kCustomer, "RealtyVisit", Operation::create), Reason::ok) << "needs no prefix";
  EXPECT_EQ(decide(policy, kSelfService, "RealtyVisit", Operation::read), Reason::custom_section_limit);
  EXPECT_EQ(decide(policy, kSelfService, "UsrColour", Operation::edit), Reason::ok) << "declared free";
  EXPECT_EQ(policy.resolve(use("UsrRealtyFile", Operation::remove)).section_operation, Operation::edit);
}

TEST(Sections, OfTheMainApplicationThatNoPortalOffersAreRefused) {
  Policy policy = policy_of(preset());
  for (const auto& licenses : {kSelfService, kCustomer, kPartner})
    for (const char* object :
         {"Invoice", "invoiceproduct", "Project", "Employee", "Campaign", "BulkEmail", "Event"})
      EXPECT_EQ(decide(policy, licenses, object, Operation::read), Reason::section_not_licensed) << object;
  EXPECT_EQ(decide(policy, kCustomer, "InvoicePaymentStatus", Operation::read), Reason::ok);
}

TEST(CustomSections, DetailsThatTheWizardMakesBelongToTheSection) {
  Rulebook rulebook = preset();
  rulebook.custom_sections = {"UsrRealty", "UsrVisit"};
  rulebook.unlicensed_objects = {"UsrVisitTag"};
  Policy policy = policy_of(rulebook);
  for (const char* detail : {"UsrRealtyFile", "usrrealtyinfolder", "UsrRealtyInTag", "UsrVisitVisa"}) {
    EXPECT_EQ(decide(policy, kCustomer, detail, Operation::read), Reason::ok) << detail;
    EXPECT_EQ(decide(policy, kCustomer, detail, Operation::remove), Reason::ok)
        << detail;  // an edit of the section
    EXPECT_EQ(decide(policy, kSelfService, detail, Operation::read), Reason::custom_section_limit) << detail;
  }
  EXPECT_TRUE(policy.decide(user(kCustomer), touching({use("UsrVisitTag", Operation::read)})).units.empty());
  EXPECT_EQ(decide(policy, kCustomer, "UsrRealtyPrice", Operation::read), Reason::custom_section_limit);
}

TEST(CustomSections, OtherPublishersPrefixesAreConfiguration) {
  Rulebook rulebook = preset();
  Policy without = policy_of(rulebook);
  rulebook.custom_prefixes = {"Usr", "BC"};
  Policy with = policy_of(std::move(rulebook));
  EXPECT_EQ(decide(without, kCustomer, "BCNPS", Operation::create), Reason::ok);
  EXPECT_EQ(decide(with, kCustomer, "BCNPS", Operation::create), Reason::custom_section_limit);
}

TEST(Uses, ExpandFilterAndJoinAreReportedNotEnforced) {
  Policy policy = policy_of(preset());
  for (Via via : {Via::expand, Via::filter, Via::join}) {
    Decision decision = policy.decide(
        user(kCustomer), touching({use("Case", Operation::read), use("Contact", Operation::read, via)}));
    EXPECT_EQ(decision.reason, Reason::ok);
    EXPECT_EQ(decision.units.size(), 1U);
  }
}

TEST(Uses, NavigationIsEnforcedLikeThePrimaryObject) {
  Policy policy = policy_of(preset());
  Decision decision = policy.decide(
      user(kCustomer), touching({use("Case", Operation::read), use("Account", Operation::read, Via::nav)}));
  EXPECT_EQ(decision.reason, Reason::section_not_licensed);
  EXPECT_EQ(decision.units.size(), 1U) << "one part, one unit";
}

TEST(Uses, AnUpsertNeedsBothRightsAndCostsOneUnit) {
  Policy policy = policy_of(preset());
  Decision decision = policy.decide(user(kCustomer),
                                    touching({use("Case", Operation::edit), use("Case", Operation::create)}));
  EXPECT_EQ(decision.reason, Reason::ok);
  EXPECT_EQ(decision.units.size(), 1U);
}

TEST(Uses, ABatchCostsOneUnitAPartThatTouchesALicensedObject) {
  Policy policy = policy_of(preset());
  Decision decision =
      policy.decide(user(kCustomer), touching({use("Case", Operation::edit, Via::primary, 0, true),
                                               use("CaseFile", Operation::remove, Via::primary, 1, true),
                                               use("SysSettings", Operation::read, Via::primary, 2, true),
                                               use("Case", Operation::read, Via::primary, 3, true),
                                               use("CaseStatus", Operation::read, Via::expand, 3, true)}));
  EXPECT_EQ(decision.reason, Reason::ok);
  ASSERT_EQ(decision.units.size(), 3U);
  EXPECT_EQ(decision.units[1].object, "CaseFile");
  EXPECT_EQ(decision.units[1].operation, Operation::remove);
  EXPECT_EQ(decision.units[1].section, "cases");
}

TEST(Uses, OneDeniedPartDeniesTheBatchAndIsNamed) {
  Policy policy = policy_of(preset());
  Decision decision =
      policy.decide(user(kCustomer), touching({use("Case", Operation::create, Via::primary, 0, true),
                                               use("Case", Operation::edit, Via::primary, 1, true),
                                               use("Case", Operation::remove, Via::primary, 2, true)}));
  EXPECT_EQ(decision.reason, Reason::operation_not_licensed);
  EXPECT_EQ(decision.detail,
            "batch[2]: Delete on Case (section Cases) is not part of Customer Portal: it grants read, "
            "create, edit");
  EXPECT_FALSE(decision.metered);
  EXPECT_EQ(decision.units.size(), 3U);
}

TEST(Uses, DeclaredProcessesCountAndUndeclaredOnesPass) {
  Policy policy = policy_of(preset());
  Decision declared =
      policy.decide(user(kCustomer), touching({use("Case", Operation::create, Via::process)}));
  EXPECT_TRUE(declared.metered);
  EXPECT_EQ(policy.decide(user(kCustomer), touching({use("Lead", Operation::create, Via::process)})).reason,
            Reason::section_not_licensed);
  Decision undeclared = policy.decide(
      user(kCustomer),
      touching({use("process:UsrCreateCase", Operation::execute, Via::process)}, Kind::unknown));
  EXPECT_EQ(undeclared.reason, Reason::ok);
  EXPECT_TRUE(undeclared.units.empty());
}

TEST(Uses, FreeCallsAreStillBoundByTheLicence) {
  Policy policy = policy_of(preset());
  Classification chunk = touching({use("CaseFile", Operation::edit, Via::service)});
  chunk.counted = false;
  Decision decision = policy.decide(user(kCustomer), chunk);
  EXPECT_EQ(decision.reason, Reason::ok);
  EXPECT_TRUE(decision.units.empty());
  EXPECT_FALSE(decision.metered);
  chunk.uses[0].object = "FileLead";
  EXPECT_EQ(policy.decide(user(kCustomer), chunk).reason, Reason::section_not_licensed);
}

TEST(Uses, UnknownCallsAreBoundByTheObjectsTheyNameButNotCounted) {
  Policy policy = policy_of(preset());
  EXPECT_EQ(
      policy
          .decide(user(kCustomer), touching({use("Account", Operation::create, Via::service)}, Kind::unknown))
          .reason,
      Reason::section_not_licensed);
  Decision decision =
      policy.decide(user(kCustomer), touching({use("Case", Operation::create, Via::service)}, Kind::unknown));
  EXPECT_EQ(decision.reason, Reason::ok);
  EXPECT_TRUE(decision.units.empty());
}

TEST(Kinds, PagesLogInAndForeignAddressesNeedNoLicence) {
  Policy policy = policy_of(preset());
  for (Kind kind : {Kind::asset, Kind::authentication, Kind::foreign})
    EXPECT_EQ(policy.decide(user({}), touching({}, kind)).reason, Reason::ok);
  for (Kind kind : {Kind::metadata, Kind::basic_function, Kind::unknown, Kind::objects})
    EXPECT_EQ(policy.decide(user({}), touching({}, kind)).reason, Reason::license_missing);
}

TEST(Kinds, BasicFunctionsAreFree) {
  Policy policy = policy_of(preset());
  Decision decision = policy.decide(
      user(kCustomer), touching({use("KnowledgeBase", Operation::read, Via::service)}, Kind::basic_function));
  EXPECT_EQ(decision.reason, Reason::ok);
  EXPECT_TRUE(decision.units.empty());
}

TEST(Staff, MayDoEverythingAndItsCallsAreListedForRulesThatBindStaff) {
  Policy policy = policy_of(preset());
  for (const char* object : {"Account", "Case", "UsrAnything"}) {
    Decision decision =
        policy.decide(user({}, identity::UserType::staff), touching({use(object, Operation::remove)}));
    EXPECT_EQ(decision.reason, Reason::ok) << object;
    EXPECT_EQ(decision.units.size(), 1U) << object;
    EXPECT_FALSE(decision.metered) << object;
  }
  EXPECT_EQ(
      policy.decide(user({}, identity::UserType::unknown), touching({use("Case", Operation::read)})).reason,
      Reason::license_missing)
      << "a user of unknown type is a portal user";
}

TEST(SystemNone, EveryObjectIsLicensedAndNothingIsDenied) {
  Rulebook rulebook;
  rulebook.system = "none";
  Policy policy = policy_of(std::move(rulebook));
  for (auto type : {identity::UserType::portal, identity::UserType::staff}) {
    Decision decision =
        policy.decide(user({}, type), touching({use("Account", Operation::remove, Via::primary, 0, true),
                                                use("Anything", Operation::read, Via::primary, 1, true),
                                                use("Contact", Operation::read, Via::expand, 1, true)}));
    EXPECT_EQ(decision.reason, Reason::ok);
    EXPECT_TRUE(decision.metered);
    ASSERT_EQ(decision.units.size(), 2U);
    EXPECT_EQ(decision.units[1].object, "Anything");
    EXPECT_EQ(decision.units[1].product, "");
  }
  EXPECT_FALSE(policy.decide(user({}), touching({}, Kind::metadata)).metered);
}

TEST(Detail, SaysWhatIsMissingInPlainWords) {
  Policy policy = policy_of(preset({"sales"}));
  auto detail = [&](std::vector<std::string> licenses, const char* object, Operation operation) {
    return policy.decide(user(std::move(licenses)), touching({use(object, operation)})).detail;
  };
  EXPECT_EQ(detail({}, "Case", Operation::read), "The user has no portal licence");
  EXPECT_EQ(detail({"x"}, "Case", Operation::read), "None of the user's licences is a portal licence");
  EXPECT_EQ(
      detail(kPartner, "Case", Operation::read),
      "Partner Portal is available only with sales_enterprise, crm_bundle; this installation has sales");
  EXPECT_EQ(detail(kCustomer, "Account", Operation::read),
            "Account (section Contractors) is not part of Customer Portal: it covers Knowledge Base, Cases, "
            "Requests for "
            "financial products, Contracts");
  EXPECT_EQ(
      detail(kCustomer, "KnowledgeBaseFile", Operation::create),
      "Create on KnowledgeBaseFile (section Knowledge Base) is not part of Customer Portal: it grants read");
}

constexpr const char* kAccount = "25d7c1ab-1de0-4501-b402-02e0e5a72d6e";

// A portal user of the partner's account, and one use of a named record.
Decision partner_program(Operation operation, Owner owner, std::string account = kAccount,
                         std::string record = "Partnership/405947d0-2ffb-4ded-8675-0475f19f5a81",
                         identity::UserType type = identity::UserType::portal) {
  const Policy policy = policy_of(preset());
  identity::Principal caller = user(kPartner, type);
  caller.account = std::move(account);
  ObjectUse named = use("Partnership", operation);
  named.record = std::move(record);
  const std::vector<Owner> owners{owner};
  return policy.decide(caller, touching({named}), {}, owners);
}

TEST(OwnOrganization, ASingleRecordIsTheOwnOrganizationsOrRefused) {
  EXPECT_EQ(partner_program(Operation::read, Owner::own).reason, Reason::ok);
  EXPECT_TRUE(partner_program(Operation::read, Owner::own).metered);
  for (const Owner owner : {Owner::other, Owner::unknown}) {
    const Decision refused = partner_program(Operation::read, owner);
    EXPECT_EQ(refused.reason, Reason::operation_not_licensed);
    EXPECT_FALSE(refused.metered);
  }
  const std::string only =
      "Read on Partnership (section Partner program): only the records of the user's own organization are "
      "licensed, and ";
  EXPECT_EQ(partner_program(Operation::read, Owner::other).detail, only + "this is another's");
  EXPECT_EQ(partner_program(Operation::read, Owner::unknown).detail,
            only + "it could not be found out whose this one is");
  EXPECT_EQ(partner_program(Operation::read, Owner::other, "").detail,
            only + "it is not known which account that is");
}

TEST(OwnOrganization, ItIsReadOnlyWhoeverOwnsIt) {
  for (const Operation operation : {Operation::create, Operation::edit, Operation::remove})
    EXPECT_EQ(partner_program(operation, Owner::own).detail, partner_program(operation, Owner::other).detail)
        << "what is not granted at all is refused for that";
  EXPECT_EQ(partner_program(Operation::edit, Owner::own).reason, Reason::operation_not_licensed);
}

TEST(OwnOrganization, AListIsCutDownByTheCrmAndStaffIsNotBound) {
  EXPECT_EQ(partner_program(Operation::read, Owner::unknown, kAccount, "").reason, Reason::ok);
  EXPECT_EQ(
      partner_program(Operation::edit, Owner::other, "", "Partnership//", identity::UserType::staff).reason,
      Reason::ok);
}

TEST(OwnOrganization, AnotherSectionIsBoundByDataAlone) {
  Rulebook rulebook = preset();
  std::ranges::find(rulebook.sections, "cases", &Section::id)->own_organization = "AccountId";
  const Policy policy = policy_of(std::move(rulebook));
  ObjectUse root = use("Case", Operation::edit), child = use("CaseFile", Operation::read);
  root.record = "Case//";
  EXPECT_EQ(policy.decide(user(kPartner), touching({root})).reason, Reason::operation_not_licensed);
  EXPECT_EQ(policy.decide(user(kPartner), touching({child})).reason, Reason::ok);
}

TEST(OwnOrganization, OneRecordOfAnotherInABatchRefusesAll) {
  const Policy policy = policy_of(preset());
  identity::Principal caller = user(kPartner);
  caller.account = kAccount;
  ObjectUse mine = use("Partnership", Operation::read, Via::primary, 0, true), theirs = mine;
  mine.record = "Partnership/a";
  theirs.record = "Partnership/b";
  theirs.part = 1;
  const std::vector<Owner> owners{Owner::own, Owner::other};
  const Decision decision = policy.decide(caller, touching({mine, theirs}), {}, owners);
  EXPECT_EQ(decision.reason, Reason::operation_not_licensed);
  EXPECT_TRUE(decision.detail.starts_with("batch[1]: Read on Partnership")) << decision.detail;
}

TEST(OwnOrganization, SeveralRecordsOfOneOperationAreOneUnit) {
  const Policy policy = policy_of(preset());
  identity::Principal caller = user(kPartner);
  caller.account = kAccount;
  ObjectUse one = use("Partnership", Operation::read), two = one;
  one.record = "Partnership/a";
  two.record = "Partnership/b";
  const std::vector<Owner> owners{Owner::own, Owner::own};
  EXPECT_EQ(policy.decide(caller, touching({one, two}), {}, owners).units.size(), 1U);
}

TEST(Resolve, SectionsOfRecordedRequestsAreTheExpectedOnes) {
  Rulebook rulebook = preset();
  rulebook.custom_sections = {"UsrRealtyFreedomUI"};
  Policy policy = policy_of(std::move(rulebook));
  std::ifstream file(TOLLGATE_SOURCE_DIR "/tests/metering/licence/sections_of_requests.tsv");
  ASSERT_TRUE(file.is_open());
  int rows = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream columns(line);
    std::string id, object, operation, via, section, section_operation;
    columns >> id >> object >> operation >> via >> section >> section_operation;
    ASSERT_FALSE(section_operation.empty()) << line;
    auto parsed = config::parse_operation(operation);
    ASSERT_TRUE(parsed.has_value()) << line;
    ResolvedUse resolved = policy.resolve(use(object, *parsed));
    EXPECT_EQ(resolved.section, section == "-" ? "" : section) << line;
    EXPECT_EQ(catalogue::name(resolved.section_operation), section_operation) << line;
    ++rows;
  }
  EXPECT_EQ(rows, 84);
}

TEST(Resolve, RolesAreNamed) {
  using Role = ResolvedUse::Role;
  Policy policy = policy_of(preset());
  auto role = [&](const char* object) { return policy.resolve(use(object, Operation::read)).role; };
  EXPECT_EQ(role("Case"), Role::root);
  EXPECT_EQ(role("CaseFile"), Role::child);
  EXPECT_EQ(role("VwPortalOpportunity"), Role::view);
  EXPECT_EQ(role("CaseStatus"), Role::lookup);
  EXPECT_EQ(role("Like"), Role::feed);
  EXPECT_EQ(role("UsrX"), Role::custom);
  EXPECT_EQ(role("City"), Role::none);
}

}  // namespace
}  // namespace tollgate::licence
