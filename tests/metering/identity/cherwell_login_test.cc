// The log-ins of the Cherwell REST API, read from what is on the wire, and their sessions in the store.
#include "metering/identity/cherwell_login.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tollgate::identity {
namespace {

TEST(CherwellLogin, StepsAreToldByTheirAddresses) {
  EXPECT_EQ(cherwell_step("POST", "/cherwellapi/token"), SessionStep::log_in);
  EXPECT_EQ(cherwell_step("POST", "/x/trebuchet.webapi/token"), SessionStep::log_in);
  EXPECT_EQ(cherwell_step("GET", "/cherwellapi/token"), SessionStep::none);
  EXPECT_EQ(cherwell_step("DELETE", "/cherwellapi/api/v1/logout"), SessionStep::log_out);
  EXPECT_EQ(cherwell_step("POST", "/cherwellapi/api/v1/runonestepaction"), SessionStep::renews);
  EXPECT_EQ(cherwell_step("GET", "/cherwellapi/api/v2/runonestepaction/standinkey/x"), SessionStep::renews);
  for (const char* other : {"/cherwellapi/api/v1/savebusinessobject", "/logout", "/api/v1/logout",
                            "/cherwellapi/api/v", "/cherwellapi/tokens"})
    EXPECT_EQ(cherwell_step("POST", other), SessionStep::none) << other;
}

TEST(CherwellLogin, ARequestForATokenSaysTheSiteAndWhetherItRefreshes) {
  auto login =
      read_cherwell_login("auth_mode=Internal&Site%5FName=+My%20IT", "grant_type=password&username=ann");
  ASSERT_TRUE(login);
  EXPECT_EQ(login->site, "my it");
  EXPECT_EQ(login->refresh_token, "");
  login = read_cherwell_login("", "grant_type=REFRESH_TOKEN&client_id=c&refresh_token=a%2Bb&site_name=");
  ASSERT_TRUE(login);
  EXPECT_EQ(login->refresh_token, "a+b");
  EXPECT_EQ(login->site, "");
}

TEST(CherwellLogin, WhatServersCouldReadDifferentlyIsRefused) {
  for (const auto& [query, body] :
       {std::pair{"site_name=a", "site_name=b"}, std::pair{"grant_type=password", "grant_type=refresh_token"},
        std::pair{"", "grant_type=refresh_token"},
        std::pair{"", "grant_type=refresh_token&refresh_token=a%20b"}, std::pair{"site_name=%zz", ""},
        std::pair{"site_name=%00", ""},
        std::pair{"", "refresh_token=a&grant_type=refresh_token&Refresh_Token=b"}})
    EXPECT_FALSE(read_cherwell_login(query, body)) << query << " | " << body;
}

TEST(CherwellLogin, ARepliesTokensAreTheUsersItNames) {
  const auto tokens = read_cherwell_tokens(
      R"({"access_token":"A","token_type":"bearer","expires_in":1199,"refresh_token":"R","as:client_id":"c","username":"CHERWELL\\John"})");
  ASSERT_TRUE(tokens);
  EXPECT_EQ(tokens->access_token, "A");
  EXPECT_EQ(tokens->refresh_token, "R");
  EXPECT_EQ(tokens->user, "cherwell\\john");
  EXPECT_EQ(tokens->lifetime, Seconds(1199));
  EXPECT_EQ(read_cherwell_tokens(R"({"access_token":"A","username":"x","expires_in":"60"})")->lifetime,
            Seconds(60));
  EXPECT_EQ(read_cherwell_tokens(R"({"access_token":"A","username":"x"})")->lifetime, Seconds(0));
  for (const char* nobody :
       {"", "[]", "{}", R"({"error":"BADREQUEST"})", R"({"access_token":"A"})", R"({"username":"x"})",
        R"({"access_token":"a b","username":"x"})", R"({"access_token":"A","username":""})",
        R"({"access_token":"A","access_token":"B","username":"x"})"})
    EXPECT_FALSE(read_cherwell_tokens(nobody)) << nobody;
}

TEST(CherwellLogin, AOneStepMayBringANewToken) {
  EXPECT_EQ(cherwell_new_token(R"({"completed":true,"hasNewAccessToken":true,"newAccessToken":"N"})"), "N");
  for (const char* none :
       {"", "{}", R"({"newAccessToken":null})", R"({"newAccessToken":""})", R"({"newAccessToken":"a b"})"})
    EXPECT_EQ(cherwell_new_token(none), "") << none;
}

TEST(CherwellLogin, ARequestMaySayForWhichSiteItIs) {
  EXPECT_EQ(cherwell_site("/CherwellPortal/IT/Command/X", ""), "it");
  EXPECT_EQ(cherwell_site("/CherwellAPI/api/V1/serviceinfo", "site_name=Hr"), "hr");
  EXPECT_EQ(cherwell_site("/CherwellAPI/api/V1/serviceinfo", "lang=en"), "");
  EXPECT_EQ(cherwell_site("/CherwellPortal/IT", "site_name=it"), "it");
  EXPECT_FALSE(cherwell_site("/CherwellPortal/IT", "site_name=hr"));
  EXPECT_FALSE(cherwell_site("/", "site_name=a&site_name=a"));
}

TEST(CherwellLogin, ARecordKeepsSiteAndOtherNames) {
  const auto secret = *SessionSecret::from_text("0123456789abcdef0123456789abcdef");
  SessionRecord record{
      SessionKind::cherwell, "ann", UserType::portal, from_unix_seconds(1'795'000'000), "it", {}};
  const std::string plain =
      "2\x1f"
      "cherwell\x1f"
      "1795000000000\x1f"
      "portal\x1f"
      "it\x1f\x1f"
      "ann";
  EXPECT_EQ(encode(record), plain);
  EXPECT_EQ(decode_session(plain), record);
  for (std::size_t names = 1; names <= kLinkedMax; ++names) {
    record.linked.push_back(secret.key_of(SessionKind::cherwell, "crm", std::string(names, 'x')));
    EXPECT_EQ(decode_session(encode(record)), record);
  }
  record.linked.push_back(record.linked.front());
  EXPECT_FALSE(decode_session(encode(record))) << "more names than are kept";
  const std::string text =
      encode({SessionKind::cherwell, "ann", UserType::unknown, from_unix_seconds(1), "", {}});
  EXPECT_TRUE(text.starts_with("1\x1f")) << "as it was before there were sites";
  EXPECT_EQ(decode_session(text)->kind, SessionKind::cherwell);
  for (const char* bad : {"2\x1f"
                          "cherwell\x1f"
                          "1\x1f"
                          "portal\x1f\x1f\x1f"
                          "ann",
                          "2\x1f"
                          "cherwell\x1f"
                          "1\x1f"
                          "portal\x1f"
                          "IT\x1f\x1f"
                          "ann",
                          "2\x1f"
                          "cherwell\x1f"
                          "1\x1f"
                          "portal\x1f"
                          "it\x1f"
                          "abcd\x1f"
                          "ann",
                          "2\x1f"
                          "cherwell\x1f"
                          "1\x1f"
                          "portal\x1f"
                          "it\x1f"
                          "ann"})
    EXPECT_FALSE(decode_session(bad)) << bad;
}

TEST(CherwellLogin, ARefreshTokenIsHashedAsNoAccessTokenCanBe) {
  EXPECT_THAT(refresh_credential("R"), testing::HasSubstr(" "));
}

}  // namespace
}  // namespace tollgate::identity
