// Routes that replace their prefix: what the upstream is asked for, and that everything is judged by that.
#include "proxy/flow/rewrite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "metering/base/random.h"
#include "proxy/flow/gate.h"
#include "tests/proxy/flow/support/portal.h"

namespace tollgate::flow {
namespace {

using test::Portal;
using test::token;
using test::with_token;

config::Route route(std::string prefix, std::string replacement) {
  return {.path_prefix = std::move(prefix),
          .upstream = "crm",
          .rewrite = {.replace_prefix = std::move(replacement)}};
}

std::string rewritten(const config::Route& by, std::string_view sent) {
  auto normal = catalogue::normalise(sent);
  EXPECT_TRUE(normal) << sent;
  return normal ? rewritten_path(by, sent, *normal) : "";
}

TEST(Rewrite, ThePrefixIsReplacedAndTheRestKeepsItsBytes) {
  const config::Route crm = route("/portal", "/crm"), strip = route("/portal/", "/"),
                      add = route("/", "/crm/");
  for (const auto& [by, sent, expected] :
       std::initializer_list<std::tuple<config::Route, const char*, const char*>>{
           {crm, "/portal", "/crm"},
           {crm, "/portal/", "/crm/"},
           {crm, "/Portal/a%2Cb/%24metadata", "/crm/a%2Cb/%24metadata"},
           {crm, "/p%6Frtal/Case('a%2Fb')/", "/crm/Case('a%2Fb')/"},
           {crm, "/portal/Case('a/b')", "/crm/Case('a/b')"},
           {strip, "/portal", "/"},
           {strip, "/portal/", "/"},
           {strip, "/portal/a", "/a"},
           {add, "/", "/crm/"},
           {add, "/a/b/", "/crm/a/b/"},
           {route("/a/b", "/c"), "/A/B/d", "/c/d"}})
    EXPECT_EQ(rewritten(by, sent), expected) << sent;
}

TEST(Rewrite, PathsWithEmptyOrDotSegmentsAreWrittenAnew) {
  const config::Route crm = route("/portal", "/crm"), strip = route("/portal", "/");
  for (const auto& [sent, kept, stripped] : std::initializer_list<std::array<const char*, 3>>{
           {"//portal//a", "/crm/a", "/a"},
           {"/portal//evil.example/", "/crm/evil.example/", "/evil.example/"},
           {"/x/../portal/a", "/crm/a", "/a"},
           {"/portal/./a/%2E%2e/b%2Cc", "/crm/b,c", "/b,c"},
           {"/portal//", "/crm/", "/"},
           {"/portal//Case('a%2Fb')", "/crm/Case('a%2Fb')", "/Case('a%2Fb')"},
           {"/portal/.hidden", "/crm/.hidden", "/.hidden"}}) {
    EXPECT_EQ(rewritten(crm, sent), kept) << sent;
    EXPECT_EQ(rewritten(strip, sent), stripped) << sent;
  }
}

// Whatever is sent: the result has one reading, which is the replacement and the rest of what was sent.
TEST(Rewrite, NoPathMakesATargetThatIsReadDifferently) {
  constexpr std::string_view kPieces[] = {
      "/",         "/",       "/",         "//",   "/.",     "/..", "/%2e", "/%2E.", "a", "portal",
      "/portal",   "/PORTAL", "/p%6frtal", "%24",  "%c3%a4", "%2F", "'",    "(",     ")", "('x/y')",
      "('x%2Fy')", "/.a",     "/a.b",      "%20b", ",",      "%3b", "crm",  "/crm"};
  const config::Route routes[] = {route("/portal", "/crm"), route("/portal", "/"), route("/", "/crm"),
                                  route("/portal/a", "/b/c")};
  Random random(20261123);
  int checked = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string sent = i % 2 == 0 ? "/portal" : "/";
    for (std::uint64_t n = random.below(7); n > 0; --n) sent += kPieces[random.below(std::size(kPieces))];
    auto normal = catalogue::normalise(sent);
    if (!normal) continue;
    for (const config::Route& by : routes) {
      config::Settings settings;
      settings.routes = {by};
      if (find_route(settings, "", normal->path) == nullptr) continue;
      const std::string out = rewritten_path(by, sent, *normal);
      ASSERT_TRUE(out.starts_with('/')) << sent;
      ASSERT_EQ(out.find("//"), std::string::npos) << sent << " -> " << out;
      for (const char* dots : {"/./", "/../", "/%2e/", "/%2E/", "/%2e%2e/", "/.%2e/", "/%2e./"})
        ASSERT_EQ((out + "/").find(dots), std::string::npos) << sent << " -> " << out;
      auto read = catalogue::normalise(out);
      ASSERT_TRUE(read) << sent << " -> " << out;
      const std::size_t prefix = by.path_prefix == "/" ? 0 : by.path_prefix.size();
      std::string expected = (by.rewrite.replace_prefix == "/" ? "" : by.rewrite.replace_prefix);
      expected += normal->path == "/" ? "" : normal->path.substr(prefix);
      ASSERT_EQ(read->path, expected.empty() ? "/" : expected) << sent << " -> " << out;
      ++checked;
    }
  }
  EXPECT_GT(checked, 50'000);
}

config::Settings settings_with(std::vector<config::Route> routes) {
  config::Settings out = test::settings();
  out.routes = std::move(routes);
  return out;
}

TEST(Rewrite, WhatTheUpstreamWillSeeIsClassifiedAndCounted) {
  // Sent, it is nothing that a CRM knows; rewritten, it is a read of cases.
  Portal portal(settings_with({route("/cases", "/0/odata/Case")}));
  auto out = portal.send(with_token("GET", "/cases?$top=1", token()));
  EXPECT_EQ(out.next, Next::forward);
  EXPECT_EQ(out.call.upstream_path, "/0/odata/Case");
  ASSERT_EQ(out.call.decision.units.size(), 1U);
  EXPECT_EQ(out.call.decision.units[0].object, "Case");
  EXPECT_FALSE(out.call.receipt.items.empty());
}

TEST(Rewrite, APathThatLooksFreeIsNotFreeWhenTheUpstreamSeesAnother) {
  // /Login/ would pass without a token, and Lead is not licensed.
  Portal portal(settings_with({route("/Login", "/0/odata"), route("/0/odata/Case", "/0/odata/Lead")}));
  EXPECT_EQ(portal.send(test::Request("GET", "/Login/Case")).call.reply.status, 401);
  EXPECT_EQ(portal.send(with_token("GET", "/0/odata/Case", token())).call.reason,
            Reason::section_not_licensed);
}

TEST(Rewrite, BatchesAreReadRelativeToThePathThatTheUpstreamSees) {
  Portal portal(settings_with({route("/portal", "/0/odata")}));
  const std::string two =
      R"({"requests":[{"id":"1","method":"GET","url":"Case"},{"id":"2","method":"GET","url":"/0/odata/Case"}]})";
  auto out =
      portal.send(with_token("POST", "/portal/$batch", token(), two, {{"Content-Type", "application/json"}}));
  EXPECT_EQ(out.next, Next::forward);
  EXPECT_EQ(out.call.decision.units.size(), 2U);
  // An address in the form that only clients know is none for the upstream.
  const std::string outside =
      R"({"requests":[{"id":"1","method":"GET","url":"https://crm.example/portal/Case"}]})";
  out = portal.send(
      with_token("POST", "/portal/$batch", token(), outside, {{"Content-Type", "application/json"}}));
  EXPECT_EQ(out.call.reply.status, 400);
}

TEST(Rewrite, RoutesMatchWhatWasSentAndOurOwnPagesStayOurs) {
  Portal portal(settings_with({route("/", "/.tollgate"), route("/a", "/b"), route("/b", "/0/odata")}));
  EXPECT_EQ(portal.send(with_token("GET", "/a/x", token())).call.upstream_path, "/b/x");
  EXPECT_EQ(portal.send(with_token("GET", "/.tollgate/usage", token())).call.reply.status, 200);
  EXPECT_EQ(portal.send(with_token("OPTIONS", "*", token())).call.upstream_path, "");
}

TEST(Rewrite, AnAbsoluteTargetIsRewrittenToo) {
  Portal portal(settings_with({route("/portal", "/0/odata")}));
  auto out = portal.send(with_token("GET", "http://crm.example/portal/Case?$top=1", token()));
  EXPECT_EQ(out.call.upstream_path, "/0/odata/Case");
  EXPECT_EQ(out.call.decision.units.size(), 1U);
}

TEST(Rewrite, APathThatGetsTooDeepIs400) {
  Portal portal(settings_with({route("/", "/a/b/c")}));
  std::string deep;
  for (std::size_t i = 0; i + 2 < catalogue::kPathSegmentsMax; ++i) deep += "/x";
  EXPECT_EQ(portal.send(with_token("GET", deep, token())).call.reply.status, 400);
}

}  // namespace
}  // namespace tollgate::flow
