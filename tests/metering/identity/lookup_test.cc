#include "metering/identity/lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "metering/base/percent.h"
#include "metering/identity/lookup_table.h"

namespace tollgate::identity {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

const UnixTime kNow = from_unix_seconds(1'795'000'000);

LookupSource introspection() {
  LookupSource source;
  source.name = "identity.introspection";
  source.url = "https://idp.example/introspect";
  source.active = true;
  source.refusal = "The access token is not active.";
  source.rules.leeway = Seconds(0);
  source.rules.require_expiry = false;
  return source;
}
LookupSource current_user() {
  LookupSource source = introspection();
  source.place = LookupSource::Place::header;
  source.field = "Authorization";
  source.prefix = "Zoho-oauthtoken ";
  source.active = false;
  source.at = "/users/0";
  source.unauthorized_is_nobody = true;
  source.rules.user_claim = "email";
  return source;
}
LookupVerdict verdict(const LookupSource& source, int status, std::string_view body) {
  auto read = read_lookup(source, status, body, kNow);
  EXPECT_TRUE(read) << read.error().message;
  return read.value_or(LookupVerdict{});
}
std::string failure(const LookupSource& source, int status, std::string_view body) {
  auto read = read_lookup(source, status, body, kNow);
  return read ? "settled" : read.error().message;
}

TEST(Lookup, TheCredentialCannotBecomeAnythingElse) {
  LookupSource source = introspection();
  append_form(source.more_form, "client_id", "toll gate");
  source.headers.push_back(basic_of_client("a:b", "c&d"));
  auto request = lookup_request(source, "x&token=y=\r\n%");
  ASSERT_TRUE(request);
  EXPECT_TRUE(request->post);
  EXPECT_EQ(request->body, "token=x%26token%3Dy%3D%0D%0A%25&client_id=toll%20gate");
  EXPECT_THAT(request->headers, Contains("Authorization: Basic YSUzQWI6YyUyNmQ="))
      << "a%3Ab:c%26d, RFC 6749 2.3.1";
  EXPECT_THAT(request->headers, Contains("Content-Type: application/x-www-form-urlencoded"));
  auto get = lookup_request(current_user(), "1000.a.b");
  ASSERT_TRUE(get);
  EXPECT_FALSE(get->post);
  EXPECT_THAT(get->headers, Contains("Authorization: Zoho-oauthtoken 1000.a.b"));
  EXPECT_FALSE(lookup_request(current_user(), "1000\r\nX: y"));
}

TEST(Lookup, AnActiveTokenIsSomebodysUntilItEndsOrTheVerdictIsOld) {
  LookupSource source = introspection();
  auto known = verdict(
      source, 200,
      R"({"active":true,"sub":"ann","tenant":7,"org":"Best","user_type":"portal","licenses":["a","b"],)"
      R"("exp":1795003600,"nbf":1795000900})");
  ASSERT_NE(known.user, nullptr);
  EXPECT_EQ(known.user->principal.user, "ann");
  EXPECT_EQ(known.user->principal.tenant, "7");
  EXPECT_EQ(known.user->principal.licenses.size(), 2U);
  EXPECT_EQ(known.until, kNow + Milliseconds(60'000));
  EXPECT_EQ(known.user->expires_at, known.until);
  EXPECT_EQ(known.user->not_before, UnixTime::min()) << "active is active, whatever the clocks";
  auto brief = verdict(source, 200, R"({"active":true,"sub":"ann","exp":1795000010})");
  EXPECT_EQ(brief.until, kNow + Seconds(10));
  auto endless = verdict(source, 200, R"({"active":true,"sub":"ann"})");
  EXPECT_EQ(endless.until, kNow + Milliseconds(60'000));
}

TEST(Lookup, NobodyIsRememberedForLess) {
  LookupSource source = introspection();
  source.rules.audience = {"crm-portal"};
  for (const auto& [body, reason] : std::vector<std::pair<std::string, Reason>>{
           {R"({"active":false})", Reason::token_invalid},
           {R"({"active":false,"sub":"ann","aud":"crm-portal"})", Reason::token_invalid},
           {R"({"active":true,"sub":"ann","aud":"other"})", Reason::token_invalid},
           {R"({"active":true,"sub":"ann"})", Reason::token_invalid},
           {R"({"active":true,"aud":["x","crm-portal"]})", Reason::token_invalid},
           {R"({"active":true,"sub":"","aud":"crm-portal"})", Reason::token_invalid},
           {R"({"active":true,"sub":"a\nb","aud":"crm-portal"})", Reason::token_invalid},
           {R"({"active":true,"sub":"ann","aud":"crm-portal","exp":1795000000})", Reason::token_expired},
           {R"({"active":true,"sub":"ann","aud":"crm-portal","exp":"soon"})", Reason::token_invalid}}) {
    const auto nobody = verdict(source, 200, body);
    EXPECT_EQ(nobody.user, nullptr) << body;
    EXPECT_EQ(nobody.refusal.reason, reason) << body;
    EXPECT_EQ(nobody.until, kNow + Milliseconds(10'000)) << body;
  }
  EXPECT_NE(verdict(source, 200, R"({"active":true,"sub":"ann","aud":["x","crm-portal"]})").user, nullptr);
}

TEST(Lookup, WhatWasNotMeantSettlesNothing) {
  const LookupSource source = introspection();
  EXPECT_THAT(failure(source, 401, R"({"active":false})"), HasSubstr("answered 401"))
      << "our own credentials";
  for (int status : {201, 204, 301, 400, 403, 404, 429, 500, 503})
    EXPECT_THAT(failure(source, status, R"({"active":true,"sub":"ann"})"), HasSubstr(std::to_string(status)));
  EXPECT_THAT(failure(source, 200, ""), HasSubstr("empty"));
  EXPECT_THAT(failure(source, 200, "Please log in, secret"), Not(HasSubstr("secret")));
  EXPECT_THAT(failure(source, 200, R"(["active"])"), HasSubstr("no object"));
  EXPECT_THAT(failure(source, 200, R"({"sub":"ann"})"), HasSubstr("RFC 7662"));
  EXPECT_THAT(failure(source, 200, R"({"active":"true","sub":"ann"})"), HasSubstr("RFC 7662"));
  EXPECT_THAT(failure(source, 200, R"({"active":false,"active":true,"sub":"ann"})"), HasSubstr("twice"));
}

TEST(Lookup, TheCrmTellsWhoItsCurrentUserIs) {
  const LookupSource source = current_user();
  auto known = verdict(source, 200, R"({"users":[{"id":"1","email":"ann@acme.example"}]})");
  ASSERT_NE(known.user, nullptr);
  EXPECT_EQ(known.user->principal.user, "ann@acme.example");
  EXPECT_EQ(verdict(source, 401, R"({"code":"INVALID_TOKEN"})").user, nullptr);
  EXPECT_EQ(verdict(source, 401, "").refusal.detail, source.refusal);
  EXPECT_THAT(failure(source, 200, R"({"users":[]})"), HasSubstr("no object at \"/users/0\""));
  EXPECT_THAT(failure(source, 403, ""), HasSubstr("403"));
}

std::shared_ptr<const LookupVerdict> until(UnixTime when) {
  return std::make_shared<const LookupVerdict>(LookupVerdict{nullptr, {}, when});
}

TEST(LookupTable, RemembersUntilTheVerdictIsOver) {
  LookupTable table(std::string(32, 's'), 100);
  const auto key = table.key_of("source", "token");
  EXPECT_EQ(table.find(key, kNow), nullptr);
  auto verdict = until(kNow + Seconds(1));
  table.store(key, verdict);
  EXPECT_EQ(table.find(key, kNow), verdict);
  EXPECT_EQ(table.find(key, kNow + Seconds(1)), nullptr);
  EXPECT_EQ(table.size(), 0U);
  table.store(key, until(kNow));
  EXPECT_EQ(table.find(key, kNow), nullptr) << "a verdict for no time is none";
}

TEST(LookupTable, SourcesAndCredentialsAreToldApart) {
  LookupTable table(std::string(32, 's'), 100), other(std::string(32, 't'), 100);
  EXPECT_NE(table.key_of("a", "token"), table.key_of("b", "token"));
  EXPECT_NE(table.key_of("a", "token"), table.key_of("a", "tokem"));
  EXPECT_NE(table.key_of("a", "token"), other.key_of("a", "token")) << "keyed";
  LookupSource one = introspection(), two = introspection();
  EXPECT_EQ(lookup_identity(one), lookup_identity(two));
  two.rules.audience = {"x"};
  EXPECT_NE(lookup_identity(one), lookup_identity(two)) << "another question";
}

TEST(LookupTable, WhatWasUsedLongestAgoMakesRoom) {
  LookupTable table(std::string(32, 's'), 16);  // one a shard
  std::vector<SessionKey> keys;
  for (int i = 0; i < 100; ++i) keys.push_back(table.key_of("s", std::to_string(i)));
  for (const auto& key : keys) table.store(key, until(UnixTime::max()));
  EXPECT_LE(table.size(), 16U);
  EXPECT_NE(table.find(keys.back(), kNow), nullptr);
}

}  // namespace
}  // namespace tollgate::identity
