// Sessions of the CRM's own log-in, as an exchange sees them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/flow/support/stage.h"

namespace tollgate::flow {
namespace {

using test::Request;
using test::Stage;
using test::token;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

config::Settings with_sessions() {
  config::Settings settings = test::settings();
  settings.identity.sessions.kinds = {"creatio"};
  settings.licensing.system = "none";
  return settings;
}

constexpr std::string_view kCookie = "Set-Cookie: .ASPXAUTH=C00C1E; path=/; HttpOnly\r\n";

constexpr std::string_view kLoggedIn = R"({"Code":0,"Message":"","UserType":"SSP"})";

struct SessionStage : Stage {
  SessionStage() : Stage(with_sessions()) {}
  identity::SessionKey key(std::string_view cookie = "C00C1E") {
    return snapshot->sessions->secret().key_of(identity::SessionKind::creatio, "crm", cookie);
  }
  void know(std::string_view user, std::string_view cookie = "C00C1E") {
    port.known_sessions[key(cookie)] = std::make_shared<const identity::SessionRecord>(
        identity::SessionRecord{identity::SessionKind::creatio, std::string(user), identity::UserType::portal,
                                from_unix_seconds(test::kNow + 3'600)});
  }
  void log_in(std::string body = R"({"UserName":"Ann","UserPassword":"x"})") {
    request.emplace(Request("POST", "/ServiceModel/AuthService.svc/Login",
                            {{"Accept-Encoding", "gzip"}, {"Cookie", "UserType=General"}}, body));
    begin(*request);
    exchange.on_request_body(body);
    exchange.on_request_end({});
  }
  void call(std::vector<std::pair<std::string, std::string>> fields = {{"Cookie", "a=b; .ASPXAUTH=C00C1E"}},
            std::string_view method = "GET", std::string_view target = "/0/odata/Case") {
    request.emplace(Request(method, target, std::move(fields)));
    begin(*request);
  }
  void login_reply(std::string_view body, std::string_view status = "200 OK") {
    reply_head("HTTP/1.1 " + std::string(status) + "\r\n" + std::string(kCookie) +
                   "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n",
               "POST");
    for (const char& c : body) exchange.on_upstream_body(std::string_view(&c, 1));
    exchange.on_upstream_end({}, true);
  }
  std::optional<Request> request;
};

TEST(ExchangeSession, ALogInIsBoundBeforeTheClientHearsOfIt) {
  SessionStage stage;
  stage.port.defer_session = true;
  stage.log_in();
  stage.upstream_ready();
  EXPECT_THAT(stage.port.to_upstream, testing::EndsWith(R"({"UserName":"Ann","UserPassword":"x"})"));
  EXPECT_THAT(stage.port.to_upstream, Not(HasSubstr("gzip"))) << "its reply is read";
  stage.login_reply(kLoggedIn);
  EXPECT_EQ(stage.port.to_client, "");
  const auto record = stage.port.known_sessions.at(stage.key());
  EXPECT_EQ(record->user, "ann");
  EXPECT_EQ(record->user_type, identity::UserType::portal);
  EXPECT_EQ(record->deadline, from_unix_seconds(test::kNow + 86'400));
  EXPECT_FALSE(stage.port.held) << "the CRM's connection does not wait for the store";
  stage.exchange.on_session_written();
  stage.port.flush_client();
  EXPECT_THAT(stage.port.to_client, testing::AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr(kCookie),
                                                   testing::EndsWith(kLoggedIn)));
  EXPECT_TRUE(stage.exchange.over());
  EXPECT_EQ(stage.port.facts, 1);
  EXPECT_EQ(stage.port.status, 200);
}

TEST(ExchangeSession, WhatIsNoLogInIsPassedOnAndBindsNobody) {
  for (auto [body, status] :
       {std::pair{R"({"Code":1,"Message":"Invalid username"})", "200 OK"},
        std::pair{R"({"Code":0,"UserType":"SSP"})", "201 Created"},
        std::pair{R"({"Code":0,"UserType":"SSP"})", "500 Oops"}, std::pair{"", "200 OK"}}) {
    SessionStage stage;
    stage.log_in();
    stage.upstream_ready();
    stage.login_reply(body, status);
    stage.port.flush_client();
    EXPECT_THAT(stage.port.known_sessions, testing::IsEmpty()) << body << status;
    EXPECT_THAT(stage.port.to_client,
                testing::AllOf(StartsWith("HTTP/1.1 " + std::string(status)), testing::EndsWith(body)));
    EXPECT_TRUE(stage.exchange.over());
  }
}

TEST(ExchangeSession, AReplyTooLargeForALogInIsStreamedOnAndBindsNobody) {
  SessionStage stage;
  stage.log_in();
  stage.upstream_ready();
  const std::string body = std::string(kLoggedIn) + std::string(kLoginReplyMax, ' ');
  stage.login_reply(body);
  stage.port.flush_client();
  EXPECT_THAT(stage.port.known_sessions, testing::IsEmpty());
  EXPECT_THAT(stage.port.to_client, testing::EndsWith(body));
  EXPECT_TRUE(stage.exchange.over());
}

TEST(ExchangeSession, ALogInWhoseReplyIsCutBindsNobodyAndIsAnError) {
  SessionStage stage;
  stage.log_in();
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 200 OK\r\n" + std::string(kCookie) + "Content-Length: 100\r\n\r\n", "POST");
  stage.exchange.on_upstream_body(kLoggedIn);
  stage.port.held = false;
  stage.exchange.on_upstream_failed(UpstreamFailure::invalid);
  stage.port.flush_client();
  EXPECT_THAT(stage.port.to_client, testing::AllOf(StartsWith("HTTP/1.1 502"), Not(HasSubstr("C00C1E"))));
  EXPECT_THAT(stage.port.known_sessions, testing::IsEmpty());
  EXPECT_EQ(stage.port.facts, 1);
}

TEST(ExchangeSession, AClientThatLeavesWhileItsLogInIsWrittenEndsTheExchange) {
  SessionStage stage;
  stage.port.defer_session = true;
  stage.log_in();
  stage.upstream_ready();
  stage.login_reply(kLoggedIn);
  stage.exchange.on_client_gone();
  EXPECT_TRUE(stage.exchange.over());
  EXPECT_EQ(stage.port.facts, 1);
  stage.exchange.on_session_written();  // late: nobody is there
  EXPECT_EQ(stage.port.to_client, "");
}

TEST(ExchangeSession, ACallIsItsUsersWhoseSessionItCarries) {
  SessionStage stage;
  stage.know("ann");
  stage.call({{"Cookie", ".ASPXAUTH=C00C1E; a=b"}, {"Authorization", "Basic eDp5"}});
  stage.upstream_ready();
  EXPECT_THAT(stage.port.to_upstream, HasSubstr("Cookie: .ASPXAUTH=C00C1E; a=b\r\n")) << "the CRM needs it";
  EXPECT_THAT(stage.port.to_upstream, Not(HasSubstr("Basic"))) << "the CRM could believe it";
  stage.whole_reply();
  EXPECT_EQ(stage.port.units, 1U);
  EXPECT_EQ(stage.port.sessions_asked, 1);
}

TEST(ExchangeSession, AnUnknownSessionIsRefusedAndAStoreThatIsAwayIsToldApart) {
  for (const bool away : {false, true}) {
    SessionStage stage;
    stage.port.session_store_away = away;
    stage.call();
    stage.port.flush_client();
    EXPECT_EQ(stage.port.reason, away ? Reason::store_unavailable : Reason::token_invalid);
    EXPECT_EQ(stage.port.acquired, 0);
  }
}

TEST(ExchangeSession, PagesAndScriptsPassWithASessionThatIsNobodys) {
  SessionStage stage;
  stage.call({{"Cookie", ".ASPXAUTH=C00C1E"}}, "GET", "/core/hash/app.js");
  EXPECT_EQ(stage.port.acquired, 1);
}

TEST(ExchangeSession, AClientThatLeavesWhileItsSessionIsLookedUpEndsTheExchange) {
  SessionStage stage;
  stage.port.defer_session = true;
  stage.call();
  EXPECT_EQ(stage.exchange.waits_for(), Wait::store);
  stage.exchange.on_client_gone();
  EXPECT_TRUE(stage.exchange.over());
  stage.exchange.on_session({});
  EXPECT_EQ(stage.port.facts, 1);
}

TEST(ExchangeSession, TheEndOfASessionIsKnownBeforeTheClientHearsOfIt) {
  const std::vector<std::pair<std::string, std::string>> cookie{{"Cookie", ".ASPXAUTH=C00C1E"}};
  for (const std::string fields : {"", "Set-Cookie: .ASPXAUTH=; expires=Thu, 01 Jan 1970 00:00:00 GMT\r\n"}) {
    SessionStage stage;
    stage.know("ann");
    if (fields.empty())
      stage.call(cookie, "POST", "/0/rest/MainMenuService/Logout");
    else
      stage.call();
    stage.upstream_ready();
    stage.port.defer_session = true;
    stage.whole_reply("HTTP/1.1 200 OK\r\n" + fields + "Content-Length: 2\r\n\r\n");
    EXPECT_EQ(stage.port.to_client, "");
    EXPECT_EQ(stage.port.sessions_ended, 1);
    stage.exchange.on_session_written();
    stage.port.flush_client();
    EXPECT_THAT(stage.port.to_client, testing::EndsWith("ok"));
    EXPECT_TRUE(stage.exchange.over());
  }
}

TEST(ExchangeSession, A401OfTheCrmEndsTheSession) {
  SessionStage stage;
  stage.know("ann");
  stage.call();
  stage.upstream_ready();
  stage.port.defer_session = true;
  stage.whole_reply("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(stage.port.sessions_ended, 1);
  EXPECT_TRUE(stage.exchange.over()) << "the reply does not wait for the store";
}

TEST(ExchangeSession, ACookieMadeAnewIsTheSameUsers) {
  SessionStage stage;
  stage.know("ann");
  stage.call();
  stage.upstream_ready();
  stage.whole_reply("HTTP/1.1 200 OK\r\nSet-Cookie: .ASPXAUTH=D00D1E; path=/\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(stage.port.known_sessions.at(stage.key("D00D1E"))->user, "ann");
  EXPECT_EQ(stage.port.sessions_ended, 0) << "calls under way still carry the old one";
}

TEST(ExchangeSession, AnotherUsersSessionStaysHereWhenATokenSaysWhoCalls) {
  for (const auto& [owner, passes] :
       {std::pair{"bob", false}, std::pair{"ann", true}, std::pair{"", false}}) {
    SessionStage stage;
    if (*owner != '\0') stage.know(owner);
    stage.call({{"Authorization", "Bearer " + token()}, {"Cookie", "a=b; .aspxauth=C00C1E; BPMLOADER=x"}});
    stage.upstream_ready();
    if (passes)
      EXPECT_THAT(stage.port.to_upstream, HasSubstr("Cookie: a=b; .aspxauth=C00C1E; BPMLOADER=x\r\n"));
    else
      EXPECT_THAT(stage.port.to_upstream, HasSubstr("Cookie: a=b\r\n")) << owner;
    stage.whole_reply();
  }
}

TEST(ExchangeSession, ALogInIsNobodysWhateverTheRequestCarries) {
  SessionStage stage;
  stage.log_in(R"({"UserName":"a","username":"b"})");
  stage.port.flush_client();
  EXPECT_EQ(stage.port.reason, Reason::bad_request);
  EXPECT_EQ(stage.port.sessions_asked, 0);
  EXPECT_EQ(stage.port.acquired, 0);
}

// The head is looked at twice: before the store is asked whose session it is, and after.
TEST(ExchangeSession, ARewrittenPathIsRewrittenOnce) {
  config::Settings settings = with_sessions();
  settings.routes = {{.path_prefix = "/0", .upstream = "crm", .rewrite = {.replace_prefix = "/0/0"}}};
  Stage stage(settings);
  stage.port.defer_session = true;
  const Request request("GET", "/0/odata/Case", {{"Cookie", ".ASPXAUTH=C00C1E"}});
  stage.begin(request);
  ASSERT_EQ(stage.port.sessions_asked, 1);
  identity::SessionRecord record;
  record.user = "ann";
  record.deadline = from_unix_seconds(test::kNow + 3'600);
  stage.exchange.on_session(
      {.record = std::make_shared<const identity::SessionRecord>(record), .unavailable = false});
  stage.upstream_ready();
  EXPECT_THAT(stage.port.to_upstream, StartsWith("GET /0/0/odata/Case HTTP/1.1\r\n"));
  stage.exchange.stop();
}

}  // namespace
}  // namespace tollgate::flow
