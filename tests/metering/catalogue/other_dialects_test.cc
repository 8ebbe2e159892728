#include <gtest/gtest.h>

#include "tests/metering/catalogue/catalogue_fixture.h"

namespace tollgate::catalogue {
namespace {

std::string zoho(const std::string& line, const std::string& body = "") {
  return Told{line, body, kJson}.zoho();
}
std::string cherwell(const std::string& line, const std::string& body = "") {
  return Told{line, body, kJson}.cherwell();
}
std::string coql(const std::string& query) {
  return zoho("POST /crm/v8/coql", "{\"select_query\":\"" + query + "\"}");
}

TEST(Zoho, MethodsAndActionsGiveTheOperation) {
  EXPECT_EQ(zoho("POST /crm/v2.1/contacts"), "Contacts create");
  EXPECT_EQ(zoho("GET /CRM/V8/Contacts/x@y.z"), "Contacts read");
  EXPECT_EQ(zoho("DELETE /crm/v8/Contacts/1"), "Contacts delete");
  EXPECT_EQ(zoho("POST /crm/v8/Contacts/actions/count"), "Contacts read");
  EXPECT_EQ(zoho("POST /crm/v8/Contacts/actions/mass_delete"), "Contacts delete");
  EXPECT_EQ(zoho("POST /crm/v8/Contacts/1/actions/clone"), "Contacts create");
  EXPECT_EQ(zoho("POST /crm/v8/Leads/1/actions/convert"),
            "Leads edit; Contacts create; Accounts create; Deals create");
  EXPECT_EQ(zoho("POST /crm/v8/Leads/1/actions/merge"), "Leads edit; Leads delete");
  EXPECT_EQ(zoho("DELETE /crm/v8/Leads/1/photo"), "Leads edit");
  EXPECT_EQ(zoho("GET /crm/v8/Leads/1/__timeline"), "Leads read");
  EXPECT_EQ(zoho("GET /crm/v8/Contacts/1/Deals"), "Contacts read; Deals read nav");
  EXPECT_EQ(zoho("PUT /crm/v8/Contacts/1/Deals/2"), "Contacts edit");
  EXPECT_EQ(zoho("POST /crm/v8/Contacts/5/actions/portal_invite"), "seat: portal:seat create");
  EXPECT_EQ(zoho("GET /crm/v8/Contacts/actions/portal_invite?job_id=1"), "seat: portal:seat read");
  EXPECT_EQ(zoho("GET /crm/v8/Unheard_Of"), "Unheard_Of read");
  EXPECT_EQ(zoho("GET /crm/v8/settings/modules"), "metadata");
  EXPECT_EQ(zoho("POST /crm/v8/upload"), "unknown");
  EXPECT_EQ(zoho("GET /crm/v8/Le%20ads"), "reject");
  EXPECT_EQ(zoho("BREW /crm/v8/Leads"), "reject");
  EXPECT_EQ(zoho("GET /0/odata/Case"), "foreign");
}

// "add 1 2 of 7", "remove 1", "none", "reject".
std::string portal(const std::string& line, const std::string& body = "") {
  const Classification seen = Told{line, body, kJson}.classify(Dialect::zoho);
  if (seen.kind == Kind::reject) return "reject";
  if (seen.portal == nullptr) return "none";
  std::string text = seen.portal->way == PortalChange::Way::add ? "add" : "remove";
  for (const std::string& member : seen.portal->members) text += " " + member;
  for (const std::string& type : seen.portal->user_types) text += " of " + type;
  return text;
}

TEST(ZohoPortal, RequestsNameTheMembersTheyAddAndRemove) {
  const std::string users = "/crm/v8/settings/portals/shop/user_type/7/users";
  EXPECT_EQ(portal("POST /crm/v8/Contacts/12/actions/portal_invite?user_type_id=7&type=invite"),
            "add 12 of 7");
  EXPECT_EQ(portal("POST /crm/v8/Contacts/12/actions/portal_invite"), "add 12 of ");
  const std::string many = "POST /crm/v8/Leads/actions/portal_invite";
  EXPECT_EQ(
      portal(many,
             R"({"portal_invite":[{"data":[{"id":"1","user_type_id":"7"},{"id":"2","user_type_id":"7"}]},
                             {"data":[{"id":"1","user_type_id":"8"}]}]})"),
      "add 1 2 of 7 of 8");
  EXPECT_EQ(portal("PUT " + users + "/12/actions/change_status?active=True"), "add 12 of 7");
  EXPECT_EQ(portal("PUT " + users + "/12/actions/change_status?active=false"), "remove 12");
  EXPECT_EQ(portal("DELETE " + users + "?personality_ids=1,%202,1"), "remove 1 2");
  EXPECT_EQ(portal("POST " + users + "/actions/transfer", "{}"), "none");
  EXPECT_EQ(portal("GET " + users), "none");
  for (const char* bad :
       {"", "[]", "{}", R"({"portal_invite":[]})", R"({"portal_invite":[{"data":[]}]})",
        R"({"portal_invite":[{"data":[{"id":1}]}]})", R"({"portal_invite":[{"data":[{}]}]})",
        R"({"portal_invite":[{"data":[{"id":"1","ID":"2"}]}]})",
        R"({"portal_invite":[{"data":[{"id":"1"}],"Data":[{"id":"2"}]}]})",
        R"({"portal_invite":[{"data":[{"id":"1"}]}],"PORTAL_INVITE":[]})"})
    EXPECT_EQ(portal(many, bad), "reject") << bad;
  for (const char* bad :
       {"POST /crm/v8/Contacts/x/actions/portal_invite", "POST /crm/v8/Contacts/012/actions/portal_invite",
        "POST /crm/v8/Contacts/1/actions/portal_invite/x", "DELETE /crm/v8/Contacts/1/actions/portal_invite",
        "POST /crm/v8/Contacts/1/actions/portal_invite?user_type_id=1&USER_TYPE_ID=2"})
    EXPECT_EQ(portal(bad), "reject") << bad;
  for (const char* bad :
       {"", "?personality_ids=", "?personality_ids=1,", "?personality_ids=1&personality_ids=2"})
    EXPECT_EQ(portal("DELETE " + users + bad), "reject") << bad;
  for (const char* bad : {"", "?active=maybe", "?active=true&active=false"})
    EXPECT_EQ(portal("PUT " + users + "/1/actions/change_status" + bad), "reject") << bad;
}

std::string outcomes(PortalChange::Way way, std::vector<std::string> members, int status,
                     std::string_view body) {
  std::string text;
  for (PortalOutcome outcome :
       read_portal_reply({.way = way, .members = std::move(members), .user_types = {}}, status, body))
    text += outcome == PortalOutcome::done ? 'd' : outcome == PortalOutcome::refused ? 'r' : 'u';
  return text;
}

TEST(ZohoPortal, ReplySaysWhatBecameOfEachMember) {
  constexpr auto kAdd = PortalChange::Way::add, kRemove = PortalChange::Way::remove;
  const char* fine = R"({"portal_invite":[{"code":"SUCCESS","details":{},"status":"success"}]})";
  EXPECT_EQ(outcomes(kAdd, {"1"}, 200, fine), "d");
  EXPECT_EQ(outcomes(kAdd, {"1"}, 400, fine), "r");
  EXPECT_EQ(outcomes(kAdd, {"1"}, 500, fine), "u");
  EXPECT_EQ(outcomes(kAdd, {"1"}, 0, ""), "u");
  EXPECT_EQ(outcomes(kAdd, {"1"}, 200, R"({"portal_invite":[{"code":"INVALID_DATA","status":"error"}]})"),
            "r");
  EXPECT_EQ(outcomes(kAdd, {"1", "2"}, 200, R"({"portal_invite":[{"code":"SCHEDULED","status":"success"}]})"),
            "dd");
  EXPECT_EQ(outcomes(kAdd, {"1", "2"}, 200, R"({"portal_invite":[{"status":"success"},{"status":"error"}]})"),
            "dd");
  for (const char* body : {"", "x", "[]", "{}", R"({"portal_invite":{}})", R"({"portal_invite":[7]})",
                           R"({"portal_invite":[{"status":"perhaps"}]})",
                           R"({"portal_invite":[{"status":"error"}],"PORTAL_invite":[]})"})
    EXPECT_EQ(outcomes(kAdd, {"1"}, 200, body), "u") << body;
  EXPECT_EQ(outcomes(kRemove, {"1", "2", "3"}, 200, R"({"users":[
      {"code":"SUCCESS","status":"success","details":{"personality_id":"2"}},
      {"code":"INVALID_DATA","status":"error","details":{"personality_id":"1"}}]})"),
            "rdu");
  EXPECT_EQ(outcomes(kRemove, {"1", "2"}, 200, R"({"users":[{"code":"SUCCESS","status":"success"}]})"), "uu")
      << "it names nobody";
  EXPECT_EQ(outcomes(kRemove, {"1"}, 200, R"({"users":[{"code":"SCHEDULED","status":"success"}]})"), "u");
  EXPECT_EQ(outcomes(kRemove, {"1"}, 200, R"({"change_status":[{"code":"SUCCESS","status":"success"}]})"),
            "d");
}

TEST(ZohoCoql, TokensAreReadAsTheServerDoes) {
  EXPECT_EQ(coql("SELECT a\\n\\tFROM\\n leads WHERE x = 'from Contacts'"), "Leads read");
  EXPECT_EQ(coql("select x from Leads where y = 'it''s from Deals' and z = 'a\\\\' from Deals'"),
            "Leads read");
  EXPECT_EQ(coql("select Account_Name.Industry from Leads"), "Leads read; Accounts read join");
  EXPECT_EQ(coql("select a from Leads, Contacts"), "Leads read; Contacts read");
  EXPECT_EQ(coql("select a from Leads where id in (select x from Deals)"), "Leads read; Deals read");
  for (const char* bad : {"", "select a", "from Leads", "select a from", "select a from 'Leads'",
                          "select a from Leads where b = 'x", "select a from/**/Leads",
                          "select a from Leads -- x", "select a from `Leads`", "select a from Leads; drop"})
    EXPECT_EQ(coql(bad), "reject") << bad;
  EXPECT_EQ(zoho("POST /crm/v8/coql",
                 R"({"select_query":"select a from Leads","SELECT_query":"select a from Deals"})"),
            "reject");
}

TEST(ZohoComposite, EachSubRequestIsAPart) {
  EXPECT_EQ(
      zoho(
          "POST /crm/v8/__composite_requests",
          R"({"__composite_requests":[{"method":"GET","uri":"/crm/v8/settings/modules"},{"method":"POST","uri":"/crm/v8/coql",
                 "body":{"select_query":"select a from Deals"}},{"method":"DELETE","uri":"/crm/v8/Leads/@{1:$.data[0].id}"}]})"),
      "[1] Deals read; [2] Leads delete");
  for (const char* item :
       {R"({"method":"GET","uri":"/0/odata/Case"})", R"({"method":"GET","uri":"/crm/v8/@{1:$.x}"})",
        R"({"uri":"/crm/v8/Leads"})", R"({"method":"GET","METHOD":"DELETE","uri":"/crm/v8/Leads/1"})",
        R"({"method":"POST","uri":"/crm/v8/__composite_requests"})",
        R"({"method":"POST","uri":"/crm/v8/Contacts/actions/portal_invite"})"})
    EXPECT_EQ(
        zoho("POST /crm/v8/__composite_requests", std::string(R"({"__composite_requests":[)") + item + "]}"),
        "reject")
        << item;
}

TEST(ZohoBulk, JobsNameTheirModules) {
  EXPECT_EQ(zoho("POST /crm/bulk/v2/read", R"({"query":{"module":"leads"}})"), "Leads read");
  EXPECT_EQ(zoho("POST /crm/bulk/v8/read", R"({"query":{"module":{"api_name":"Contacts"}}})"),
            "Contacts read");
  EXPECT_EQ(zoho("POST /crm/bulk/v8/write",
                 R"({"operation":"update","resource":[{"module":"Leads"},{"module":{"api_name":"Deals"}}]})"),
            "Leads edit; Deals edit");
  EXPECT_EQ(zoho("POST /crm/bulk/v8/write", R"({"operation":"erase","resource":[{"module":"Leads"}]})"),
            "reject");
  EXPECT_EQ(zoho("POST /crm/bulk/v8/write", R"({"operation":"insert","resource":[]})"), "reject");
  EXPECT_EQ(zoho("GET /crm/bulk/v8/write/1"), "metadata");
}

TEST(Cherwell, ADetailThatIsMadeIsToldAndOneThatIsChangedIsNot) {
  const auto related = [](const std::string& rest) {
    const std::string body = R"({"parentBusObId":"a","parentBusObRecId":"b",)" + rest + "}";
    const Told told{"POST /CherwellAPI/api/V1/saverelatedbusinessobject", body, kJson};
    EXPECT_EQ(told.cherwell(), "a edit");
    return told.classify(Dialect::cherwell).makes_related;
  };
  EXPECT_EQ(related(R"("busObId":"9a")"), "9a");
  EXPECT_EQ(related(R"("busObId":"9a","busObRecId":"","busObPublicId":null)"), "9a");
  EXPECT_EQ(related(R"("busObId":"9a","busObRecId":"c")"), "");
  EXPECT_EQ(related(R"("busObId":"9a","busObPublicId":"7")"), "");
  EXPECT_EQ(related(R"("busObId":"9a","busobid":"9b")"), "");
  EXPECT_EQ(related(R"("fields":[])"), "");
}

TEST(Cherwell, APageOfTheBrowserPortalNamesItsObjectOrIsUnknown) {
  const std::string page = "/CherwellPortal/IT/Command/Queries.GoToRecord";
  EXPECT_EQ(cherwell("GET " + page + "?BusObID=6dd53665c0c24cab86870a21cf6434ae&RecID=1"), "Incident read");
  EXPECT_EQ(cherwell("GET " + page + "?BusObID="), "unknown");
  EXPECT_EQ(cherwell("GET " + page + "?BusObID=&RecID=1"), "unknown");
  EXPECT_EQ(cherwell("GET " + page + "?BusObID=a&BusObID=b"), "reject");
}

TEST(Cherwell, TheOperationsNameDecides) {
  const std::string api = "/CHERWELLapi/api/v1/";
  EXPECT_EQ(cherwell("GET " + api + "GetBusinessObject/BusObId/6DD53665C0C24CAB86870A21CF6434AE/PublicId/1"),
            "Incident read");
  EXPECT_EQ(cherwell("GET " + api + "getbusinessobject/scancode/9/busobname/incident"), "Incident read");
  EXPECT_EQ(cherwell("GET " + api + "getbusinessobject/busobid/ffff/publicid/1"), "ffff read");
  EXPECT_EQ(cherwell("GET " + api + "getbusinessobject/busobid/ffff/busobid/eeee"), "reject");
  EXPECT_EQ(
      cherwell(
          "POST " + api + "savebusinessobjectbatch",
          R"({"saveRequests":[{"busObId":"6dd53665c0c24cab86870a21cf6434ae","busObRecId":null,"busObPublicId":""},{"busobid":"6dd53665c0c24cab86870a21cf6434ae","busObRecId":"1"}]})"),
      "[0] Incident create; [1] Incident edit");
  EXPECT_EQ(cherwell("POST " + api + "savebusinessobject", R"({"busObId":"a","busobid":"b"})"), "reject");
  EXPECT_EQ(cherwell("POST " + api + "savebusinessobject", "{}"), "reject");
  EXPECT_EQ(
      cherwell("POST " + api + "getsearchresults", R"({"association":"6dd53665c0c24cab86870a21cf6434ae"})"),
      "Incident read");
  EXPECT_EQ(cherwell("GET /cherwellapi/api/V2/storedsearches/Global/6dd53665c0c24cab86870a21cf6434ae/All"),
            "Incident read");
  EXPECT_EQ(cherwell("POST /Trebuchet.WebApi/api/V1/6dd53665c0c24cab86870a21cf6434ae/records/1/transitions"),
            "Incident edit");
  EXPECT_EQ(cherwell("POST " + api +
                     "uploadbusinessobjectattachment/filename/busobid/busobid/"
                     "6dd53665c0c24cab86870a21cf6434ae/offset/5/totalsize/10"),
            "Incident edit (free)");
  EXPECT_EQ(cherwell("GET " + api +
                     "runonestepaction/standinkey/DefType%3AOneStepDef%23Id%3A94quiet/busobid/"
                     "6dd53665c0c24cab86870a21cf6434ae/busobrecid/1"),
            "objects");
  EXPECT_EQ(
      cherwell(
          "GET " + api +
          "runonestepaction/standinkey/Id%3Aother/busobid/6dd53665c0c24cab86870a21cf6434ae/busobrecid/1"),
      "Incident edit process");
  EXPECT_EQ(
      cherwell("DELETE " + api +
               "deleterelatedbusinessobject/parentbusobid/6dd53665c0c24cab86870a21cf6434ae/parentbusobrecid/"
               "1/relationshipid/2/busobid/93405caa107c376a2bd15c4c8885a900be316f3a72/busobrecid/3"),
      "Customer delete; Incident edit nav");
  EXPECT_EQ(cherwell("POST " + api + "neverheardof"), "unknown");
  EXPECT_EQ(cherwell("GET " + api + "getonestepactions/association/1"), "metadata");
  EXPECT_EQ(cherwell("GET /0/odata/Case"), "foreign");
}

TEST(Rest, CollectionsAreObjects) {
  auto rest = [](const char* line) { return Told{line}.rest(); };
  EXPECT_EQ(rest("GET /api/v1/tickets"), "tickets read");
  EXPECT_EQ(rest("HEAD /api/tickets/1"), "tickets read");
  EXPECT_EQ(rest("POST /crm/api/v2.0/tickets"), "tickets create");
  EXPECT_EQ(rest("PATCH /api/v1/case/1"), "Case edit");
  EXPECT_EQ(rest("DELETE /api/v1/accounts/7/cases/42"), "Accounts edit; cases delete nav");
  EXPECT_EQ(rest("GET /api/shop/x/Order/7"), "Order read");
  EXPECT_EQ(rest("GET /api"), "metadata");
  EXPECT_EQ(rest("GET /api/v1"), "metadata");
  EXPECT_EQ(rest("GET /api/v1/tic%20kets"), "reject");
  EXPECT_EQ(rest("GET /index.html"), "foreign");
}

// A directory named like a folder of Creatio's files is no cover for another system's API behind it.
TEST(Dialects, AnotherSystemBehindAFolderOfFilesIsRead) {
  const Classifier classifier(Options{{Dialect::creatio, Dialect::zoho, Dialect::cherwell, Dialect::rest}},
                              small_schema());
  auto told = [&](std::string_view target) {
    return describe(classifier.classify(Request{"GET", target, {}, {}}));
  };
  EXPECT_EQ(told("/core/api/v1/cases"), "cases read");
  EXPECT_EQ(told("/core/crm/v8/Leads"), "Leads read");
  EXPECT_EQ(
      told("/core/CherwellAPI/api/V1/getbusinessobject/busobid/6dd53665c0c24cab86870a21cf6434ae/publicid/1"),
      "Incident read");
  EXPECT_EQ(told("/core/hash/api/x.js"), "asset");
  EXPECT_EQ(told("/Login/NuiLogin.aspx"), "asset");
}

}  // namespace
}  // namespace tollgate::catalogue
