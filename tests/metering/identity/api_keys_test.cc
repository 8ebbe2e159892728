#include "metering/identity/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tollgate::identity {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::string_view kSecret = "0123456789abcdef0123456789abcdef";
constexpr std::string_view kKey = "tgk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
constexpr std::string_view kOther = "another-key-of-long-standing";
const UnixTime kNow = from_unix_seconds(1'795'000'000);  // 2026-11-18

std::string hash(std::string_view key, std::string_view secret = "") {
  return api_key_hash(key, secret).value_or("none");
}
std::string table(const std::string& rows) {
  return "hash,user,tenant,organization,license,user_type,expires\n" + rows;
}
ApiKeys parsed(const std::string& csv, std::string_view secret = "", const Directory* directory = nullptr) {
  auto keys = ApiKeys::parse(csv, secret, directory);
  EXPECT_TRUE(keys) << keys.error().message;
  return keys ? *std::move(keys) : ApiKeys();
}
std::string error_of(const std::string& csv, std::string_view secret = "") {
  auto keys = ApiKeys::parse(csv, secret, nullptr);
  return keys ? "no error" : keys.error().message;
}

TEST(ApiKeys, HashesAreThoseOfTheStandards) {
  // FIPS 180-4 and RFC 4231 by way of Python's hashlib and hmac.
  EXPECT_EQ(hash(kOther), "sha256:f27b2a0fbc3f1d09fc4f52643fa658f040be8f2d0e1f44b75e619813346108f8");
  EXPECT_EQ(hash(kOther, kSecret),
            "hmac-sha256:40da0b8d9b8c76ec517e10d68867a2be5b1a9abf3f74d074e10e9de71bc0f397");
}

TEST(ApiKeys, AKeyIsItsOwnersWhateverKindOfHashTheFileHas) {
  const ApiKeys keys =
      parsed(table(hash(kKey, kSecret) + ",ann,acme,Best Ltd,customer portal,portal,2027-01-31\n" +
                   hash(kOther) + ",robot,,,,staff,\n" + hash(kKey, kSecret) +
                   ",ann,acme,Best Ltd,partner portal,portal,2027-01-31\n"),
             kSecret);
  EXPECT_EQ(keys.size(), 2U);
  auto ann = keys.find(kKey, kNow);
  ASSERT_TRUE(ann) << ann.error().detail;
  const Principal& who = (*ann)->principal;
  EXPECT_EQ(who.user, "ann");
  EXPECT_EQ(who.tenant, "acme");
  EXPECT_EQ(who.organization, "Best Ltd");
  EXPECT_EQ(who.user_type, UserType::portal);
  EXPECT_THAT(who.licenses, ElementsAre("customer portal", "partner portal"));
  auto robot = keys.find(kOther, kNow);
  ASSERT_TRUE(robot);
  EXPECT_TRUE((*robot)->principal.is_staff());
  EXPECT_EQ((*robot)->expires_at, UnixTime::max());
}

TEST(ApiKeys, WhoReadsTheFileCanCallAsNobody) {
  const std::string plain = hash(kKey), keyed = hash(kKey, kSecret);
  const ApiKeys keys = parsed(table(plain + ",ann,,,,,\n"), kSecret);
  for (const std::string& sent : {plain, plain.substr(7), keyed, std::string(kKey.substr(1)),
                                  std::string(kKey) + "x", std::string(), std::string(kOther)}) {
    auto found = keys.find(sent, kNow);
    ASSERT_FALSE(found) << sent;
    EXPECT_EQ(found.error().reason, Reason::token_invalid);
  }
  // The hash of one kind says nothing as one of the other.
  const ApiKeys swapped = parsed(table("hmac-" + plain + ",ann,,,,,\n"), kSecret);
  EXPECT_FALSE(swapped.find(kKey, kNow));
}

TEST(ApiKeys, AKeyEndsAtTheMomentOfTheFile) {
  const ApiKeys keys = parsed(
      table(hash(kKey) + ",ann,,,,,2026-11-30\n" + hash(kOther) + ",bob,,,,,2026-11-30T12:00:00+02:00\n"));
  const UnixTime day = from_unix_seconds(1'795'996'800);  // 2026-11-30T00:00:00Z
  EXPECT_TRUE(keys.find(kKey, day - Milliseconds(1)));
  EXPECT_EQ(keys.find(kKey, day).error().reason, Reason::token_expired);
  EXPECT_TRUE(keys.find(kOther, day + std::chrono::hours(10) - Milliseconds(1)));
  EXPECT_FALSE(keys.find(kOther, day + std::chrono::hours(10)));
}

TEST(ApiKeys, TheDirectoryWinsCellByCell) {
  auto directory = Directory::parse("user,organization,license,user_type\nann,Acme,partner portal,\n");
  ASSERT_TRUE(directory);
  const ApiKeys keys =
      parsed(table(hash(kKey) + ",ann,t,Old,customer portal,portal,\n" + hash(kOther) + ",bob,,Old,x,,\n"),
             "", &*directory);
  const Principal ann = (*keys.find(kKey, kNow))->principal;
  EXPECT_EQ(ann.organization, "Acme");
  EXPECT_EQ(ann.user_type, UserType::portal);
  EXPECT_THAT(ann.licenses, ElementsAre("partner portal"));
  EXPECT_EQ((*keys.find(kOther, kNow))->principal.organization, "Old");
}

TEST(ApiKeys, MistakesNameTheirLine) {
  const std::string good = hash(kKey);
  EXPECT_THAT(error_of(""), HasSubstr("line 1: the file is empty"));
  EXPECT_THAT(error_of("user\nann\n"),
              HasSubstr("line 1: the first row must name the columns, among them \"hash\""));
  EXPECT_THAT(error_of("hash,user,key\n"), HasSubstr("line 1: unknown column \"key\" (hash, user, tenant"));
  EXPECT_THAT(error_of(table(std::string(kKey) + ",ann,,,,,\n")),
              StartsWith("line 2: hash is not hmac-sha256:"));
  EXPECT_THAT(error_of(table(good.substr(0, 70) + ",ann,,,,,\n")), StartsWith("line 2: hash is not"));
  EXPECT_THAT(error_of(table(good.substr(0, 70) + "g,ann,,,,,\n")), StartsWith("line 2: hash is not"));
  EXPECT_THAT(error_of(table(hash(kKey, kSecret) + ",ann,,,,,\n")),
              HasSubstr("needs identity.api_keys.secret_file"));
  EXPECT_THAT(error_of(table(good + ",,,,,,\n")), HasSubstr("line 2: no user"));
  EXPECT_THAT(error_of(table(good + ",\"a\nb\",,,,,\n")), HasSubstr("control character"));
  EXPECT_THAT(error_of(table(good + ",ann,,,,boss,\n")), HasSubstr("neither portal nor staff"));
  for (const char* never : {"soon", "2026-02-30", "2026-11-30T25:00:00Z", "2026-11-3"})
    EXPECT_THAT(error_of(table(good + ",ann,,,,," + never + "\n")), HasSubstr("is neither a date")) << never;
  EXPECT_THAT(error_of(table(good + ",ann,,,,,\n\n" + good + ",bob,,,,,\n")),
              HasSubstr("line 4: this hash was there"));
  EXPECT_THAT(error_of(table(good + ",ann,,,,,\n" + good + ",ann,,,,,2027-01-01\n")), HasSubstr("line 3"));
  EXPECT_THAT(error_of(table(""), "short"), HasSubstr("32 bytes"));
  EXPECT_EQ(error_of(table("")), "no error") << "a file without keys is a beginning";
}

TEST(ApiKeys, ANewKeyIsLongAndAShortOneIsNotHashed) {
  EXPECT_EQ(make_api_key(std::string("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
                                     "\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f",
                                     32)),
            kKey);
  EXPECT_FALSE(api_key_hash("only-19-characters-", ""));
  EXPECT_TRUE(api_key_hash("these-20-characters-", ""));
}

}  // namespace
}  // namespace tollgate::identity
