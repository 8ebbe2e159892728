// The presets beside bpm'online's own: the partner portal of Creatio 8.0, portal user types of Zoho.
#include <gtest/gtest.h>

#include <deque>

#include "config/load/rulebook.h"
#include "metering/licence/policy.h"

namespace tollgate::licence {
namespace {

using catalogue::Classification;
using catalogue::Kind;
using catalogue::Operation;
using catalogue::Via;

class System {
 public:
  System(const std::string& name, const std::function<void(config::Licensing&)>& settings)
      : policy_(std::make_shared<const Rulebook>(rulebook_of(name, settings))) {}

  // "ok" or the reason, of a portal user with these licences.
  std::string_view of(const std::vector<std::string>& licenses, const std::string& object,
                      Operation operation, Via via = Via::primary, Kind kind = Kind::objects) {
    return of_user(identity::UserType::portal, licenses, object, operation, via, kind);
  }
  std::string_view of_user(identity::UserType type, const std::vector<std::string>& licenses,
                           const std::string& object, Operation operation, Via via = Via::primary,
                           Kind kind = Kind::objects) {
    identity::Principal user;
    user.user = "ann";
    user.user_type = type;
    user.licenses = licenses;
    Classification& seen = seen_.emplace_back();
    seen.kind = kind;
    seen.uses = {{object, operation, via, 0, false}};
    decision_ = policy_.decide(user, seen);
    return code(decision_.reason);
  }
  const Decision& decision() const { return decision_; }

 private:
  static Rulebook rulebook_of(const std::string& name,
                              const std::function<void(config::Licensing&)>& settings) {
    auto rulebook = config::load_rulebook(config::preset_text(name).value(), name + ".yaml");
    EXPECT_TRUE(rulebook.has_value()) << (rulebook ? "" : rulebook.error().message);
    config::Licensing licensing;
    settings(licensing);
    auto applied = config::apply_settings(*rulebook, {}, licensing);
    EXPECT_TRUE(applied.has_value()) << (applied ? "" : applied.error().message);
    return std::move(*rulebook);
  }

  Policy policy_;
  std::deque<Classification> seen_;  // a decision's units view it
  Decision decision_;
};

constexpr Operation kAll[] = {Operation::read, Operation::create, Operation::edit, Operation::remove};

// Which of read, create, edit, delete: "RCE", "R", "-".
std::string granted(System& system, const std::vector<std::string>& licenses, const std::string& object) {
  std::string letters;
  for (Operation operation : kAll)
    if (system.of(licenses, object, operation) == "ok")
      letters += "RCED"[static_cast<std::size_t>(operation)];
  return letters.empty() ? "-" : letters;
}

const std::vector<std::string> kPartner{"Creatio partner portal on-site"};

TEST(CreatioPartner, GrantsWhatItsGuideLists) {
  System system("creatio_partner", [](auto& l) { l.main_products = {"CRM Creatio"}; });
  const std::pair<const char*, const char*> rows[] = {
      {"Account", "-"},      {"Contact", "-"},       {"KnowledgeBase", "R"},  {"Case", "RCE"},
      {"Lead", "RCE"},       {"Opportunity", "RCE"}, {"Order", "RCE"},        {"Document", "-"},
      {"MktgActivity", "-"}, {"Partnership", "R"},   {"FinApplication", "-"}, {"Contract", "-"}};
  for (const auto& [object, rights] : rows) EXPECT_EQ(granted(system, kPartner, object), rights) << object;
}

TEST(CreatioPartner, TheOtherDocumentGrantsDocumentsAndMarketingActivities) {
  System system("creatio_partner", [](auto& l) {
    l.main_products = {"sales_enterprise"};
    l.edition = "bpmonline_7";
  });
  EXPECT_EQ(granted(system, kPartner, "Document"), "RCE");
  EXPECT_EQ(granted(system, kPartner, "MktgActivity"), "RCE");
  EXPECT_EQ(granted(system, kPartner, "Partnership"), "R");
  EXPECT_EQ(granted(system, kPartner, "Contract"), "-");
}

TEST(CreatioPartner, OnlyPartnerLicencesAndItsOwnMainProductsCount) {
  System system("creatio_partner", [](auto& l) { l.main_products = {"sales_enterprise"}; });
  EXPECT_EQ(system.of({"Creatio customer portal cloud"}, "Case", Operation::read), "license_missing");
  EXPECT_EQ(system.of({"PARTNER PORTAL ON-SITE/CLOUD"}, "Case", Operation::read), "ok");
  EXPECT_EQ(system.of({"partner portal"}, "Case", Operation::read), "license_missing");
  System elsewhere("creatio_partner", [](auto& l) { l.main_products = {"service_enterprise"}; });
  EXPECT_EQ(elsewhere.of(kPartner, "Case", Operation::read), "product_unavailable");
}

TEST(Bpmonline, TheNewerDocumentTakesDocumentsFromThePartnerPortalAlone) {
  System system("bpmonline", [](auto& l) {
    l.main_products = {"sales_enterprise", "bank_customer_journey"};
    l.edition = "creatio_8_0";
  });
  EXPECT_EQ(granted(system, kPartner, "Document"), "-");
  EXPECT_EQ(granted(system, {"customer portal cloud"}, "Contract"), "RCE");
}

void zoho_types(config::Licensing& licensing) {
  licensing.main_products = {"enterprise"};
  licensing.user_types = {{"client", {}, {{"Leads", {"view"}}, {"cases", {"view", "create", "Edit"}}}},
                          {"partner",
                           {"Gold Partner (EU)", "Silver Partner"},
                           {{"Deals", {"view", "create", "edit", "delete"}}, {"Realty_Objects", {"view"}}}}};
}

TEST(Zoho, AUserTypeMayWhatItsPermissionsSay) {
  System system("zoho", zoho_types);
  EXPECT_EQ(granted(system, {"Client"}, "Leads"), "R");
  EXPECT_EQ(granted(system, {"client"}, "Cases"), "RCE");
  EXPECT_EQ(granted(system, {"client"}, "Deals"), "-");
  EXPECT_EQ(granted(system, {"silver partner"}, "Deals"), "RCED");
  EXPECT_EQ(granted(system, {"gold partner (eu)"}, "Realty_Objects"), "R");
  EXPECT_EQ(granted(system, {"client", "Silver Partner"}, "Leads"), "R");
  EXPECT_EQ(system.of({"partner"}, "Deals", Operation::read), "license_missing") << "it has names of its own";
  EXPECT_EQ(system.of({"gold partner xeu)"}, "Deals", Operation::read), "license_missing")
      << "names are no patterns";
}

TEST(Zoho, WhatNoTypeNamesIsRefused) {
  System system("zoho", zoho_types);
  EXPECT_EQ(system.of({"client"}, "Invoices", Operation::read), "section_not_licensed");
  EXPECT_EQ(system.of({"client"}, "Some_Module", Operation::read), "section_not_licensed");
  EXPECT_EQ(system.of({"client"}, "UsrThings", Operation::read), "section_not_licensed")
      << "no custom prefix here";
  EXPECT_EQ(system.of({"client"}, "Cases", Operation::remove), "operation_not_licensed");
}

TEST(Zoho, PartsOfARecordAreFreeWithItAlone) {
  System system("zoho", zoho_types);
  EXPECT_EQ(system.of({"client"}, "Notes", Operation::read, Via::nav), "ok");
  EXPECT_TRUE(system.decision().units.empty());
  EXPECT_EQ(system.of({"client"}, "Notes", Operation::read), "section_not_licensed");
  EXPECT_EQ(system.of({"client"}, "Deals", Operation::read, Via::nav), "section_not_licensed");
  System named("zoho", [](config::Licensing& l) {
    zoho_types(l);
    l.user_types[0].modules["Notes"] = {"view"};
  });
  EXPECT_EQ(granted(named, {"client"}, "Notes"), "R");
}

TEST(Zoho, PortalsComeWithSomeEditionsOnly) {
  System system("zoho", [](config::Licensing& l) {
    zoho_types(l);
    l.main_products = {"Zoho CRM Professional"};
  });
  EXPECT_EQ(system.of({"client"}, "Leads", Operation::read), "product_unavailable");
}

TEST(Zoho, OnlyStaffManagesMembersOfAPortal) {
  System system("zoho", zoho_types);
  EXPECT_EQ(system.of({"client"}, "portal:seat", Operation::create, Via::primary, Kind::seat),
            "operation_not_licensed");
  EXPECT_EQ(system.of_user(identity::UserType::staff, {}, "portal:seat", Operation::create, Via::primary,
                           Kind::seat),
            "ok");
}

TEST(Zoho, StaffIsNotBoundByUserTypes) {
  System system("zoho", zoho_types);
  EXPECT_EQ(system.of_user(identity::UserType::staff, {}, "Invoices", Operation::remove), "ok");
  EXPECT_FALSE(system.decision().metered);
}

std::string error_of(const std::string& system, const std::function<void(config::Licensing&)>& settings) {
  auto rulebook = config::load_rulebook(config::preset_text(system).value(), system + ".yaml").value();
  config::Licensing licensing;
  settings(licensing);
  auto applied = config::apply_settings(rulebook, {}, licensing);
  return applied ? "" : applied.error().message;
}

TEST(Systems, WrongSettingsAreNamed) {
  EXPECT_EQ(error_of("bpmonline", [](auto& l) { l.edition = "creatio_9"; }),
            "licensing.edition: \"creatio_9\" is not known; known: bpmonline_7, creatio_8_0");
  EXPECT_EQ(error_of("zoho", [](auto& l) { l.edition = "v8"; }),
            "licensing.edition: \"v8\" is not known; known: none");
  EXPECT_EQ(error_of("zoho", [](auto& l) { l.user_types = {{"client", {}, {{"Leads", {"view", "read"}}}}}; }),
            "licensing.user_types.client.modules.Leads: permissions are view, create, edit, delete; not "
            "view, read");
}

}  // namespace
}  // namespace tollgate::licence
