// What an exchange passes on in both directions: heads, credentials, bodies with back-pressure.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/flow/support/stage.h"

namespace tollgate::flow {
namespace {

using test::read_case;
using test::Request;
using test::Stage;
using test::token;
using test::with_token;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

TEST(Exchange, LegacyRateLimitFieldsOfTheUpstreamGiveWayToOurs) {
  for (const bool legacy : {false, true}) {
    config::Settings settings = test::settings();
    settings.proxy.legacy_rate_limit_headers = legacy;
    Stage stage(settings);
    const Request request = read_case();
    stage.begin(request);
    stage.upstream_ready();
    stage.reply_head(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-ratelimit-limit: 7\r\nX-RateLimit-Remaining: 7\r\n"
        "X-RateLimit-Reset: 7\r\nRateLimit: \"crm\";r=7\r\n\r\n");
    EXPECT_THAT(stage.port.to_client, HasSubstr("RateLimit: \"crm\";r=7\r\n")) << "a list: members are added";
    EXPECT_THAT(stage.port.to_client, HasSubstr("RateLimit: \"daily\";r=2"));
    const auto theirs = HasSubstr(": 7\r\n");
    if (legacy)
      EXPECT_THAT(stage.port.to_client, testing::AllOf(Not(theirs), HasSubstr("X-RateLimit-Limit: 3\r\n")));
    else
      EXPECT_THAT(stage.port.to_client, theirs);
    stage.exchange.on_upstream_end({}, true);
    stage.port.flush_client();
  }
}

TEST(Exchange, ViaIsAddedOnlyWhenNamed) {
  for (const std::string via : {"", "gate"}) {
    config::Settings settings = test::settings();
    settings.proxy.via = via;
    Stage stage(settings);
    const Request request = read_case();
    stage.begin(request);
    stage.upstream_ready();
    if (via.empty())
      EXPECT_THAT(stage.port.to_upstream, Not(HasSubstr("Via:")));
    else
      EXPECT_THAT(stage.port.to_upstream, HasSubstr("\r\nVia: 1.1 gate\r\n"));
  }
}

TEST(Exchange, RewrittenPathGoesOutAndAddressesInTheReplyComeBack) {
  for (const bool map_replies : {true, false}) {
    config::Settings settings = test::settings();
    settings.routes = {{.path_prefix = "/portal",
                        .upstream = "crm",
                        .rewrite = {.replace_prefix = "/0/odata", .map_replies = map_replies}}};
    Stage stage(settings);
    const Request request = with_token("GET", "/portal/Case?$filter=a%20eq%20'/portal'", token());
    stage.begin(request);
    stage.upstream_ready();
    EXPECT_THAT(stage.port.to_upstream,
                StartsWith("GET /0/odata/Case?$filter=a%20eq%20'/portal' HTTP/1.1\r\n"));
    stage.reply_head(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9000/0/odata/Lead\r\nContent-Location: "
        "/0/odata/Case\r\n"
        "Set-Cookie: a=b; Path=/0/odata\r\nContent-Length: 0\r\n\r\n");
    EXPECT_THAT(
        stage.port.to_client,
        HasSubstr(map_replies ? "Location: /portal/Lead\r\nContent-Location: /portal/Case\r\n"
                                "Set-Cookie: a=b; Path=/portal\r\n"
                              : "Location: http://127.0.0.1:9000/0/odata/Lead\r\n"
                                "Content-Location: /0/odata/Case\r\nSet-Cookie: a=b; Path=/0/odata\r\n"));
    stage.exchange.on_upstream_end({}, true);
    stage.port.flush_client();
    EXPECT_EQ(stage.port.units, 1U);
  }
}

TEST(Exchange, OptionsWithoutHopsLeftIsAnsweredHere) {
  for (const bool left : {false, true}) {
    Stage stage;
    const Request request =
        with_token("OPTIONS", "/0/odata/Case", token(), "", {{"Max-Forwards", left ? "1" : "0"}});
    stage.begin(request);
    if (left) {
      stage.upstream_ready();
      EXPECT_THAT(stage.port.to_upstream, HasSubstr("Max-Forwards: 0\r\n"));
      stage.whole_reply();
    } else {
      EXPECT_EQ(stage.port.acquired, 0);
      EXPECT_THAT(stage.port.to_client, testing::StartsWith("HTTP/1.1 200 "));
      EXPECT_THAT(stage.port.to_client, HasSubstr("\r\nAllow: GET, "));
      stage.port.flush_client();
      EXPECT_EQ(stage.port.counted(), 0U);
    }
    EXPECT_TRUE(stage.exchange.over());
    EXPECT_EQ(stage.exchange.client_end(), ClientEnd::keep);
    EXPECT_EQ(stage.port.facts, 1);
  }
}

TEST(Exchange, SwitchToAProtocolThatWasNotOfferedIs502) {
  for (const auto& [fields, good] :
       std::vector<std::pair<std::string, bool>>{{"Upgrade: websocket\r\n", true},
                                                 {"Upgrade: WebSocket\r\n", true},
                                                 {"Upgrade: h2c\r\n", false},
                                                 {"Upgrade: websocket, h2c\r\n", false},
                                                 {"Upgrade:\r\n", false},
                                                 {"", false}}) {
    Stage stage;
    const Request request = with_token("GET", "/0/odata/Case", token(), {},
                                       {{"Connection", "upgrade"}, {"Upgrade", "chat/1, websocket"}});
    stage.begin(request);
    stage.upstream_ready();
    stage.reply_head("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n" + fields + "\r\n");
    EXPECT_EQ(stage.exchange.tunnel(), good) << fields;
    if (good) {
      stage.exchange.stop();
      continue;
    }
    EXPECT_THAT(stage.port.to_client, StartsWith("HTTP/1.1 502 ")) << fields;
    EXPECT_EQ(stage.port.reason, Reason::ok) << "not recorded before it has left";
    stage.port.flush_client();
    EXPECT_EQ(stage.port.reason, Reason::upstream_invalid);
  }
}

config::Settings two_places() {
  config::Settings settings = test::settings();
  settings.identity.sources = {{.header = "X-Access-Token", .cookie = ""},
                               {.header = "", .cookie = "session"}};
  return settings;
}

std::string sent_to_upstream(const Request& request, config::Settings settings) {
  Stage stage(std::move(settings));
  stage.begin(request);
  if (stage.exchange.request_complete() && stage.port.acquired == 0) return stage.port.to_client;
  stage.upstream_ready();
  if (!request.body().empty()) {
    stage.exchange.on_request_body(request.body());
    stage.exchange.on_request_end(
        {{"x-access-TOKEN", "forged"}, {"X_Access_Token", "forged"}, {"X-Sum", "1"}, {"X-Gone", "2"}});
  }
  std::string sent = stage.port.to_upstream;
  stage.exchange.stop();
  return sent;
}

TEST(Exchange, CredentialsInDisguiseStayHere) {
  const std::string mine = token();
  const std::string sent = sent_to_upstream(
      Request("GET", "/0/odata/Case",
              {{"X-Access-Token", mine}, {"X_Access_Token", "forged"}, {"x-access_token", "forged"}}),
      two_places());
  EXPECT_THAT(sent, HasSubstr("X-Access-Token: " + mine + "\r\n"));
  EXPECT_THAT(sent, Not(HasSubstr("forged")));
}

TEST(Exchange, TrailersCarryNoCredentialsAndNothingThatConnectionNames) {
  const std::string sent = sent_to_upstream(
      Request("POST", "/0/odata/Case",
              {{"X-Access-Token", token()}, {"Transfer-Encoding", "chunked"}, {"Connection", "X-Gone"}},
              "{}"),
      two_places());
  EXPECT_THAT(sent, Not(HasSubstr("forged")));
  EXPECT_THAT(sent, testing::EndsWith("\r\n0\r\nX-Sum: 1\r\n\r\n"));
}

TEST(Exchange, ConnectionMayNotStripTheCredentials) {
  EXPECT_THAT(
      sent_to_upstream(Request("GET", "/0/odata/Case",
                               {{"X-Access-Token", token()}, {"Connection", "close, x-access-token"}}),
                       two_places()),
      StartsWith("HTTP/1.1 400 "));
}

// Metered as ann, believed to be bob: not even when both tokens are good.
TEST(Exchange, UpstreamIsGivenTheTokenThatWasMeteredAndNoOther) {
  const std::string ann = token(), bob = token({.user = "bob"});
  std::string sent = sent_to_upstream(
      Request("GET", "/0/odata/Case", {{"X-Access-Token", ann}, {"Cookie", "a=1; session=" + bob}}),
      two_places());
  EXPECT_THAT(sent, HasSubstr(ann));
  EXPECT_THAT(sent, Not(HasSubstr(bob)));
  EXPECT_THAT(sent, HasSubstr("Cookie: a=1\r\n"));
  sent = sent_to_upstream(
      Request("GET", "/0/odata/Case", {{"X-Access-Token", ann}, {"Cookie", "a=1; session=" + ann}}),
      two_places());
  EXPECT_THAT(sent, HasSubstr("Cookie: a=1; session=" + ann)) << "the same twice contradicts nothing";
}

TEST(Exchange, FullUpstreamPausesTheClientUntilItHasDrained) {
  config::Settings tight = test::settings();
  tight.limits.buffer = 1'000;
  tight.routes[0].metered = false;
  Stage stage(tight);
  const Request request("PUT", "/file", {}, std::string(5'000, 'b'));
  stage.begin(request);
  EXPECT_FALSE(stage.port.reads_client) << "nobody is there to take the body yet";
  stage.upstream_ready();
  EXPECT_TRUE(stage.port.reads_client);
  stage.exchange.on_request_body(std::string(2'000, 'b'));
  EXPECT_FALSE(stage.port.reads_client);
  EXPECT_FALSE(stage.port.timer(Timer::client)) << "the client is not late while it is paused";
  EXPECT_TRUE(stage.port.timer(Timer::upstream));
  stage.port.upstream_queue = 600;
  stage.exchange.on_upstream_writable();
  EXPECT_FALSE(stage.port.reads_client);
  stage.port.upstream_queue = 500;
  stage.exchange.on_upstream_writable();
  EXPECT_TRUE(stage.port.reads_client);
}

TEST(Exchange, FullClientPausesTheUpstreamUntilItHasDrained) {
  config::Settings tight = test::settings();
  tight.limits.buffer = 1'000;
  Stage stage(tight);
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
  stage.exchange.on_upstream_body(std::string(2'000, 'r'));
  EXPECT_FALSE(stage.port.reads_upstream);
  EXPECT_FALSE(stage.port.timer(Timer::upstream)) << "the upstream is not late while it is paused";
  stage.port.flush_client();
  EXPECT_TRUE(stage.port.reads_upstream);
  EXPECT_TRUE(stage.port.timer(Timer::upstream));
}

TEST(Exchange, BodyTimeOutIs408AndNotGivenBackOnceForwarded) {
  config::Settings open = test::settings();
  open.routes[0].metered = false;
  Stage stage(open);
  const Request request("PUT", "/file", {}, std::string(50, 'b'));
  stage.begin(request);
  stage.upstream_ready();
  stage.exchange.on_timer(Timer::client);
  EXPECT_THAT(stage.port.to_client, HasSubstr("HTTP/1.1 408 "));
  EXPECT_THAT(stage.port.to_client, HasSubstr("Connection: close\r\n"));
  stage.port.flush_client();
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::close);
}

}  // namespace
}  // namespace tollgate::flow
