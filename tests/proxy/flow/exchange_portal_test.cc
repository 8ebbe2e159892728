// Members of a portal, as an exchange sees them come and go: each invitation is settled once, whatever becomes of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/flow/support/stage.h"

namespace tollgate::flow {
namespace {

using test::Request;
using test::Stage;
using test::token;
using test::with_token;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;
using testing::StartsWith;
using Fate = seats::Settlement::Outcome;

config::Settings zoho() {
  config::Settings settings = test::settings();
  settings.catalogue.dialects = {"zoho"};
  settings.licensing.system = "zoho";
  settings.licensing.main_products = {"enterprise"};
  return settings;
}

Request staff(std::string_view method, std::string_view target,
              std::vector<std::pair<std::string, std::string>> fields = {}) {
  return with_token(method, target, token({.user = "boss", .type = "staff"}), {}, std::move(fields));
}

struct Invitation : ::testing::Test {
  Invitation() { stage.begin(request); }
  void reply(const std::string& status, const std::string& body) {
    stage.upstream_ready();
    stage.reply_head("HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n",
                     "POST");
    if (!body.empty()) stage.exchange.on_upstream_body(body);
    stage.exchange.on_upstream_end({}, true);
  }
  const std::string who = seats::member_of({"acme", "12"});
  const Request request =
      staff("POST", "/crm/v8/Contacts/12/actions/portal_invite?user_type_id=7&type=invite",
            {{"Accept-Encoding", "gzip"}});
  Stage stage{zoho()};
  test::ScriptedPort& port = stage.port;
};

TEST_F(Invitation, TakesASeatForTheMemberAndIsSettledBeforeTheCallerHasTheReply) {
  EXPECT_THAT(port.invited, ElementsAre(who));
  port.defer_session = true;
  reply("200 OK", R"({"portal_invite":[{"code":"SUCCESS","status":"success"}]})");
  EXPECT_THAT(port.to_upstream, Not(HasSubstr("gzip"))) << "the reply must be readable";
  EXPECT_THAT(port.settled, ElementsAre(Pair(who, Fate::member)));
  EXPECT_EQ(port.to_client, "");
  stage.exchange.on_session_written();
  EXPECT_THAT(port.to_client, HasSubstr("SUCCESS"));
  port.flush_client();
  EXPECT_TRUE(stage.exchange.over());
  EXPECT_EQ(port.settled.size(), 1U);
}

TEST_F(Invitation, RefusedByStatusOrByItsEntryGivesTheSeatBack) {
  reply("400 Bad Request", "{}");
  EXPECT_THAT(port.settled, ElementsAre(Pair(who, Fate::refused)));
  EXPECT_THAT(port.to_client, StartsWith("HTTP/1.1 400 "));
  Stage other(zoho());
  other.begin(request);
  other.upstream_ready();
  other.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n", "POST");
  other.exchange.on_upstream_body(R"({"portal_invite":[{"status":"error"}]})");
  EXPECT_THAT(other.port.settled, IsEmpty());
  other.exchange.on_upstream_end({}, true);
  EXPECT_THAT(other.port.settled, ElementsAre(Pair(who, Fate::refused)));
  EXPECT_THAT(other.port.to_client, HasSubstr("error"));
}

TEST_F(Invitation, NeverSentGivesTheSeatBackAndLostOnTheWayKeepsIt) {
  stage.exchange.on_upstream_failed(UpstreamFailure::unavailable);
  EXPECT_THAT(port.settled, ElementsAre(Pair(who, Fate::refused)));
  for (const bool client_left : {false, true}) {
    Stage other(zoho());
    other.begin(request);
    other.upstream_ready();
    if (client_left)
      other.exchange.on_client_gone();
    else
      other.exchange.on_upstream_failed(UpstreamFailure::closed_early);
    EXPECT_THAT(other.port.settled, ElementsAre(Pair(who, Fate::member)));
    other.port.flush_client();
    EXPECT_EQ(other.port.settled.size(), 1U);
  }
  Stage failing(zoho());
  failing.begin(request);
  failing.upstream_ready();
  failing.reply_head("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "POST");
  failing.exchange.on_upstream_end({}, true);
  EXPECT_THAT(failing.port.settled, ElementsAre(Pair(who, Fate::member)));
}

TEST_F(Invitation, ClientThatLeavesInTheMiddleOfTheReplyEndsOnce) {
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "POST");
  stage.exchange.on_upstream_body("{");
  stage.exchange.on_client_gone();
  EXPECT_TRUE(stage.exchange.over());
  EXPECT_EQ(port.to_client, "");
  EXPECT_THAT(port.settled, ElementsAre(Pair(who, Fate::member)));
}

TEST_F(Invitation, TooLongAReplyPassesAndKeepsTheSeat) {
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "POST");
  const std::string part(64 * 1024, ' ');
  for (int i = 0; i < 9; ++i) stage.exchange.on_upstream_body(part);
  EXPECT_GT(port.to_client.size(), kPortalReplyMax);
  stage.exchange.on_upstream_end({}, true);
  port.flush_client();
  EXPECT_THAT(port.settled, ElementsAre(Pair(who, Fate::member)));
}

TEST(ExchangePortal, NoSeatIsARefusalThatGoesNoFurther) {
  for (auto status : {seats::Outcome::Status::full, seats::Outcome::Status::unavailable}) {
    Stage stage(zoho());
    stage.port.seat = seats::Outcome{.status = status};
    const Request request = staff("POST", "/crm/v8/Contacts/12/actions/portal_invite");
    stage.begin(request);
    stage.port.flush_client();
    EXPECT_EQ(stage.port.reason,
              status == seats::Outcome::Status::full ? Reason::seat_cap_reached : Reason::store_unavailable);
    EXPECT_EQ(stage.port.acquired, 0);
    EXPECT_THAT(stage.port.settled, ElementsAre(Pair(seats::member_of({"acme", "12"}), Fate::refused)))
        << "an answer that was not heard may have given it";
  }
}

TEST(ExchangePortal, RemovalFreesWhomTheReplyNamesAndNobodyWhenItIsRefused) {
  const Request request =
      staff("DELETE", "/crm/v8/settings/portals/shop/user_type/7/users?personality_ids=12,13");
  for (const bool refused : {false, true}) {
    Stage stage(zoho());
    stage.begin(request);
    EXPECT_THAT(stage.port.invited, IsEmpty());
    stage.upstream_ready();
    const std::string body =
        R"({"users":[{"code":"SUCCESS","status":"success","details":{"personality_id":"13"}}]})";
    stage.reply_head((refused ? "HTTP/1.1 403 No" : "HTTP/1.1 200 OK") + std::string("\r\nContent-Length: ") +
                         std::to_string(body.size()) + "\r\n\r\n",
                     "DELETE");
    stage.exchange.on_upstream_body(body);
    stage.exchange.on_upstream_end({}, true);
    stage.port.flush_client();
    EXPECT_TRUE(stage.exchange.over());
    EXPECT_THAT(stage.port.to_client, HasSubstr("SUCCESS"));
    if (refused)
      EXPECT_THAT(stage.port.settled, IsEmpty());
    else
      EXPECT_THAT(stage.port.settled, ElementsAre(Pair(seats::member_of({"acme", "13"}), Fate::removed)));
  }
}

}  // namespace
}  // namespace tollgate::flow
