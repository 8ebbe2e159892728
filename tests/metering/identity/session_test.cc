#include "metering/identity/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "metering/identity/creatio_login.h"
#include "metering/identity/directory.h"
#include "metering/identity/session_table.h"

namespace tollgate::identity {
namespace {

using namespace std::chrono_literals;
using State = SessionTable::State;

constexpr std::string_view kSecret = "0123456789abcdef0123456789abcdef";
const UnixTime kNow = from_unix_seconds(1'795'000'000);
constexpr SessionTimes kTimes{.idle = 1h, .recheck = 5s};

SessionSecret secret() {
  return *SessionSecret::from_text(kSecret);
}
SessionKey key(std::string_view cookie) {
  return secret().key_of(SessionKind::creatio, "crm", cookie);
}
std::shared_ptr<const SessionRecord> ann(UnixTime deadline = kNow + 24h) {
  return std::make_shared<const SessionRecord>(
      SessionRecord{SessionKind::creatio, "ann", UserType::portal, deadline});
}

TEST(SessionSecret, ShorterThan32BytesIsRefused) {
  EXPECT_FALSE(SessionSecret::from_text("0123456789abcdef0123456789abcde"));
  EXPECT_FALSE(SessionSecret::from_text(""));
}

// hmac.new(b"0123456789abcdef" * 2, b"creatio\0crm\0COOKIE", "sha256").hexdigest()
TEST(SessionSecret, KeysAreHmacSha256OfKindUpstreamAndCredential) {
  EXPECT_EQ(store_key(key("COOKIE")),
            "l:{p206}:ce9fa6e831e8e0ed2fc7fdd095782447abbfcb41a5e4ef422014dae6f2d34d43");
}

TEST(SessionSecret, AnotherSecretUpstreamOrCookieIsAnotherKey) {
  const SessionSecret other = *SessionSecret::from_text("fedcba9876543210fedcba9876543210");
  EXPECT_NE(other.key_of(SessionKind::creatio, "crm", "COOKIE"), key("COOKIE"));
  EXPECT_NE(secret().key_of(SessionKind::creatio, "crm2", "COOKIE"), key("COOKIE"));
  EXPECT_NE(key("COOKIF"), key("COOKIE"));
}

TEST(SessionRecord, IsReadAsItWasWritten) {
  for (UserType type : {UserType::unknown, UserType::portal, UserType::staff}) {
    const SessionRecord record{SessionKind::creatio, "анна, \"x\"", type, kNow + 1h};
    EXPECT_EQ(decode_session(encode(record)), record);
  }
}

TEST(SessionRecord, WhatWeDidNotWriteIsNoRecord) {
  const std::string good = encode(*ann());
  EXPECT_TRUE(decode_session(good));
  for (std::size_t cut = 0; cut + 1 < good.size(); ++cut)
    EXPECT_NE(decode_session(good.substr(0, cut)), *ann());
  for (const char* bad : {"", "0", "1",
                          "2\x1f"
                          "creatio\x1f"
                          "1\x1fportal\x1f"
                          "ann",
                          "1\x1fother\x1f"
                          "1\x1fportal\x1f"
                          "ann",
                          "1\x1f"
                          "creatio\x1f-1\x1fportal\x1f"
                          "ann",
                          "1\x1f"
                          "creatio\x1f"
                          "1\x1fPORTAL\x1f"
                          "ann",
                          "1\x1f"
                          "creatio\x1f"
                          "1\x1fportal\x1f"
                          "Ann",
                          "1\x1f"
                          "creatio\x1f"
                          "1\x1fportal\x1f",
                          "1\x1f"
                          "creatio\x1f"
                          "99999999999999\x1fportal\x1f"
                          "ann"})
    EXPECT_FALSE(decode_session(bad)) << bad;
}

TEST(SessionUser, IsOneNameHoweverItIsTyped) {
  EXPECT_EQ(session_user("  Ann Lee\t"), "ann lee");
  EXPECT_EQ(session_user("АННА Ёлкина"), "анна ёлкина");
  EXPECT_EQ(session_user("ÉMILE×ß"), "émile×ß");
  EXPECT_EQ(session_user("ΩΣ"), "ωσ");
  EXPECT_EQ(session_user("日本\xf0\x9f\x98\x80"), "日本\xf0\x9f\x98\x80");
}

TEST(SessionUser, WhatIsNoNameIsRefused) {
  const std::string nul("a\0b", 3);
  for (std::string_view typed :
       {std::string_view(""), std::string_view("  "), std::string_view(nul),
        std::string_view("a\x1f"
                         "b"),
        std::string_view("a\nb"), std::string_view("\xff"), std::string_view("\xc0\xaf"),
        std::string_view("\xe2\x82"), std::string_view("\xed\xa0\x80"), std::string_view("\xf4\x90\x80\x80"),
        std::string_view("\xc2\x85")})
    EXPECT_FALSE(session_user(typed)) << typed;
  EXPECT_TRUE(session_user(std::string(256, 'x')));
  EXPECT_FALSE(session_user(std::string(257, 'x')));
}

TEST(CreatioLogin, StepsAreToldByMethodAndAddress) {
  EXPECT_EQ(creatio_step("POST", "/servicemodel/authservice.svc/login"), SessionStep::log_in);
  EXPECT_EQ(creatio_step("POST", "/crm/servicemodel/authservice.svc/login"), SessionStep::log_in);
  EXPECT_EQ(creatio_step("POST", "/0/rest/mainmenuservice/logout"), SessionStep::log_out);
  EXPECT_EQ(creatio_step("GET", "/servicemodel/authservice.svc/login"), SessionStep::none);
  EXPECT_EQ(creatio_step("POST", "/servicemodel/xauthservice.svc/login"), SessionStep::none);
  EXPECT_EQ(creatio_step("POST", "/servicemodel/authservice.svc/login/x"), SessionStep::none);
}

TEST(CreatioLogin, UserNameIsReadOnceInAnyCase) {
  EXPECT_EQ(creatio_login_user(R"({"UserName":"Ann","UserPassword":"x"})").value_or("?"), "ann");
  EXPECT_EQ(creatio_login_user(R"({"username":"Ann"})").value_or("?"), "ann");
  for (std::string_view body :
       {"", "[]", "UserName=ann", R"({"UserName":1})", R"({"UserName":""})", R"({"UserPassword":"x"})",
        R"({"UserName":"a","UserName":"b"})", R"({"UserName":"a","USERNAME":"b"})",
        R"({"UserName":"a","User\u004eame":"b"})", R"({"UserName":"a"} {"UserName":"b"})"})
    EXPECT_FALSE(creatio_login_user(body)) << body;
}

TEST(CreatioLogin, OnlyTheNumberZeroIsALogIn) {
  EXPECT_EQ(creatio_login_reply(R"({"Code":0,"UserType":"SSP"})"), UserType::portal);
  EXPECT_EQ(creatio_login_reply(R"({"UserType":"General","Code":0})"), UserType::staff);
  EXPECT_EQ(creatio_login_reply(R"({"Code":0})"), UserType::unknown);
  EXPECT_EQ(creatio_login_reply(R"({"Code":0,"UserType":"Virtual"})"), UserType::unknown);
  for (std::string_view body :
       {"", "0", R"({"Code":1,"UserType":"SSP"})", R"({"Code":"0"})", R"({"Code":null})", R"({"Code":false})",
        R"({"Code":0.5})", R"({"code":0})", R"({"Code":1,"Code":0})", R"([{"Code":0}])", R"({"Code":0)"})
    EXPECT_FALSE(creatio_login_reply(body)) << body;
}

TEST(SetCookie, IsNameAndValueBeforeTheAttributes) {
  EXPECT_EQ(parse_set_cookie(".ASPXAUTH=9F=3C; path=/; HttpOnly")->name, ".ASPXAUTH");
  EXPECT_EQ(parse_set_cookie(".ASPXAUTH=9F=3C; path=/; HttpOnly")->value, "9F=3C");
  EXPECT_EQ(parse_set_cookie(" a = \"b\" ")->value, "b");
  EXPECT_EQ(parse_set_cookie("a=; expires=Thu, 01 Jan 1970 00:00:00 GMT")->value, "");
  EXPECT_FALSE(parse_set_cookie("no pair; a=b"));
  EXPECT_FALSE(parse_set_cookie("=b"));
}

TEST(Directory, AUserWhoLoggedInIsSpelledAsItSpellsHim) {
  const Directory directory =
      *Directory::parse("user,license,user_type\nAnn Lee,gold,staff\nBob,silver,\nBOB,gold,\n");
  Principal principal;
  principal.user = "ann lee";
  principal.user_type = UserType::portal;
  const Principal known = directory.apply_folded(principal);
  EXPECT_EQ(known.user, "Ann Lee");
  EXPECT_EQ(known.user_type, UserType::staff);
  EXPECT_THAT(known.licenses, testing::ElementsAre("gold"));
  principal.user = "bob";
  EXPECT_EQ(directory.apply_folded(principal).user, "bob") << "listed twice: neither";
  EXPECT_THAT(directory.apply_folded(principal).licenses, testing::IsEmpty());
}

struct Table : testing::Test {
  State state(UnixTime at) { return table.find(a, at, kTimes).state; }
  SessionTable table{secret(), 1'000};
  const SessionKey a = key("a"), b = key("b");
};

TEST_F(Table, KnowsWhomItWasToldAndNobodyElse) {
  EXPECT_EQ(state(kNow), State::absent);
  table.bind(a, ann(), kNow);
  EXPECT_EQ(table.find(a, kNow, kTimes).record->user, "ann");
  EXPECT_EQ(table.find(b, kNow, kTimes).state, State::absent);
}

TEST_F(Table, AsksTheStoreAgainAfterRecheck) {
  table.bind(a, ann(), kNow);
  EXPECT_EQ(state(kNow + 5s), State::current);
  EXPECT_EQ(state(kNow + 5s + 1ms), State::stale);
  EXPECT_EQ(table.confirmed(a, ann(), kNow + 6s, kTimes).record->user, "ann");
  EXPECT_EQ(state(kNow + 10s), State::current);
  EXPECT_EQ(state(kNow + 5900ms), State::current) << "another worker's clock is a moment behind";
  EXPECT_EQ(state(kNow), State::stale) << "a clock that was set back makes nothing last longer";
}

TEST_F(Table, WhatIsNotUsedOrTooOldIsForgotten) {
  table.bind(a, ann(kNow + 2h), kNow);
  EXPECT_EQ(state(kNow + 59min), State::stale);
  EXPECT_EQ(state(kNow + 118min), State::stale) << "used in between";
  EXPECT_EQ(state(kNow + 2h), State::absent) << "max_age";
  table.bind(b, ann(), kNow);
  EXPECT_EQ(table.find(b, kNow + 1h + 1ms, kTimes).state, State::absent) << "idle";
}

TEST_F(Table, AnEndedSessionIsNobodysUntilTheStoreSaysOtherwise) {
  table.bind(a, ann(), kNow);
  table.end(a, kNow + 1s);
  EXPECT_EQ(state(kNow + 2s), State::ended);
  EXPECT_EQ(state(kNow + 2s + 1ms), State::absent) << "asked again: it may be a new log-in's";
  EXPECT_EQ(table.confirmed(a, ann(), kNow + 3s, kTimes).record->user, "ann");
}

TEST_F(Table, AnEndThatTheStoreCouldNotBeToldWinsOverWhatItSays) {
  table.bind(a, ann(), kNow);
  table.end(a, kNow);
  table.set_published(a, false);
  EXPECT_EQ(table.confirmed(a, ann(), kNow + 5s, kTimes).record, nullptr);
  EXPECT_EQ(table.unreachable(a, kNow + 5s), std::shared_ptr<const SessionRecord>());
  EXPECT_EQ(table.peek(a), std::shared_ptr<const SessionRecord>());
  table.set_published(a, true);
  EXPECT_NE(table.confirmed(a, ann(), kNow + 9s, kTimes).record, nullptr);
}

TEST_F(Table, ASessionThatEndedElsewhereEndsHere) {
  table.bind(a, ann(), kNow);
  table.ended_elsewhere(a, kNow + 6s);
  EXPECT_EQ(state(kNow + 6s), State::ended);
}

TEST_F(Table, WhatTheStoreLostIsPublishedAgainWhileItIsFresh) {
  table.bind(a, ann(), kNow);
  const auto verdict = table.missing(a, kNow + 30min, kTimes);
  EXPECT_TRUE(verdict.publish);
  EXPECT_EQ(verdict.record->user, "ann");
}

TEST_F(Table, WhatIsMissingAndWasNotConfirmedForLongIsGone) {
  table.bind(a, ann(), kNow);
  for (auto at = kNow; at <= kNow + 61min; at += 10min)
    (void)state(at);  // in use, but the store never answered
  EXPECT_EQ(table.missing(a, kNow + 61min, kTimes).record, nullptr) << "its end may be forgotten there";
  EXPECT_EQ(table.size(), 0U);
  EXPECT_EQ(table.missing(b, kNow, kTimes).record, nullptr);
}

TEST_F(Table, AStoreThatIsAwayLetsWhatIsKnownGoOn) {
  table.bind(a, ann(), kNow);
  EXPECT_EQ(state(kNow + 6s), State::stale);
  EXPECT_EQ((*table.unreachable(a, kNow + 6s))->user, "ann");
  EXPECT_EQ(state(kNow + 11s), State::current) << "the next call does not wait for the store again";
  EXPECT_FALSE(table.unreachable(b, kNow).has_value());
}

TEST_F(Table, ExpiryInTheStoreIsMovedOnOnceAnEighthOfIdle) {
  EXPECT_TRUE(table.confirmed(a, ann(), kNow, kTimes).touch)
      << "learnt from the store: unknown when that was";
  EXPECT_FALSE(table.confirmed(a, ann(), kNow + 7min, kTimes).touch);
  EXPECT_TRUE(table.confirmed(a, ann(), kNow + 8min, kTimes).touch);
  EXPECT_FALSE(table.confirmed(a, ann(), kNow + 9min, kTimes).touch);
}

TEST_F(Table, ANewLogInReplacesTheUser) {
  table.bind(a, ann(), kNow);
  SessionRecord bob = *ann();
  bob.user = "bob";
  EXPECT_EQ(table.confirmed(a, std::make_shared<const SessionRecord>(bob), kNow + 6s, kTimes).record->user,
            "bob");
  EXPECT_EQ(table.find(a, kNow + 6s, kTimes).record->user, "bob");
}

TEST_F(Table, StaysWithinItsCapacity) {
  SessionTable small(secret(), 64);  // one a shard
  for (int i = 0; i < 1'000; ++i) small.bind(key(std::to_string(i)), ann(), kNow);
  EXPECT_LE(small.size(), 64U);
  small.bind(a, ann(), kNow);
  EXPECT_EQ(small.find(a, kNow, kTimes).state, State::current) << "the latest is there";
}

}  // namespace
}  // namespace tollgate::identity
