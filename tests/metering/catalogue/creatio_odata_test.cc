#include <gtest/gtest.h>

#include "tests/metering/catalogue/catalogue_fixture.h"

namespace tollgate::catalogue {
namespace {

struct Row {
  const char* line;
  const char* expected;
};
void check(std::initializer_list<Row> rows) {
  for (const Row& row : rows) EXPECT_EQ(Told{row.line}.creatio(), row.expected) << row.line;
}

TEST(CreatioRoot, IsFoundBehindVirtualDirectoryWorkspaceAndSsp) {
  check({{"GET /odata/Case", "Case read"},
         {"GET /0/odata/case", "Case read"},
         {"GET /17/ODATA/CASE", "Case read"},
         {"GET /bpmonline7.12.3/0/odata/Case", "Case read"},
         {"GET /crm/odata/Case", "Case read"},
         {"GET /0/ssp/odata/Case", "Case read"},
         {"GET /core/0/odata/Case", "Case read"},
         {"GET /core/odata/Case", "Case read"},
         {"GET /0/ServiceModel/EntityDataService.svc/caseCOLLECTION", "Case read"},
         {"GET /ServiceModel/entitydataservice.svc/LeadCollection", "Lead read"}});
}

TEST(CreatioRoot, PagesAndScriptsAreAssets) {
  check({{"GET /0/conf/content/rest/x.js", "asset"},
         {"GET /core/hash/a/odata.js", "asset"},
         {"GET /Login/NuiLogin.aspx", "asset"},
         {"GET /Ssp/Register.html", "asset"},
         {"POST /msg/negotiate?negotiateVersion=1", "asset"},
         {"GET /0/img/logo.png", "asset"},
         {"GET /0/ping", "metadata"},
         {"GET /api/HealthCheck", "metadata"},
         {"POST /connect/token", "authentication"},
         {"GET /favicon.ico", "foreign"},
         {"GET /0/soap/AnyService", "unknown"},
         {"GET /0/api/Other", "unknown"}});
}

// What passes without a token or uncounted must not be a cover for data in whatever directory the CRM is deployed.
TEST(CreatioRoot, OnlyFoldersOfFilesHideAnApiWord) {
  check({{"GET /Login/odata/Case", "Case read"},
         {"GET /connect/x/odata/Case", "Case read"},
         {"GET /ping/x/odata/Case", "Case read"},
         {"GET /api/crm/odata/Case", "Case read"},
         {"POST /connect/x/rest/CasePortalService/CloseCase", "Case edit service"},
         {"GET /0/Nui/../odata/Case", "Case read"},
         {"GET /conf/content/..%2f..%2fodata/Case", "reject"},
         {"GET /0/img/a/rest/x.png", "asset"},
         {"POST /ServiceModel/AuthService.svc/Login", "authentication"},
         {"GET /ServiceModel/AuthService.svc/Login/odata/Case", "unknown"}});
}

TEST(CreatioRoot, ASecondApiRootIsNoObjectAndNoService) {
  check({{"GET /0/odata/odata/Case", "reject"},
         {"GET /odata/0/odata/Case", "reject"},
         {"GET /rest/odata/Case", "reject"}});
}

TEST(ODataKey, EveryFormNamesTheSameObject) {
  check({{"GET /0/odata/Case(405947d0-2ffb-4ded-8675-0475f19f5a81)", "Case read"},
         {"DELETE /0/odata/Case(guid'405947d0-2ffb-4ded-8675-0475f19f5a81')", "Case delete"},
         {"DELETE /0/odata/Case('405947d0-2ffb-4ded-8675-0475f19f5a81')", "Case delete"},
         {"DELETE /0/odata/Case(Id=405947d0-2ffb-4ded-8675-0475f19f5a81)", "Case delete"},
         {"DELETE /0/odata/Case(Id=1,Name='a/b)(c''d')", "Case delete"},
         {"DELETE /0/odata/Case/405947d0-2ffb-4ded-8675-0475f19f5a81", "Case delete"},
         {"DELETE /0/odata/Case/42", "Case delete"},
         {"DELETE /0/odata/%43%61se%28%27x%27%29", "Case delete"},
         {"PUT /0/odata/Case(1)", "Case edit"},
         {"POST /0/odata/Case()", "Case create"},
         {"MERGE "
          "/0/ServiceModel/EntityDataService.svc/CaseCollection(guid'405947d0-2ffb-4ded-8675-0475f19f5a81')",
          "Case edit"},
         {"GET /0/odata/Case/405947d0-2ffb-4ded-8675-0475f19f5a81/Account", "Case read; Account read nav"}});
}

TEST(ODataPath, NavigationIsPartOfWhatIsRead) {
  check({{"GET /0/odata/Case(1)/Account", "Case read; Account read nav"},
         {"GET /0/odata/Case(1)/Owner/Name/$value", "Case read; Contact read nav"},
         {"GET /0/odata/Account(1)/CaseCollectionByAccount(2)/CaseFileCollectionByCase",
          "Account read; Case read nav; CaseFile read nav"},
         {"GET /0/odata/Account(1)/caseCOLLECTIONBYaccount/$count", "Account read; Case read nav"},
         {"GET /0/odata/Account(1)/UsrThingCollectionByAccount", "Account read; UsrThing read nav"},
         {"GET /0/odata/Case/Account", "Case read; Account read nav"},
         {"GET /0/odata/Case(1)/Account/$ref", "Case read"},
         {"GET /0/odata/$entity?$id=Case(1)/Account", "Case read; Account read nav"},
         {"GET /0/odata/$entity?$id=https%3A%2F%2Fh%2F0%2Fodata%2FCase(1)&$expand=Account",
          "Case read; Account read expand"},
         {"GET /0/odata/$crossjoin(Case,Account)", "Case read; Account read"},
         {"GET /0/odata/Case(1)/Model.Case/Account", "Case read; Account read nav"}});
}

TEST(ODataPath, WritesThroughANavigationEditTheObjectsOnTheWay) {
  check(
      {{"POST /0/odata/Account(1)/CaseCollectionByAccount", "Account edit; Case create nav"},
       {"PATCH /0/odata/Case(1)/Account", "Case edit; Account edit nav"},
       {"PUT /0/odata/Case(1)/Account/Name", "Case edit; Account edit nav"},
       {"DELETE /0/odata/Case(1)/Account", "Case edit; Account delete nav"},
       {"DELETE /0/odata/Account(1)/CaseCollectionByAccount(2)", "Account edit; Case delete nav"},
       {"DELETE /0/odata/Case(1)/Account/$ref", "Case edit"},
       {"DELETE /0/odata/Case(1)/UsrThing/$ref", "Case edit"},
       {"PUT /0/odata/Case(1)/Account/$ref", "Case edit"},
       {"POST /0/odata/Account(1)/CaseCollectionByAccount/$ref", "Account edit"},
       {"DELETE /0/odata/Case(1)/$ref", "Case delete"},
       {"DELETE /0/ServiceModel/EntityDataService.svc/OrderCollection(1)/$links/Contact", "Order edit"},
       {"GET /0/ServiceModel/EntityDataService.svc/OrderCollection(1)/$links/Contact/$count", "Order read"}});
}

// A name that the schema does not know may be a look-up of any object.
TEST(ODataPath, WhatLiesBehindAnUnknownNameIsSaid) {
  check({{"GET /0/odata/City(1)/Dealer", "City read (property?)"},
         {"GET /0/odata/City(1)/Dealer/Name", "City read (object?)"},
         {"GET /0/odata/City(1)/Dealer/Name/$value", "City read (object?)"},
         {"GET /0/odata/City(1)/Dealer/Account", "City read (object?); Account read nav"},
         {"GET /0/odata/City(1)/Dealer/CaseCollectionByAccount", "City read (object?); Case read nav"},
         {"GET /0/odata/City(1)/Dealer/Contact/$ref", "City read (object?)"},
         {"GET /0/odata/City(1)/Dealer/Model.Account", "City read (object?)"},
         {"GET /0/odata/City(1)/Dealer/Default.Find()", "City read (object?)"},
         {"GET /0/odata/City(1)/Dealer/$count", "City read (object?)"},
         {"POST /0/odata/City(1)/Dealer/$query", "City read (object?)"},
         {"GET /0/odata/City(1)/Dealer(1)", "City read (object?)"},
         {"GET /0/odata/City/405947d0-2ffb-4ded-8675-0475f19f5a81/Dealer", "City read (property?)"},
         {"GET /0/odata/Case(1)/Account/Dealer", "Case read; Account read nav (property?)"},
         {"GET /0/odata/$entity?$id=City(1)/Dealer", "City read (object?)"},
         {"PATCH /0/odata/City(1)/Dealer", "City edit (object?)"},
         {"MERGE /0/odata/City(1)/Dealer", "City edit (object?)"},
         {"POST /0/odata/City(1)/Dealer", "City edit (object?)"},
         {"POST /0/odata/City(1)/Dealer/Default.Close", "City edit (object?)"},
         {"PUT /0/odata/City(1)/Dealer", "City edit (property?)"},
         {"DELETE /0/odata/City(1)/Dealer", "City edit (property?)"},
         {"PUT /0/odata/City(1)/Dealer/Name", "City edit (object?)"},
         {"PATCH /0/odata/$entity?$id=City(1)/Dealer", "City edit (object?)"}});
}

TEST(ODataPath, ValuesLinksAndColumnsOfTheBaseSchemasAreNoOtherObject) {
  check({{"GET /0/odata/City(1)/Name", "City read"},
         {"PUT /0/odata/City(1)/name", "City edit"},
         {"GET /0/odata/City(1)/Dealer/$value", "City read"},
         {"PUT /0/odata/City(1)/Dealer/$value", "City edit"},
         {"GET /0/odata/City(1)/Dealer/$ref", "City read"},
         {"PUT /0/odata/City(1)/Dealer/$ref", "City edit"},
         {"DELETE /0/odata/City(1)/Dealer/$ref", "City edit"},
         {"GET /0/ServiceModel/EntityDataService.svc/CityCollection(1)/$links/Dealer", "City read"},
         {"GET /0/odata/City(1)/Name/Dealer", "City read (object?)"},
         {"GET /0/odata/SysImage(1)/Data", "SysImage read"},
         {"PUT /0/odata/SysImage(1)/Data", "SysImage edit"},
         {"DELETE /0/odata/CaseFile(1)/Data", "CaseFile edit"}});
}

TEST(ODataPath, DeletingAPropertyEditsAndDeletingAStreamDeletes) {
  check({{"DELETE /0/odata/Case(1)/Number", "Case edit (property?)"},
         {"DELETE /0/odata/Case(1)/Number/$value", "Case edit"},
         {"DELETE /0/odata/SysImage(1)/$value", "SysImage delete"},
         {"PUT /0/odata/SysImage(1)/$value", "SysImage edit"},
         {"DELETE /0/odata/Case(1)/Default.Close", "Case delete"},
         {"POST /0/odata/Case/Default.CloseAll", "Case edit"},
         {"POST /0/odata/Case/Model.Case", "Case create"},
         {"GET /0/odata/Case/Default.Open(days=7)/$count", "Case read"}});
}

TEST(ODataPath, WhatIsNotUnderstoodIsNeverFree) {
  check({{"GET /0/odata/$all", "reject"},
         {"GET /0/odata/$unknown", "reject"},
         {"GET /0/odata/Case/$unknown", "reject"},
         {"DELETE /0/odata/Case/$filter(@f)/$each", "reject"},
         {"GET /0/odata/Case(1", "reject"},
         {"GET /0/odata/Case(1)(2)", "reject"},
         {"GET /0/odata/Case('a)", "reject"},
         {"GET /0/odata/Ca%20se", "reject"},
         {"GET /0/odata/C%C3%A4se", "reject"},
         {"GET /0/odata/(1)", "reject"},
         {"GET /0/odata/Case(1)/$count/Account", "reject"},
         {"DELETE /0/odata/Case/Account", "reject"},
         {"DELETE /0/odata/Case/$count", "reject"},
         {"GET /0/odata/Case/$query", "reject"},
         {"TRACE /0/odata/Case", "reject"},
         {"POST /0/odata/", "reject"},
         {"GET /0/odata/$batch", "reject"},
         {"POST /0/odata/$batch/x", "reject"},
         {"GET /0/odata/$entity", "reject"},
         {"GET /0/odata/$entity?$id=$metadata", "reject"},
         {"GET /0/odata/UsrUnheardOf", "UsrUnheardOf read"},
         {"DELETE /0/odata/Case", "Case delete"},
         {"PATCH /0/odata/Case", "Case edit; Case create"}});
}

TEST(ODataPath, MetadataIsMetadata) {
  check({{"GET /0/odata", "metadata"},
         {"GET /odata/$METADATA", "metadata"},
         {"GET /0/odata/$metadata?$format=json", "metadata"},
         {"GET /0/odata/$metadata/Case", "reject"},
         {"OPTIONS /0/odata/Case", "metadata"},
         {"HEAD /0/odata/Case", "Case read"}});
}

TEST(ODataQuery, RelatedObjectsAreReported) {
  check(
      {{"GET /0/odata/Case?$expand=Account,Owner", "Case read; Account read expand; Contact read expand"},
       {"GET /0/odata/Case?expand=Account($expand=Owner($select=Name);$filter=Owner/Name%20eq%20'x')",
        "Case read; Account read expand; Contact read expand; Contact read filter"},
       {"GET /0/odata/Case?%24EXPAND=Account%28%24expand%3DOwner%3B%24top%3D1%29",
        "Case read; Account read expand; Contact read expand"},
       {"GET /0/odata/Case?$filter=Account/Owner/Name%20eq%20'Owner/Status'",
        "Case read; Account read filter; Contact read filter"},
       {"GET /0/odata/Case?$filter=CaseFileCollectionByCase/any(f:f/Owner/Name%20eq%20'x')",
        "Case read; CaseFile read filter; Contact read filter"},
       {"GET /0/odata/Case?$orderby=Account/Name%20desc&$select=Owner/Name",
        "Case read; Account read filter; Contact read expand"},
       {"GET /0/odata/Case?@p=Account/Name&$filter=Name%20eq%20@p", "Case read; Account read filter"},
       {"GET /0/odata/Case?$expand=*&$filter=$it/Account/Name%20eq%20null", "Case read; Account read filter"},
       {"POST /0/odata/Case?$expand=Account", "Case create; Account read expand"},
       {"GET /0/odata/Case?$filter=contains(Subject,'a/b?c$batch')", "Case read"},
       {"GET /0/odata/Case?$filter=Id%20eq%201a7ece2d-628d-4677-a717-56c2cecda346", "Case read"}});
}

TEST(ODataQuery, RepeatedOrUnclosedOptionsAreRejected) {
  check({{"GET /0/odata/Case?$expand=Account&$expand=Owner", "reject"},
         {"GET /0/odata/Case?$filter=a&%24FILTER=b", "reject"},
         {"GET /0/odata/Case?$expand=Account(", "reject"},
         {"GET /0/odata/Case?$expand=Account($expand=Owner))", "reject"},
         {"GET /0/odata/Case?x=1&x=2", "Case read"}});
  std::string deep = "GET /0/odata/Case?$expand=Account";
  for (int i = 0; i < 200; ++i) deep += "($expand=Account";
  deep += std::string(200, ')');
  EXPECT_EQ(Told{deep}.creatio(), "reject");
}

TEST(ODataQuery, QueryInTheBodyIsReadToo) {
  Told told{"POST /0/odata/Case/$query", "$expand=Account&$top=1", {{"Content-Type", "text/plain"}}};
  EXPECT_EQ(told.need(Dialect::creatio), BodyNeed::whole);
  EXPECT_EQ(told.creatio(), "Case read; Account read expand");
}

TEST(MethodOverride, ReplacesPostOnly) {
  auto with = [](const char* line, std::vector<std::pair<std::string, std::string>> headers) {
    return Told{line, "", std::move(headers)}.creatio();
  };
  EXPECT_EQ(with("POST /0/odata/Case(1)", {{"X-HTTP-Method", "DELETE"}}), "Case delete");
  EXPECT_EQ(with("POST /0/odata/Case(1)", {{"x-http-method-override", "patch"}}), "Case edit");
  EXPECT_EQ(with("POST /0/odata/Case(1)", {{"X-Method-Override", " MERGE "}}), "Case edit");
  EXPECT_EQ(with("POST /0/odata/Case(1)", {{"X-HTTP-Method", "PUT"}, {"X-HTTP-Method-Override", "PUT"}}),
            "Case edit");
  EXPECT_EQ(with("POST /0/odata/Case(1)", {{"X-HTTP-Method", "GET"}, {"X-HTTP-Method-Override", "DELETE"}}),
            "reject");
  EXPECT_EQ(with("POST /0/odata/Case(1)", {{"X-HTTP-Method", "GET, DELETE"}}), "reject");
  EXPECT_EQ(with("POST /0/odata/Case(1)", {{"X-HTTP-Method", ""}}), "reject");
  EXPECT_EQ(with("GET /0/odata/Case(1)", {{"X-HTTP-Method", "DELETE"}}), "reject");
  EXPECT_EQ(with("GET /0/odata/Case(1)", {{"X-HTTP-Method", "GET"}}), "Case read");
}

// A server that ignores the override executes the POST.
TEST(MethodOverride, NeverMakesAReadOfAPost) {
  for (const char* method : {"GET", "HEAD", "OPTIONS", "get"}) {
    EXPECT_EQ((Told{"POST /0/odata/KnowledgeBase", "{}", {{"X-HTTP-Method", method}}}.creatio()), "reject")
        << method;
    const std::string batch =
        R"({"requests":[{"id":"1","method":"POST","url":"Case","headers":{"X-HTTP-Method":")" +
        std::string(method) + R"("}}]})";
    EXPECT_EQ((Told{"POST /0/odata/$batch", batch, kJson}.creatio()), "reject") << method;
  }
  EXPECT_EQ((Told{"POST /0/odata/Case", "{}", {{"X-HTTP-Method", "PATCH"}}}.creatio()),
            "Case edit; Case create");
}

TEST(Classifier, UndecodableTargetsAreRejectedWithADetail) {
  Classification c = Told{"GET /0/odata/Case%2f1"}.classify(Dialect::creatio);
  EXPECT_EQ(c.kind, Kind::reject);
  EXPECT_FALSE(c.reject_detail.empty());
  EXPECT_TRUE(c.uses.empty());
  EXPECT_EQ(Told{"OPTIONS *"}.creatio(), "foreign");
}

}  // namespace
}  // namespace tollgate::catalogue
