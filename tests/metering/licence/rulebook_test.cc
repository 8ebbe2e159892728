// The preset and the reader of rulebooks (config/load/rulebook.h): they stand here because the licence room is what
// lives by them.
#include "config/load/rulebook.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "embedded_bpmonline.h"
#include "embedded_creatio_partner.h"
#include "embedded_zoho.h"

namespace tollgate::config {
namespace {

constexpr std::string_view kSmall = R"(version: 1
system: tiny
main_products:
  big: ["Big One"]
sections:
  things:
    caption: Things
    uid: 11111111-2222-3333-4444-555555555555
    entity: Thing
    children: [ThingFile]
    lookups: [ThingStatus]
products:
  door:
    title: Door
    license_names: ['door (a|b)']
    available_with: [big]
    rights: {things: [read, delete]}
    custom_sections: {max: 2, operations: [read]}
known_objects: [City]
uids:
  aaaaaaaa-2222-3333-4444-555555555555: City
relations:
  Thing.Place: City
  "*.Part": thingfile
)";

std::string error_of(std::string text) {
  auto rulebook = load_rulebook(text, "x.yaml");
  return rulebook ? "" : rulebook.error().message;
}
std::string replaced(std::string_view from, std::string_view to) {
  std::string text(kSmall);
  auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

constexpr std::string_view kPrice =
    "    price: {minor_units: 70, currency: EUR, per: named_seat, every: month, source: a sheet, as_of: "
    "2017}\n";

std::string priced(std::string_view from, std::string_view to) {
  std::string line(kPrice);
  if (!from.empty()) line.replace(line.find(from), from.size(), to);
  return replaced("    custom_sections: {max: 2, operations: [read]}\n", line);
}

TEST(Rulebook, APriceIsThatOfTheProduct) {
  auto rulebook = load_rulebook(priced("", ""), "x.yaml");
  ASSERT_TRUE(rulebook) << rulebook.error().message;
  using licence::Price;
  EXPECT_EQ(rulebook->prices, (std::vector<Price>{{.product = "door",
                                                   .minor_units = 70,
                                                   .currency = "EUR",
                                                   .per = Price::Per::named_seat,
                                                   .every = Price::Every::month,
                                                   .source = "a sheet",
                                                   .as_of = "2017"}}));
  EXPECT_TRUE(load_rulebook(kSmall, "x.yaml")->prices.empty());
  EXPECT_THAT(error_of(priced("EUR", "euro")), testing::HasSubstr("\"euro\" is no currency"));
  EXPECT_THAT(error_of(priced("named_seat", "chair")),
              testing::HasSubstr("per is one of user, named_seat, concurrent_seat, call"));
  EXPECT_THAT(error_of(priced("month", "week")), testing::HasSubstr("every is one of year, month, once"));
  EXPECT_THAT(error_of(priced("source: a sheet, ", "")), testing::HasSubstr("source"));
}

TEST(Rulebook, TheVendorsPricesAreThoseOfTheSheet) {
  const auto prices = load_rulebook(embedded::k_bpmonline, "bpmonline.yaml")->prices;
  ASSERT_EQ(prices.size(), 2U) << "the partner portal's is on request";
  for (const licence::Price& price : prices) {
    EXPECT_EQ(price.minor_units, price.product == "customer" ? 7'000U : 0U);
    EXPECT_EQ(price.currency, "USD");
    EXPECT_EQ(price.per, licence::Price::Per::user);
    EXPECT_EQ(price.every, licence::Price::Every::year);
  }
}

TEST(Rulebook, TheOperatorsPriceOfPortalUsersIncludesTheFreeOnes) {
  Licensing licensing;
  licensing.prices = {{.name = "portal_users", .minor_units = 500, .currency = "USD", .per = "named_seat"}};
  licensing.portal_seats.client_users_at_release = 7'500;
  auto rulebook = load_rulebook(embedded::k_zoho, "zoho.yaml");
  ASSERT_TRUE(apply_settings(*rulebook, {}, licensing));
  ASSERT_EQ(rulebook->prices.size(), 1U);
  EXPECT_EQ(rulebook->prices[0].included, 7'500U);
  licensing.prices[0].per = "user";
  rulebook = load_rulebook(embedded::k_zoho, "zoho.yaml");
  EXPECT_FALSE(apply_settings(*rulebook, {}, licensing));
}

TEST(Rulebook, ReadsEveryPart) {
  auto rulebook = load_rulebook(kSmall, "x.yaml");
  ASSERT_TRUE(rulebook.has_value()) << rulebook.error().message;
  EXPECT_EQ(rulebook->system, "tiny");
  ASSERT_EQ(rulebook->sections.size(), 1U);
  EXPECT_EQ(rulebook->sections[0].entity, "Thing");
  EXPECT_EQ(rulebook->sections[0].children, std::vector<std::string>{"ThingFile"});
  ASSERT_EQ(rulebook->products.size(), 1U);
  const auto& door = rulebook->products[0];
  EXPECT_EQ(door.rights.at("things"),
            licence::right(catalogue::Operation::read) | licence::right(catalogue::Operation::remove));
  EXPECT_EQ(door.custom_sections_max, 2U);
  EXPECT_EQ(rulebook->uids.at("11111111-2222-3333-4444-555555555555"), "Thing");
  EXPECT_EQ(rulebook->relations.at("*.Part"), "ThingFile") << "in the listed spelling";
}

TEST(Rulebook, ASectionOfOnesOwnOrganizationNamesTheOwnersColumn) {
  auto rulebook = load_rulebook(
      replaced("    entity: Thing\n", "    entity: Thing\n    own_organization: OwnerId\n"), "x.yaml");
  ASSERT_TRUE(rulebook.has_value()) << rulebook.error().message;
  EXPECT_EQ(rulebook->sections[0].own_organization, "OwnerId");
  EXPECT_EQ(make_schema(*rulebook)->owner_column("Thing"), nullptr) << "nobody can be asked";
  rulebook->asks_owners = true;
  EXPECT_EQ(*make_schema(*rulebook)->owner_column("THING"), "OwnerId");
  EXPECT_EQ(make_schema(*rulebook)->owner_column("ThingFile"), nullptr) << "details have ids of their own";
  for (const char* wrong : {"Owner/Id", "Owner Id"})
    EXPECT_EQ(error_of(replaced("    entity: Thing\n",
                                fmt::format("    entity: Thing\n    own_organization: {}\n", wrong))),
              fmt::format("x.yaml:10:23: own_organization: \"{}\" is no column", wrong));
}

TEST(Rulebook, TheVendorsSectionOfOnesOwnOrganizationIsThePartnerProgram) {
  for (std::string_view preset : {embedded::k_bpmonline, embedded::k_creatio_partner}) {
    const auto rulebook = load_rulebook(preset, "a preset");
    for (const licence::Section& section : rulebook->sections)
      EXPECT_EQ(section.own_organization, section.id == "partner_program" ? "PartnerId" : "") << section.id;
  }
}

TEST(Rulebook, MistakesNameLineColumnAndCure) {
  EXPECT_EQ(error_of(replaced("caption:", "captoin:")),
            "x.yaml:7:5: unknown key \"captoin\" in section things; known: caption, entity, uid, views, "
            "children, lookups, feed, own_organization");
  EXPECT_EQ(error_of(replaced("[read, delete]", "[read, remove]")),
            "x.yaml:17:29: \"remove\" is no right: read, create, edit, delete");
  EXPECT_EQ(error_of(replaced("rights: {things", "rights: {thing")),
            "x.yaml:17:14: \"thing\" is not in sections");
  EXPECT_EQ(error_of(replaced("available_with: [big]", "available_with: [small]")),
            "x.yaml:16:22: \"small\" is not in main_products");
  EXPECT_EQ(error_of(replaced("Thing.Place: City", "Thing.Place: Town")),
            "x.yaml:23:16: object Town is in no section and not in known_objects");
  EXPECT_EQ(error_of(replaced("Thing.Place:", "ThingPlace:")),
            "x.yaml:23:3: \"ThingPlace\" is no relation: write Object.Column or *.Column");
  EXPECT_EQ(error_of(replaced("[City]", "[City, thing]")),
            "x.yaml:19:23: object thing is listed twice; each belongs to one place");
  EXPECT_EQ(error_of(replaced("aaaaaaaa-", "aaaaaa-")),
            "x.yaml:21:3: \"aaaaaa-2222-3333-4444-555555555555\" is no UId: 32 hexadecimal digits");
  EXPECT_EQ(error_of(replaced("version: 1", "version: 2")),
            "x.yaml:1:10: this program reads version 1 of the rulebook format");
  EXPECT_EQ(error_of(replaced("max: 2", "max: many")), "x.yaml:18:28: max must be a whole number");
  EXPECT_EQ(error_of(replaced("    entity: Thing\n", "")), "x.yaml:7:5: section things lacks \"entity\"");
}

TEST(Rulebook, SeatsOfAProductSayHowMany) {
  auto rulebook =
      load_rulebook(replaced("    custom_sections:",
                             "    seats: {max: 50, per_main_product_user: 3}\n    custom_sections:"),
                    "x.yaml");
  ASSERT_TRUE(rulebook) << rulebook.error().message;
  ASSERT_TRUE(rulebook->products[0].seats);
  EXPECT_EQ(rulebook->products[0].seats->max, 50U);
  EXPECT_EQ(rulebook->products[0].seats->per_main_product_user, 3U);
  EXPECT_NE(error_of(replaced("    custom_sections:", "    seats: {max: 0}\n    custom_sections:"))
                .find("seats needs max or per_main_product_user"),
            std::string::npos);
}

TEST(Rulebook, RepeatedKeysBadPatternsAndBrokenTextAreRefused) {
  EXPECT_NE(error_of(replaced("    title: Door\n", "    title: Door\n    title: Gate\n")).find("x.yaml:15:5"),
            std::string::npos);
  EXPECT_NE(error_of(replaced("door (a|b)", "door (a|b")).find("is no regular expression"),
            std::string::npos);
  EXPECT_NE(error_of(std::string(kSmall) + "---\nmore: 1\n"), "");
  EXPECT_NE(error_of("]["), "");
  EXPECT_NE(error_of(""), "");
  EXPECT_NE(error_of("just text"), "");
  EXPECT_NE(error_of(std::string(2'000'000, 'x')), "");
}

TEST(Rulebook, EveryCutOfThePresetIsAnErrorOrARulebookNeverACrash) {
  const std::string_view text = embedded::k_bpmonline;
  for (std::size_t length = 0; length < text.size(); length += 97)
    (void)load_rulebook(text.substr(0, length), "cut.yaml");
}

TEST(Preset, IsWholeAndConsistent) {
  auto rulebook = load_rulebook(embedded::k_bpmonline, "bpmonline.yaml");
  ASSERT_TRUE(rulebook.has_value()) << rulebook.error().message;
  EXPECT_EQ(rulebook->system, "bpmonline");
  EXPECT_EQ(rulebook->sections.size(), 18U);
  EXPECT_EQ(rulebook->products.size(), 3U);
  EXPECT_EQ(rulebook->known_main_products.size(), 8U);
  for (const auto& product : rulebook->products) {
    EXPECT_EQ(product.custom_section_rights & licence::right(catalogue::Operation::remove), 0);
    for (const auto& [section, rights] : product.rights) {
      EXPECT_EQ(rights & licence::right(catalogue::Operation::remove), 0) << product.id << " " << section;
      EXPECT_NE(section, "contractors");
      EXPECT_NE(section, "contacts");
    }
  }
}

Result<void> apply(licence::Rulebook& rulebook, const std::function<void(Catalogue&, Licensing&)>& change) {
  Catalogue catalogue;
  Licensing licensing;
  change(catalogue, licensing);
  return apply_settings(rulebook, catalogue, licensing);
}

TEST(ApplySettings, MainProductsAreTakenByIdOrName) {
  auto rulebook = load_rulebook(embedded::k_bpmonline, "bpmonline.yaml").value();
  ASSERT_TRUE(apply(
      rulebook, [](Catalogue&, Licensing& l) { l.main_products = {"SERVICE_enterprise", "crm creatio"}; }));
  EXPECT_EQ(rulebook.main_products, (std::vector<std::string>{"service_enterprise", "crm_bundle"}));
  auto unknown = apply(rulebook, [](Catalogue&, Licensing& l) { l.main_products = {"service"}; });
  ASSERT_FALSE(unknown.has_value());
  EXPECT_TRUE(unknown.error().message.starts_with(
      "licensing.main_products: \"service\" is not known; known: studio"));
}

TEST(ApplySettings, CustomSectionsAreAtMostThreeAndNotStockObjects) {
  auto rulebook = load_rulebook(embedded::k_bpmonline, "bpmonline.yaml").value();
  EXPECT_TRUE(
      apply(rulebook, [](Catalogue& c, Licensing&) { c.custom_sections = {"UsrA", "UsrB", "Realty"}; }));
  EXPECT_FALSE(apply(rulebook,
                     [](Catalogue& c, Licensing&) { c.custom_sections = {"UsrA", "UsrB", "UsrC", "UsrD"}; }));
  EXPECT_FALSE(apply(rulebook, [](Catalogue& c, Licensing&) { c.custom_sections = {"account"}; }));
  EXPECT_FALSE(apply(rulebook, [](Catalogue& c, Licensing&) { c.custom_sections = {"UsrA", "usra"}; }));
  EXPECT_FALSE(apply(rulebook, [](Catalogue& c, Licensing&) { c.custom_children["UsrA"] = {"UsrAFile"}; }));
  EXPECT_FALSE(apply(rulebook, [](Catalogue& c, Licensing&) { c.processes["P"] = {{"Case", "remove"}}; }));
}

TEST(MakeSchema, KnowsTheRulebooksNamesUidsAndRelations) {
  auto rulebook = load_rulebook(embedded::k_bpmonline, "bpmonline.yaml").value();
  rulebook.custom_sections = {"UsrRealty"};
  auto schema = make_schema(rulebook, {{"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a", "UsrRealty"}},
                            {{"UsrClose", {{"Case", "edit"}}}});
  EXPECT_EQ(schema->canonical("case"), "Case");
  EXPECT_EQ(schema->canonical("usrrealty"), "UsrRealty");
  EXPECT_EQ(schema->canonical("Usr"), std::nullopt);
  EXPECT_EQ(schema->object_of_uid("117D32F9-8275-4534-8411-1C66115CE9CD"), "Case");
  EXPECT_EQ(schema->object_of_uid("0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"), "UsrRealty");
  EXPECT_EQ(schema->relation("Case", "Status"), "CaseStatus");
  EXPECT_EQ(schema->relation("Case", "Account"), "Account");
  EXPECT_EQ(schema->relation("Order", "Owner"), "Contact");
  EXPECT_EQ(schema->relation("Case", "ParentCase"), "Case");
  EXPECT_EQ(schema->relation("Case", "Subject"), std::nullopt);
  for (const char* column : {"AccountA", "AccountB"})
    EXPECT_EQ(schema->relation("Relationship", column), "Account");
  for (const char* column : {"ContactA", "ContactB"})
    EXPECT_EQ(schema->relation("Relationship", column), "Contact");
  EXPECT_EQ(schema->relation("SysAdminUnit", "PortalAccount"), "Account");
  const auto* effects = schema->process("usrclose");
  ASSERT_NE(effects, nullptr);
  EXPECT_EQ(effects->at(0).object, "Case");
  EXPECT_EQ(effects->at(0).operation, catalogue::Operation::edit);
}

TEST(ApplySettings, RelationsOfTheOperatorWinInWhateverCase) {
  auto rulebook = load_rulebook(embedded::k_bpmonline, "bpmonline.yaml").value();
  Catalogue catalogue;
  catalogue.relations = {{"City.UsrDealer", "Account"}, {"case.ASSIGNEE", "SysAdminUnit"}};
  ASSERT_TRUE(apply_settings(rulebook, catalogue, Licensing{}).has_value());
  auto schema = make_schema(rulebook);
  EXPECT_EQ(schema->relation("city", "usrdealer"), "Account");
  EXPECT_EQ(schema->relation("Case", "Assignee"), "SysAdminUnit");
}

}  // namespace
}  // namespace tollgate::config
