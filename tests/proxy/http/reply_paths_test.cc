#include "proxy/http/reply_paths.h"

#include <gtest/gtest.h>

namespace tollgate::http {
namespace {

const std::vector<std::string> kServers = {"http://crm:80", "https://crm2:8443", "unix:/run/crm.sock"};

std::string mapped(std::string_view name, std::string_view value, std::string_view upstream,
                   std::string_view client) {
  return mapped_field(name, value,
                      {.upstream_prefix = upstream,
                       .client_prefix = client,
                       .host = "Portal.example:8080",
                       .public_host = "portal.example",
                       .servers = kServers})
      .value_or(std::string(value));
}
std::string location(std::string_view value, std::string_view upstream = "/crm",
                     std::string_view client = "/portal") {
  return mapped("LOCATION", value, upstream, client);
}
std::string cookie(std::string_view value, std::string_view upstream = "/crm",
                   std::string_view client = "/portal") {
  return mapped("Set-Cookie", value, upstream, client);
}

TEST(ReplyPaths, AddressesBelowThePrefixAreMapped) {
  EXPECT_EQ(location("/crm"), "/portal");
  EXPECT_EQ(location("/CRM/login?x=/crm/"), "/portal/login?x=/crm/");
  EXPECT_EQ(location("/crm?x"), "/portal?x");
  EXPECT_EQ(location("/crm#x"), "/portal#x");
  EXPECT_EQ(location("https://portal.example:8080/crm/a"), "https://portal.example:8080/portal/a");
  EXPECT_EQ(location("HTTP://PORTAL.example/crm/a"), "HTTP://PORTAL.example/portal/a");
  EXPECT_EQ(location("//portal.example/crm/a"), "//portal.example/portal/a");
  EXPECT_EQ(mapped("content-location", "/crm/a", "/crm", "/portal"), "/portal/a");
}

TEST(ReplyPaths, TheNameOfTheServerBecomesAPath) {
  EXPECT_EQ(location("http://crm/crm/a"), "/portal/a");
  EXPECT_EQ(location("http://CRM:80/crm/a"), "/portal/a");
  EXPECT_EQ(location("https://crm2:8443/crm"), "/portal");
}

TEST(ReplyPaths, EverythingElseStays) {
  for (const char* value :
       {"/crmx/a", "/other", "login", "../crm/a", "?x=1", "", "https://crm/crm/a", "http://crm:81/crm/a",
        "https://idp.example/crm/a", "http://crm/other", "mailto:a@crm", "http://crm", "http:///crm/a",
        "http://crm@evil.example/crm/a", "https://crm2/crm/a", "//evil.example/crm/a"})
    EXPECT_EQ(location(value), value);
  EXPECT_EQ(mapped("X-Location", "/crm/a", "/crm", "/portal"), "/crm/a");
}

TEST(ReplyPaths, APrefixThatWasTakenAwayIsGivenBack) {
  EXPECT_EQ(location("/", "", "/portal"), "/portal/");
  EXPECT_EQ(location("/a", "", "/portal"), "/portal/a");
  EXPECT_EQ(location("http://crm/", "", "/portal"), "/portal/");
}

TEST(ReplyPaths, APrefixThatWasAddedIsTakenAway) {
  EXPECT_EQ(location("/crm", "/crm", ""), "/");
  EXPECT_EQ(location("/crm?x", "/crm", ""), "/?x");
  EXPECT_EQ(location("/crm/a", "/crm", ""), "/a");
}

TEST(ReplyPaths, NoAddressOfAnotherHostIsMade) {
  for (const char* value : {"/crm//evil.example/", "/crm/\\evil.example/", "http://crm/crm//evil.example"})
    EXPECT_EQ(location(value, "/crm", ""), value);
}

TEST(ReplyPaths, CookiesComeBackToThePathThatTheClientKnows) {
  EXPECT_EQ(cookie("a=b; Path=/crm; HttpOnly"), "a=b; Path=/portal; HttpOnly");
  EXPECT_EQ(cookie("a=b;path = /crm/x ;Secure"), "a=b;path =/portal/x;Secure");
  EXPECT_EQ(cookie("Path=/crm; Path=/crm"), "Path=/crm; Path=/portal");  // the first is the cookie itself
  EXPECT_EQ(cookie("a=b; Path=/x", "", "/portal"), "a=b; Path=/portal/x");
  EXPECT_EQ(cookie("a=b; Path=/crm", "/crm", ""), "a=b; Path=/");
  for (const char* value :
       {"a=b; Path=/; HttpOnly", "a=b", "a=b; Path", "a=b; Path=", "a=/crm", "a=b; Path=/crmx"})
    EXPECT_EQ(cookie(value), value);
  EXPECT_EQ(cookie("__Host-a=b; Path=/; Secure", "", "/portal"), "__Host-a=b; Path=/; Secure");
}

}  // namespace
}  // namespace tollgate::http
