#include "proxy/flow/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <simdjson.h>

#include "tests/proxy/flow/support/portal.h"

namespace tollgate::flow {
namespace {

using test::Portal;
using test::Request;
using test::token;
using test::with_token;
using testing::HasSubstr;
using testing::Not;

std::string text_of(const std::string& body, std::string_view member) {
  simdjson::dom::parser parser;
  simdjson::dom::element document;
  const simdjson::padded_string padded(body);
  if (parser.parse(padded).get(document) != simdjson::SUCCESS) return "not JSON: " + body;
  simdjson::dom::element found;
  if (document.at_pointer("/" + std::string(member)).get(found) != simdjson::SUCCESS) return "";
  std::string_view text;
  if (found.get(text) == simdjson::SUCCESS) return std::string(text);
  return simdjson::minify(found);
}

TEST(Gate, LicensedReadIsChargedAndForwardedWithRateLimitFields) {
  Portal portal;
  auto out = portal.send(with_token("GET", "/0/odata/Case?$top=1", token()));
  EXPECT_EQ(out.next, Next::forward);
  EXPECT_THAT(out.call.response_fields, HasSubstr("RateLimit-Policy: \"daily\";q=3;w=86400\r\n"));
  EXPECT_THAT(out.call.response_fields, HasSubstr("RateLimit: \"daily\";r=2;t=86"));
  ASSERT_EQ(out.call.decision.units.size(), 1U);
  EXPECT_EQ(out.call.decision.units[0].object, "Case");
  EXPECT_FALSE(out.call.receipt.items.empty());
}

TEST(Gate, CallBeyondTheLimitIs429WithTheMomentAtWhichItPasses) {
  Portal portal;
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(portal.send(with_token("GET", "/0/odata/Case", token())).next, Next::forward);
  auto out = portal.send(with_token("GET", "/0/odata/Case", token()));
  ASSERT_EQ(out.next, Next::reply);
  EXPECT_EQ(out.call.reply.status, 429);
  EXPECT_EQ(text_of(out.call.reply.body, "reason"), "quota_exceeded");
  EXPECT_EQ(text_of(out.call.reply.body, "limit"), "3");
  EXPECT_EQ(text_of(out.call.reply.body, "used"), "3");
  EXPECT_EQ(text_of(out.call.reply.body, "violated-policies"), "[\"daily\"]");
  EXPECT_EQ(text_of(out.call.reply.body, "instance"), "request-0001");
  const auto wait = std::stoll(text_of(out.call.reply.body, "retry_after"));
  EXPECT_THAT(out.call.reply.fields, HasSubstr("Retry-After: " + std::to_string(wait) + "\r\n"));
  EXPECT_THAT(out.call.reply.fields, HasSubstr("Cache-Control: no-store\r\n"));
  EXPECT_THAT(out.call.reply.fields, HasSubstr("RateLimit: \"daily\";r=0;t="));

  portal.store_time += Seconds(wait - 1);
  EXPECT_EQ(portal.send(with_token("GET", "/0/odata/Case", token({.expires = test::kNow + 200'000}))).next,
            Next::reply);
  portal.store_time += Seconds(1);
  EXPECT_EQ(portal.send(with_token("GET", "/0/odata/Case", token({.expires = test::kNow + 200'000}))).next,
            Next::forward);
}

TEST(Gate, BatchCostsItsOperationsAllOrNothing) {
  Portal portal;
  const std::string two =
      R"({"requests":[{"id":"1","method":"GET","url":"Case"},{"id":"2","method":"POST","url":"Case","body":{}}]})";
  std::vector<std::pair<std::string, std::string>> json = {{"Content-Type", "application/json"}};
  auto first = portal.send(with_token("POST", "/0/odata/$batch", token(), two, json));
  EXPECT_EQ(first.next, Next::forward);
  EXPECT_EQ(first.call.decision.units.size(), 2U);
  auto second = portal.send(with_token("POST", "/0/odata/$batch", token(), two, json));
  EXPECT_EQ(second.call.reply.status, 429);
  // The refused batch took nothing: the third unit is still there.
  EXPECT_EQ(portal.send(with_token("GET", "/0/odata/Case", token())).next, Next::forward);
}

TEST(Gate, BatchWithOneDeniedPartCostsNothing) {
  Portal portal;
  const std::string mixed =
      R"({"requests":[{"id":"1","method":"GET","url":"Case"},{"id":"2","method":"GET","url":"Lead"}]})";
  auto out = portal.send(
      with_token("POST", "/0/odata/$batch", token(), mixed, {{"Content-Type", "application/json"}}));
  ASSERT_EQ(out.next, Next::reply);
  EXPECT_EQ(out.call.reply.status, 403);
  EXPECT_EQ(text_of(out.call.reply.body, "reason"), "section_not_licensed");
  EXPECT_EQ(portal.ledger.account_count(), 0U);
}

TEST(Gate, NoTokenIsChallengedWithoutAnErrorAttribute) {
  Portal portal;
  auto out = portal.send(Request("GET", "/0/odata/Case"));
  EXPECT_EQ(out.call.reply.status, 401);
  EXPECT_EQ(text_of(out.call.reply.body, "reason"), "token_missing");
  EXPECT_THAT(out.call.reply.fields, HasSubstr("WWW-Authenticate: Bearer realm=\"tollgate\"\r\n"));
}

TEST(Gate, BadAndExpiredTokensAreToldApart) {
  Portal portal;
  auto expired = portal.send(with_token("GET", "/0/odata/Case", token({.expires = test::kNow - 3'600})));
  EXPECT_EQ(text_of(expired.call.reply.body, "reason"), "token_expired");
  EXPECT_THAT(expired.call.reply.fields, HasSubstr("error=\"invalid_token\""));
  auto forged =
      portal.send(with_token("GET", "/0/odata/Case", token({.secret = "another-secret-another-secret-12"})));
  EXPECT_EQ(text_of(forged.call.reply.body, "reason"), "token_invalid");
  auto twice = portal.send(Request("GET", "/0/odata/Case", {{"Authorization", "Bearer a.b.c"}}));
  EXPECT_EQ(twice.call.reply.status, 401);
}

TEST(Gate, CachedTokenExpiresAllTheSame) {
  Portal portal;
  const std::string mine = token({.expires = test::kNow + 100});
  EXPECT_EQ(portal.send(with_token("GET", "/0/odata/Case", mine)).next, Next::forward);
  EXPECT_EQ(portal.send(with_token("GET", "/0/odata/Case", mine)).next, Next::forward);
  EXPECT_EQ(portal.gate.token_cache_hits(), 1U);
  portal.now = from_unix_seconds(test::kNow + 131);  // 30 s leeway
  auto out = portal.send(with_token("GET", "/0/odata/Case", mine));
  EXPECT_EQ(text_of(out.call.reply.body, "reason"), "token_expired");
}

TEST(Gate, ReloadMakesTokensProveThemselvesAgain) {
  Portal portal;
  (void)portal.send(with_token("GET", "/0/odata/Case", token()));
  config::Settings stricter = test::settings();
  stricter.identity.jwt[0].audience = {"crm-portal"};
  portal.reload(stricter);
  auto out = portal.send(with_token("GET", "/0/odata/Case", token()));
  EXPECT_EQ(text_of(out.call.reply.body, "reason"), "token_invalid");
}

TEST(Gate, StaffPassesUnmetered) {
  Portal portal;
  for (int i = 0; i < 5; ++i) {
    auto out = portal.send(with_token("DELETE", "/0/odata/Lead(405947d0-2ffb-4ded-8675-0475f19f5a81)",
                                      token({.type = "staff"})));
    EXPECT_EQ(out.next, Next::forward);
    EXPECT_EQ(out.call.response_fields, "");
  }
  EXPECT_EQ(portal.ledger.account_count(), 0U);
}

TEST(Gate, DeniedOperationNamesWhatIsMissingAndCostsNothing) {
  Portal portal;
  auto remove =
      portal.send(with_token("DELETE", "/0/odata/Case(405947d0-2ffb-4ded-8675-0475f19f5a81)", token()));
  EXPECT_EQ(remove.call.reply.status, 403);
  EXPECT_EQ(text_of(remove.call.reply.body, "reason"), "operation_not_licensed");
  auto nobody = portal.send(with_token("GET", "/0/odata/Case", token({.user = "bob", .licenses = {}})));
  EXPECT_EQ(text_of(nobody.call.reply.body, "reason"), "license_missing");
  EXPECT_EQ(portal.ledger.account_count(), 0U);
}

TEST(Gate, UnlicensedObjectsAndMetadataAreFree) {
  Portal portal;
  for (auto target : {"/0/odata/$metadata", "/0/odata/City", "/0/odata/CaseStatus"}) {
    auto out = portal.send(with_token("GET", target, token()));
    EXPECT_EQ(out.next, Next::forward) << target;
  }
  EXPECT_EQ(portal.ledger.account_count(), 0U);
}

TEST(Gate, LoginAndAssetsNeedNoToken) {
  Portal portal;
  EXPECT_EQ(
      portal
          .send(Request("POST", "/ServiceModel/AuthService.svc/Login", {{"Content-Type", "application/json"}},
                        R"({"UserName":"a","UserPassword":"b"})"))
          .next,
      Next::forward);
  EXPECT_EQ(portal.send(Request("GET", "/0/conf/content/PortalCasePage.js")).next, Next::forward);
  EXPECT_EQ(portal.send(Request("GET", "/0/odata/$metadata")).call.reply.status, 401);
}

TEST(Gate, TooBusyForAnonymousRequestsItStillServesThoseWithAToken) {
  Portal portal;
  portal.no_anonymous = true;
  EXPECT_EQ(portal.send(with_token("GET", "/0/odata/Case", token())).next, Next::forward);
  auto asset = portal.send(Request("GET", "/0/conf/content/PortalCasePage.js"));
  EXPECT_EQ(asset.call.reply.status, 503);
  EXPECT_TRUE(asset.call.shed);
  EXPECT_THAT(asset.call.reply.fields, HasSubstr("Retry-After: 1\r\n"));
  EXPECT_EQ(portal.send(with_token("GET", "/0/conf/content/PortalCasePage.js", token())).next, Next::forward);
  // What is refused anyway is not refused for being too busy.
  EXPECT_EQ(portal.send(Request("GET", "/0/odata/Case")).call.reply.status, 401);
}

TEST(Gate, AbsoluteFormIsJudgedLikeOriginForm) {
  Portal portal;
  auto out = portal.send(with_token("GET", "http://crm.example/0/odata/Case?$top=1", token()));
  EXPECT_EQ(out.next, Next::forward) << out.call.reply.body;
  ASSERT_EQ(out.call.decision.units.size(), 1U);
  EXPECT_EQ(portal.send(with_token("GET", "http://crm.example/0/odata/Account", token())).call.reply.status,
            403);
  EXPECT_EQ(portal.send(Request("GET", "http://crm.example/0/odata/Case")).call.reply.status, 401);
}

TEST(Gate, UsageIsABasicFunction) {
  Portal portal;
  EXPECT_EQ(portal.send(with_token("GET", "/.tollgate/usage", token())).call.classification.kind,
            catalogue::Kind::basic_function);
}

TEST(Gate, DataUnderAnAddressThatNeedsNoTokenNeedsOne) {
  Portal portal;
  for (const char* target :
       {"/0/Nui/../odata/Case", "/Login/odata/Case", "/core/0/odata/Case", "/connect/x/odata/Case",
        "/connect/token/../../0/odata/Case", "/ServiceModel/AuthService.svc/Login/odata/Case",
        "/0/ssp/rest/CasePortalService/CloseCase", "/0/img/entity/hash/Case/Photo/1"})
    EXPECT_EQ(portal.send(Request("GET", target)).call.reply.status, 401) << target;
  for (const char* target : {"/Login/NuiLogin.aspx", "/0/connect/token", "/0/conf/content/rest/x.js"})
    EXPECT_EQ(portal.send(Request("GET", target)).next, Next::forward) << target;
}

TEST(Gate, WaitOfMoreThanADayIsToldInHoursAndMinutes) {
  Portal portal;
  for (int i = 0; i < 3; ++i) portal.send(with_token("GET", "/0/odata/Case", token()));
  auto out = portal.send(with_token("GET", "/0/odata/Case", token()));
  EXPECT_THAT(text_of(out.call.reply.body, "detail"), HasSubstr("There is room again in 24 h 1 min."));
}

TEST(Gate, UsageTellsWhatWasCountedAndCostsNothing) {
  Portal portal;
  (void)portal.send(with_token("GET", "/0/odata/Case", token()));
  (void)portal.send(
      with_token("POST", "/0/odata/Case", token(), "{}", {{"Content-Type", "application/json"}}));
  for (int i = 0; i < 10; ++i) {
    auto out = portal.send(with_token("GET", "/.tollgate/usage", token()));
    ASSERT_EQ(out.next, Next::reply);
    EXPECT_EQ(out.call.reply.status, 200);
    EXPECT_EQ(text_of(out.call.reply.body, "user"), "ann");
    EXPECT_EQ(text_of(out.call.reply.body, "limits/0/used"), "2");
    EXPECT_EQ(text_of(out.call.reply.body, "limits/0/remaining"), "1");
    EXPECT_EQ(text_of(out.call.reply.body, "limits/0/window"), "86400");
    EXPECT_EQ(text_of(out.call.reply.body, "limits/0/next_free/calls"), "2");
    EXPECT_EQ(
        text_of(out.call.reply.body, "objects"),
        R"([{"object":"Case","operation":"create","calls":1},{"object":"Case","operation":"read","calls":1}])");
  }
  EXPECT_EQ(portal.send(Request("GET", "/.tollgate/usage")).call.reply.status, 401);
  EXPECT_EQ(portal.send(with_token("GET", "/.tollgate/other", token())).call.reply.status, 404);
  const auto posted = portal.send(with_token("POST", "/.tollgate/usage", token()));
  EXPECT_EQ(posted.call.reply.status, 405);
  EXPECT_EQ(text_of(posted.call.reply.body, "reason"), "method_not_allowed");
  EXPECT_NE(posted.call.reply.fields.find("\r\nAllow: GET, HEAD\r\n"), std::string::npos);
}

TEST(Gate, StoreAwayDeniesUnlessToldToAllow) {
  Portal portal;
  portal.ledger.set_available(false);
  auto denied = portal.send(with_token("GET", "/0/odata/Case", token()));
  EXPECT_EQ(denied.call.reply.status, 503);
  EXPECT_EQ(text_of(denied.call.reply.body, "reason"), "store_unavailable");
  EXPECT_TRUE(denied.call.degraded);
  config::Settings open = test::settings();
  open.store.on_outage = config::OnOutage::allow;
  portal.reload(open);
  auto allowed = portal.send(with_token("GET", "/0/odata/Case", token()));
  EXPECT_EQ(allowed.next, Next::forward);
  EXPECT_TRUE(allowed.call.degraded);
}

TEST(Gate, ODataCallersGetTheErrorObjectToo) {
  Portal portal;
  auto out =
      portal.send(Request("GET", "/0/odata/Case", {{"Accept", "application/json;odata.metadata=minimal"}}));
  EXPECT_EQ(text_of(out.call.reply.body, "error/code"), "token_missing");
  EXPECT_FALSE(text_of(out.call.reply.body, "error/message").empty());
  EXPECT_EQ(
      text_of(portal.send(Request("GET", "/0/odata/Case", {{"Accept", "application/json"}})).call.reply.body,
              "error"),
      "");
}

TEST(Gate, BodyPastTheLimitIsNeverPassedUninspected) {
  config::Settings small = test::settings();
  small.catalogue.max_body = 10;
  Portal portal(small);
  auto out = portal.send(with_token("POST", "/0/odata/$batch", token(), R"({"requests":[]})",
                                    {{"Content-Type", "application/json"}}));
  EXPECT_EQ(out.call.reply.status, 413);
  EXPECT_EQ(text_of(out.call.reply.body, "reason"), "body_uninspectable");
}

TEST(Gate, UnmeteredRouteAsksNothing) {
  config::Settings open = test::settings();
  open.routes.push_back({.host = "", .path_prefix = "/public", .upstream = "crm", .metered = false});
  Portal portal(open);
  EXPECT_EQ(portal.send(Request("GET", "/public/logo.png")).next, Next::forward);
  EXPECT_EQ(portal.send(Request("GET", "/publicity")).call.reply.status, 401);
}

TEST(Gate, HostWithoutRouteIs404) {
  config::Settings named = test::settings();
  named.routes[0].host = "other.example";
  Portal portal(named);
  auto out = portal.send(with_token("GET", "/0/odata/Case", token()));
  EXPECT_EQ(out.call.reply.status, 404);
}

TEST(Gate, TokenMayComeFromACookieOrAnotherHeader) {
  config::Settings sources = test::settings();
  sources.identity.sources = {{.header = "X-Access-Token", .cookie = ""}, {.header = "", .cookie = "portal"}};
  Portal portal(sources);
  EXPECT_EQ(portal.send(Request("GET", "/0/odata/Case", {{"X-Access-Token", token()}})).next, Next::forward);
  EXPECT_EQ(
      portal.send(Request("GET", "/0/odata/Case", {{"Cookie", "a=b; portal=" + token() + "; c=d"}})).next,
      Next::forward);
  EXPECT_EQ(portal.send(with_token("GET", "/0/odata/Case", token())).call.reply.status, 401);
  auto two = portal.send(Request("GET", "/0/odata/Case", {{"Cookie", "portal=x.y.z; portal=" + token()}}));
  EXPECT_EQ(text_of(two.call.reply.body, "reason"), "token_invalid");
}

TEST(Gate, CandidateLimitRefusesNothingAndIsNamedInUsageOnly) {
  config::Settings both = test::settings();
  both.quotas.push_back(both.quotas.front());
  both.quotas.back().name = "next";
  both.quotas.back().limit = 1;
  both.quotas.back().mode = config::QuotaMode::shadow;
  Portal portal(both);
  for (int i = 0; i < 3; ++i) {
    auto out = portal.send(with_token("GET", "/0/odata/Case", token()));
    EXPECT_EQ(out.next, Next::forward) << i;
    EXPECT_EQ(out.call.response_fields.find("next"), std::string::npos) << out.call.response_fields;
  }
  auto refused = portal.send(with_token("GET", "/0/odata/Case", token()));
  EXPECT_EQ(refused.call.reply.status, 429);
  EXPECT_EQ(refused.call.reply.body.find("next"), std::string::npos) << refused.call.reply.body;
  auto usage = portal.send(with_token("GET", "/.tollgate/usage", token()));
  EXPECT_NE(usage.call.reply.body.find(R"("name":"next","mode":"shadow","limit":1)"), std::string::npos)
      << usage.call.reply.body;
}

TEST(Routes, LongestPrefixOnWholeSegmentsAndNamedHostFirst) {
  config::Settings s;
  s.routes = {{.host = "", .path_prefix = "/", .upstream = "a"},
              {.host = "", .path_prefix = "/api/", .upstream = "b"},
              {.host = "crm.example", .path_prefix = "/", .upstream = "c"}};
  EXPECT_EQ(find_route(s, "x.example", "/apis")->upstream, "a");
  EXPECT_EQ(find_route(s, "x.example", "/API/v1")->upstream, "b");
  EXPECT_EQ(find_route(s, "x.example", "/api")->upstream, "b");
  EXPECT_EQ(find_route(s, "CRM.example:8080", "/api/v1")->upstream, "c");
}

}  // namespace
}  // namespace tollgate::flow
