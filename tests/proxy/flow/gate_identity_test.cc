// Who calls, when a request says it in several ways.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/flow/support/portal.h"
#include "tests/proxy/flow/support/stage.h"

namespace tollgate::flow {
namespace {

using test::Portal;
using test::Request;
using test::token;
using testing::HasSubstr;
using testing::Not;

using Fields = std::vector<std::pair<std::string, std::string>>;

constexpr std::string_view kAnnsKey = "key-of-ann-0123456789", kBobsKey = "key-of-bob-0123456789",
                           kOldKey = "key-that-has-expired-1", kStaffKey = "key-of-staff-012345678";

config::Settings with_keys() {
  config::Settings settings = test::settings();
  const auto hash = [](std::string_view key) { return identity::api_key_hash(key, "").value(); };
  settings.identity.api_keys.file = "hash,user,tenant,license,user_type,expires\n" + hash(kAnnsKey) +
                                    ",ann,,Creatio customer portal cloud,portal,\n" + hash(kBobsKey) +
                                    ",bob,,Creatio customer portal cloud,portal,\n" + hash(kOldKey) +
                                    ",ann,,,portal,2026-01-01\n" + hash(kStaffKey) + ",eve,other,,staff,\n";
  return settings;
}
std::pair<std::string, std::string> key(std::string_view text) {
  return {"X-API-Key", std::string(text)};
}
std::pair<std::string, std::string> bearer(const std::string& text) {
  return {"Authorization", "Bearer " + text};
}
Request read(Fields fields) {
  return Request("GET", "/0/odata/Case", std::move(fields));
}

TEST(GateIdentity, AnApiKeyIsItsOwner) {
  Portal portal(with_keys());
  auto out = portal.send(read({key(kAnnsKey)}));
  EXPECT_EQ(out.next, Next::forward) << out.call.reply.body;
  EXPECT_EQ(out.call.token->principal.user, "ann");
  EXPECT_TRUE(out.call.without_token);
  for (int i = 0; i < 2; ++i) portal.send(read({key(kAnnsKey)}));
  EXPECT_EQ(portal.send(read({key(kAnnsKey)})).call.reply.status, 429) << "the quota is the user's";
  EXPECT_EQ(portal.send(read({key(kBobsKey)})).next, Next::forward);
}

TEST(GateIdentity, AKeyThatIsNotGoodIsRefused) {
  Portal portal(with_keys());
  for (const auto& [fields, reason] : std::vector<std::pair<Fields, Reason>>{
           {{key("somebody-elses-key-0000")}, Reason::token_invalid},
           {{key(kOldKey)}, Reason::token_expired},
           {{key("")}, Reason::token_invalid},
           {{key("two words")}, Reason::token_invalid},
           {{key(kAnnsKey), key(kAnnsKey)}, Reason::token_invalid},
           {{key("somebody-elses-key-0000"), bearer(token())}, Reason::token_invalid},
           {{key(kOldKey), bearer(token())}, Reason::token_expired}}) {
    auto out = portal.send(read(fields));
    EXPECT_EQ(out.call.reply.status, 401);
    EXPECT_EQ(out.call.reason, reason) << out.call.reply.body;
    EXPECT_THAT(out.call.reply.body, Not(HasSubstr("somebody-elses")));
  }
  EXPECT_EQ(portal.ledger.account_count(), 0U);
}

TEST(GateIdentity, NothingSentSaysWhatCouldBe) {
  Portal portal(with_keys());
  auto out = portal.send(read({}));
  EXPECT_EQ(out.call.reason, Reason::token_missing);
  EXPECT_THAT(out.call.reply.body, HasSubstr("Or an API key: X-API-Key: <key>."));
  Portal tokens_only;
  auto stranger = tokens_only.send(read({key(kAnnsKey)}));
  EXPECT_EQ(stranger.call.reason, Reason::token_missing) << "a field like any other";
  EXPECT_THAT(stranger.call.reply.body, Not(HasSubstr("API key")));
}

TEST(GateIdentity, ATokenAndAKeyHaveToNameOneUser) {
  Portal portal(with_keys());
  auto both = portal.send(read({key(kAnnsKey), bearer(token())}));
  EXPECT_EQ(both.next, Next::forward);
  EXPECT_EQ(both.call.token->principal.organization, "Best Ltd") << "the token's words count";
  EXPECT_FALSE(both.call.without_token);
  for (Fields fields :
       {Fields{key(kBobsKey), bearer(token())}, Fields{bearer(token({.user = "eve"})), key(kStaffKey)}}) {
    auto two = portal.send(read(std::move(fields)));
    EXPECT_EQ(two.call.reply.status, 401) << "another user, or another tenant";
    EXPECT_THAT(two.call.reply.body, HasSubstr("two different users"));
  }
  auto broken = portal.send(read({key(kAnnsKey), bearer("a.b.c")}));
  EXPECT_EQ(broken.call.reason, Reason::token_invalid) << "a key does not mend a token";
}

TEST(GateIdentity, ConnectionCannotTakeTheKeyAway) {
  config::Settings settings = with_keys();
  settings.identity.api_keys.header = "X-Portal-Key";
  Portal portal(settings);
  const std::pair<std::string, std::string> sent{"X-Portal-Key", std::string(kAnnsKey)};
  EXPECT_EQ(portal.send(read({sent})).next, Next::forward);
  EXPECT_EQ(portal.send(read({sent, {"Connection", "x-portal-key"}})).call.reply.status, 400);
}

struct KeyStage : test::Stage {
  explicit KeyStage(bool forward)
      : Stage([&] {
          config::Settings settings = with_keys();
          settings.identity.api_keys.forward = forward;
          settings.identity.sessions.kinds = {"creatio"};
          return settings;
        }()) {}
  std::string sent(Fields fields) {
    request.emplace(read(std::move(fields)));
    begin(*request);
    upstream_ready();
    return port.to_upstream;
  }
  std::optional<Request> request;
};

TEST(GateIdentity, TheKeyStaysHereUnlessItIsWanted) {
  KeyStage stage(false);
  const std::string sent = stage.sent({key(kAnnsKey), {"X_API_Key", "other"}, {"X-Kept", "1"}});
  EXPECT_THAT(sent, HasSubstr("X-Kept: 1"));
  EXPECT_THAT(sent, Not(HasSubstr("key-of-ann")));
  EXPECT_THAT(sent, Not(HasSubstr("other")));
  KeyStage wanted(true);
  EXPECT_THAT(wanted.sent({key(kAnnsKey), {"X_API_Key", "other"}}),
              testing::AllOf(HasSubstr("X-API-Key: key-of-ann"), Not(HasSubstr("other"))));
}

TEST(GateIdentity, WithAKeyAloneOtherCredentialsGoNoFurther) {
  KeyStage stage(false);
  const auto cookie =
      stage.snapshot->sessions->secret().key_of(identity::SessionKind::creatio, "crm", "C00C1E");
  stage.port.known_sessions[cookie] = std::make_shared<const identity::SessionRecord>(
      identity::SessionRecord{identity::SessionKind::creatio, "bob", identity::UserType::portal,
                              from_unix_seconds(test::kNow + 3'600)});
  const std::string sent =
      stage.sent({key(kAnnsKey), {"Authorization", "Basic Ym9iOng="}, {"Cookie", "a=b; .ASPXAUTH=C00C1E"}});
  EXPECT_THAT(sent, HasSubstr("Cookie: a=b\r\n"));
  EXPECT_THAT(sent, Not(HasSubstr("Ym9iOng")));
  EXPECT_THAT(sent, Not(HasSubstr("C00C1E")));
}

// ---------------------------------------------------------------- somebody else has to be asked

config::Settings with_introspection() {
  config::Settings settings = with_keys();
  settings.identity.introspection.lookup.url = "https://idp.example/introspect";
  return settings;
}
std::shared_ptr<const identity::LookupVerdict> verdict_of(std::string_view user, UnixTime until) {
  identity::LookupVerdict verdict;
  verdict.until = until;
  verdict.refusal = {Reason::token_invalid, "The access token is not active."};
  if (!user.empty()) {
    identity::VerifiedToken known;
    known.principal.user = user;
    known.principal.licenses = {"Creatio customer portal cloud"};
    known.not_before = UnixTime::min();
    known.expires_at = until;
    verdict.user = std::make_shared<const identity::VerifiedToken>(known);
  }
  return std::make_shared<const identity::LookupVerdict>(std::move(verdict));
}
const UnixTime kSoon = from_unix_seconds(test::kNow + 60);

struct LookupStage : test::Stage {
  LookupStage() : Stage(with_introspection()) {}
  void call(Fields fields) {
    request.emplace(read(std::move(fields)));
    begin(*request);
  }
  std::optional<Request> request;
};

TEST(GateIdentity, AnOpaqueTokenIsWhoseSomebodyElseSays) {
  LookupStage stage;
  stage.port.lookup_answer = verdict_of("ann", kSoon);
  stage.call({bearer("opaque")});
  stage.upstream_ready();
  EXPECT_THAT(stage.port.looked_up, testing::ElementsAre("opaque"));
  EXPECT_THAT(stage.port.to_upstream, HasSubstr("Authorization: Bearer opaque"));
}

TEST(GateIdentity, AJsonWebTokenIsNotAskedAbout) {
  LookupStage stage;
  stage.call({bearer(token({.secret = "another-secret-another-secret-12"}))});
  stage.port.flush_client();
  EXPECT_THAT(stage.port.looked_up, testing::IsEmpty());
  EXPECT_EQ(stage.port.reason, Reason::token_invalid);
}

TEST(GateIdentity, WithoutAnAnswerItIs503AndNobodyIs401) {
  LookupStage away;
  away.call({bearer("opaque")});
  away.port.flush_client();
  EXPECT_EQ(away.port.reason, Reason::identity_unavailable);
  EXPECT_THAT(away.port.to_client, HasSubstr("Retry-After: 1"));
  LookupStage nobody;
  nobody.port.lookup_answer = verdict_of("", kSoon);
  nobody.call({bearer("opaque")});
  nobody.port.flush_client();
  EXPECT_EQ(nobody.port.reason, Reason::token_invalid);
}

TEST(GateIdentity, AKeyBesideATokenThatIsAskedAboutHasToNameTheSameUser) {
  for (const auto& [owner, reason] :
       {std::pair{kAnnsKey, Reason::ok}, std::pair{kBobsKey, Reason::token_invalid}}) {
    LookupStage stage;
    stage.port.lookup_answer = verdict_of("ann", kSoon);
    stage.call({bearer("opaque"), key(owner)});
    stage.port.flush_client();
    EXPECT_EQ(stage.port.looked_up.size(), 1U);
    if (reason == Reason::ok)
      EXPECT_TRUE(stage.port.held);
    else
      EXPECT_EQ(stage.port.reason, reason);
  }
}

TEST(GateIdentity, AnAnswerThatComesAfterTheClientHasGoneChangesNothing) {
  LookupStage stage;
  stage.port.defer_session = true;
  stage.call({bearer("opaque")});
  EXPECT_FALSE(stage.exchange.over());
  stage.exchange.on_client_gone();
  EXPECT_TRUE(stage.exchange.over());
  stage.exchange.on_lookup(verdict_of("ann", kSoon));
  EXPECT_EQ(stage.port.acquired, 0);
}

TEST(GateIdentity, WhatIsKnownIsNotAskedAbout) {
  Portal portal(with_introspection());
  auto first = portal.send(read({bearer("opaque")}));
  EXPECT_EQ(first.next, Next::look_up);
  EXPECT_EQ(first.call.lookup->credential, "opaque");
  portal.current().lookups->store(first.call.lookup->key, verdict_of("ann", kSoon));
  for (int i = 0; i < 2; ++i) EXPECT_EQ(portal.send(read({bearer("opaque")})).next, Next::forward);
  EXPECT_EQ(portal.gate.token_cache_hits(), 1U) << "the second needs no look at the table";
  portal.now = kSoon;
  EXPECT_EQ(portal.send(read({bearer("opaque")})).next, Next::look_up) << "the verdict is over";
}

}  // namespace
}  // namespace tollgate::flow
