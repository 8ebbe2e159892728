#include "metering/identity/client_credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tollgate::identity {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ClientCredentials, FormHoldsIdSecretAndScopeSoThatNoneBecomesAnother) {
  ClientCredentials client{.token_url = "https://idp.example/connect/token",
                           .client_id = "toll&gate",
                           .client_secret = "s=cret+&",
                           .scope = ""};
  EXPECT_EQ(token_form(client),
            "grant_type=client_credentials&client_id=toll%26gate&client_secret=s%3Dcret%2B%26");
  client.scope = "a b";
  EXPECT_THAT(token_form(client), ::testing::EndsWith("&scope=a%20b"));
}

TEST(ClientCredentials, ATokenIsReadWithItsLifetime) {
  const auto token =
      read_access_token(200, R"({"access_token":"eyJ.a.b","token_type":"bearer","expires_in":3600})");
  ASSERT_TRUE(token) << token.error();
  EXPECT_EQ(token->text, "eyJ.a.b");
  EXPECT_EQ(token->lifetime, Milliseconds(3'600'000));
  const auto silent = read_access_token(200, R"({"access_token":"t","token_type":"Bearer"})");
  ASSERT_TRUE(silent) << silent.error();
  EXPECT_EQ(silent->lifetime, Milliseconds(0));
}

TEST(ClientCredentials, WhatIsNoTokenIsSaidWithoutTheServersOwnWords) {
  for (const auto& [status, body, why] : std::initializer_list<std::tuple<int, std::string, std::string>>{
           {400, R"({"error":"invalid_client","error_description":"secret"})",
            "answered 400: invalid_client"},
           {400, R"({"error":"secret"})", "answered 400"},
           {503, "secret", "answered 503"},
           {302, "", "answered 302"},
           {200, "<html>secret", "without a JSON object"},
           {200, R"({"token_type":"Bearer"})", "without an access_token"},
           {200, R"({"access_token":"a b","token_type":"Bearer"})", "without an access_token"},
           {200, R"({"access_token":"a\r\nX: y","token_type":"Bearer"})", "without an access_token"},
           {200, R"({"access_token":"a","access_token":"b","token_type":"Bearer"})", "without a JSON object"},
           {200, R"({"access_token":"secret","token_type":"mac"})", "token_type other than Bearer"},
           {200, R"({"access_token":"secret"})", "token_type other than Bearer"}}) {
    const auto token = read_access_token(status, body);
    ASSERT_FALSE(token) << body;
    EXPECT_THAT(token.error(), HasSubstr(why)) << body;
    EXPECT_THAT(token.error(), Not(HasSubstr("secret"))) << body;
  }
}

TEST(ClientCredentials, ATokenIsUsedUntilShortlyBeforeItEnds) {
  EXPECT_EQ(use_of_token(Milliseconds(3'600'000)), Milliseconds(3'570'000));
  EXPECT_EQ(use_of_token(Milliseconds(60'000)), Milliseconds(30'000));
  EXPECT_EQ(use_of_token(Milliseconds(59'000)), Milliseconds(29'500));
  EXPECT_EQ(use_of_token(Milliseconds(1'000)), Milliseconds(500));
  EXPECT_EQ(use_of_token(Milliseconds(0)), Milliseconds::max());
}

}  // namespace
}  // namespace tollgate::identity
