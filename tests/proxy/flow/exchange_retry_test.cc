// When a call is sent again, and how failures of the upstream end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/flow/support/stage.h"

namespace tollgate::flow {
namespace {

using test::create_case;
using test::read_case;
using test::Request;
using test::Stage;
using test::token;
using test::two_servers;
using test::with_token;
using testing::HasSubstr;

TEST(Exchange, ReusedConnectionClosedEarlyIsRetriedOnceOnAFreshOne) {
  Stage stage;
  stage.port.idle_connection = true;
  const Request request = read_case();
  stage.begin(request);
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  EXPECT_EQ(stage.port.acquired, 2);
  EXPECT_TRUE(stage.port.last_fresh);
  stage.upstream_ready();
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  stage.port.flush_client();
  EXPECT_EQ(stage.port.acquired, 2);
  EXPECT_EQ(stage.port.status, 502);
  EXPECT_EQ(stage.port.attempts, 2U);
  EXPECT_EQ(stage.port.counted(), 1U) << "the upstream may have received it";
}

// A server that answers without reading may take the rest of the request for the next one: its answer to that would go to
// somebody else.
TEST(Exchange, ConnectionWhoseReplyBeganBeforeTheRequestHadLeftIsNotUsedAgain) {
  for (const bool ends_in_time : {false, true}) {
    Stage stage;
    const Request request = create_case();
    stage.begin(request);
    stage.upstream_ready();
    stage.exchange.on_request_body(request.body().substr(0, 5));
    if (ends_in_time) {
      stage.exchange.on_request_body(request.body().substr(5));
      stage.exchange.on_request_end({});
      stage.port.flush_upstream();
    }
    stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    if (!ends_in_time) {
      stage.exchange.on_request_body(request.body().substr(5));
      stage.exchange.on_request_end({});
    }
    stage.exchange.on_upstream_body("ok");
    stage.exchange.on_upstream_end({}, true);
    stage.port.flush_client();
    EXPECT_TRUE(stage.exchange.over());
    EXPECT_EQ(stage.port.released_reusable, ends_in_time);
  }
}

TEST(Exchange, PostIsNotRetriedOnceSomethingWasSent) {
  Stage stage;
  stage.port.idle_connection = true;
  const Request request = create_case();
  stage.begin(request);
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  EXPECT_EQ(stage.port.acquired, 1);
  EXPECT_THAT(stage.port.to_client, HasSubstr(" 502 "));
}

TEST(Exchange, ConnectFailureGoesToTheNextServerAtMostMaxRetriesTimes) {
  config::Settings two = test::settings();
  two.upstreams[0].servers = {"http://10.0.0.7:9000", "http://10.0.0.8:9000", "http://10.0.0.9:9000"};
  two.upstreams[0].max_retries = 1;
  Stage stage(two);
  const Request request = create_case();
  stage.begin(request);
  stage.exchange.on_upstream_failed(UpstreamFailure::connect);
  EXPECT_EQ(stage.port.acquired, 2);
  stage.exchange.on_upstream_failed(UpstreamFailure::connect);
  EXPECT_EQ(stage.port.acquired, 2);
  stage.exchange.on_request_body(request.body());
  stage.exchange.on_request_end({});
  stage.port.flush_client();
  EXPECT_EQ(stage.port.reason, Reason::upstream_unreachable);
  EXPECT_EQ(stage.port.given_back, 1);
  EXPECT_EQ(stage.port.counted(), 0U);
}

TEST(Exchange, IdempotentCallThatGotNoReplyIsRepeatedAndChargedOnce) {
  Stage stage(two_servers());
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  EXPECT_EQ(stage.port.acquired, 2);
  EXPECT_TRUE(stage.port.last_again);
  EXPECT_FALSE(stage.port.last_fresh);
  stage.upstream_ready();
  stage.whole_reply();
  EXPECT_EQ(stage.port.status, 200);
  EXPECT_EQ(stage.port.counted(), 1U);
  EXPECT_EQ(stage.port.units, 1U);
  EXPECT_EQ(stage.port.attempts, 2U);
}

// Without its end, the next request on the connection would be read as its body.
TEST(Exchange, ChunkedRequestWithoutDataIsRepeatedWithItsEnd) {
  for (const bool stale : {true, false}) {
    for (const bool trailer : {true, false}) {
      Stage stage(two_servers());
      stage.port.idle_connection = stale;
      const Request request =
          with_token("DELETE", "/0/Other", token(), "", {{"Transfer-Encoding", "chunked"}});
      stage.begin(request);
      if (!stale) stage.upstream_ready();
      stage.exchange.on_request_end(trailer ? std::vector<http::TrailerField>{{"X-Sum", "1"}}
                                            : std::vector<http::TrailerField>{});
      const std::string first = std::exchange(stage.port.to_upstream, {});
      EXPECT_TRUE(first.ends_with(trailer ? "\r\n\r\n0\r\nX-Sum: 1\r\n\r\n" : "\r\n\r\n0\r\n\r\n")) << first;
      stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
      EXPECT_EQ(stage.port.acquired, 2);
      stage.upstream_ready();
      EXPECT_EQ(stage.port.to_upstream, first);
      stage.whole_reply();
      EXPECT_EQ(stage.port.status, 200);
    }
  }
}

TEST(Exchange, RepeatingStopsAtMaxRetriesAtTheBudgetAndAtWhatIsConfigured) {
  for (const bool budget : {true, false}) {
    Stage stage(two_servers());
    stage.port.budget = budget ? 5 : 0;
    const Request request = read_case();
    stage.begin(request);
    for (int i = 0; i < (budget ? 2 : 1); ++i) {
      stage.upstream_ready();
      stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
    }
    stage.port.flush_client();
    EXPECT_EQ(stage.port.reason, Reason::upstream_closed);
    EXPECT_EQ(stage.port.counted(), 1U);
  }
  Stage stage(two_servers({"connect"}));
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  EXPECT_EQ(stage.port.acquired, 1);
}

TEST(Exchange, NothingThatChangesSomethingIsEverRepeatedOnceItWasSent) {
  for (const bool status : {false, true}) {
    Stage stage(two_servers({"connect", "closed", "timeout", "503"}));
    const Request request = create_case();
    stage.begin(request);
    stage.exchange.on_request_body(request.body());
    stage.exchange.on_request_end({});
    stage.upstream_ready();
    if (status)
      stage.reply_head("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "POST");
    else
      stage.exchange.on_timer(Timer::upstream);
    EXPECT_EQ(stage.port.acquired, 1);
    EXPECT_THAT(stage.port.to_client, HasSubstr(status ? " 503 " : " 504 "));
  }
}

TEST(Exchange, StatusesAndTimeOutsAreRepeatedWhereThatIsConfigured) {
  Stage stage(two_servers({"timeout", "503"}));
  stage.port.budget = 1;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(stage.port.acquired, 1) << "502 is not in the list";

  for (const bool status : {false, true}) {
    Stage again(two_servers({"timeout", "503"}));
    again.begin(request);
    again.upstream_ready();
    if (status)
      again.reply_head("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n");
    else
      again.exchange.on_timer(Timer::upstream);
    EXPECT_EQ(again.port.stalled, status ? 0 : 1);
    EXPECT_EQ(again.port.acquired, 2);
    EXPECT_EQ(again.port.to_client, "");
    EXPECT_FALSE(again.port.released_reusable);
    again.upstream_ready();
    again.whole_reply();
    EXPECT_EQ(again.port.status, 200);
    EXPECT_EQ(again.port.counted(), 1U);
  }
}

TEST(Exchange, EachEndingOfTheUpstreamHasItsReason) {
  const std::tuple<UpstreamFailure, bool, Reason, int, bool> endings[] = {
      {UpstreamFailure::connect, false, Reason::upstream_unreachable, 502, true},
      {UpstreamFailure::connect_timeout, false, Reason::upstream_connect_timeout, 504, true},
      {UpstreamFailure::queue_full, false, Reason::overloaded, 503, true},
      {UpstreamFailure::unavailable, false, Reason::upstream_unavailable, 503, true},
      {UpstreamFailure::closed_early, true, Reason::upstream_closed, 502, false},
      {UpstreamFailure::invalid, true, Reason::upstream_invalid, 502, false}};
  for (const auto& [failure, connected, reason, status, given_back] : endings) {
    Stage stage;
    const Request request = read_case();
    stage.begin(request);
    if (connected) stage.upstream_ready();
    stage.exchange.on_upstream_failed(failure);
    stage.port.flush_client();
    EXPECT_EQ(stage.port.reason, reason) << code(reason);
    EXPECT_EQ(stage.port.status, status) << code(reason);
    EXPECT_EQ(stage.port.counted(), given_back ? 0U : 1U) << code(reason);
  }
}

TEST(Exchange, TheTotalTimeCoversWaitingRepeatingAndTheBody) {
  config::Settings settings = two_servers();
  settings.upstreams[0].total_timeout = Milliseconds(3'000);
  settings.upstreams[0].response_timeout = Milliseconds(2'000);
  const Request request = read_case();

  Stage waiting(settings);
  waiting.begin(request);
  EXPECT_EQ(waiting.port.timer(Timer::upstream), Milliseconds(3'000));
  waiting.port.clock += Seconds(3);
  waiting.exchange.on_timer(Timer::upstream);
  waiting.port.flush_client();
  EXPECT_EQ(waiting.port.reason, Reason::upstream_deadline);
  EXPECT_EQ(waiting.port.given_back, 1) << "nothing was sent";

  Stage slow(settings);
  slow.begin(request);
  slow.upstream_ready();
  EXPECT_EQ(slow.port.timer(Timer::upstream), Milliseconds(2'000)) << "what is earlier";
  slow.port.clock += Milliseconds(1'500);
  slow.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  slow.upstream_ready();
  EXPECT_EQ(slow.port.timer(Timer::upstream), Milliseconds(1'500));
  slow.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
  slow.exchange.on_upstream_body("half");
  EXPECT_EQ(slow.port.timer(Timer::upstream), Milliseconds(1'500));
  slow.port.clock += Milliseconds(1'500);
  slow.exchange.on_timer(Timer::upstream);
  EXPECT_EQ(slow.port.stalled, 0) << "it may be a long reply";
  EXPECT_TRUE(slow.exchange.over());
  EXPECT_EQ(slow.exchange.client_end(), ClientEnd::abort);
  EXPECT_EQ(slow.port.reason, Reason::upstream_deadline);
  EXPECT_EQ(slow.port.counted(), 1U);
}

TEST(Exchange, AServerThatDoesNotAnswerInTheTotalTimeHasFailedUnlessTheClientStillSends) {
  config::Settings settings = test::settings();
  settings.upstreams[0].total_timeout = Milliseconds(300);
  for (const bool sends : {false, true}) {
    Stage stage(settings);
    const Request request = sends ? with_token("POST", "/0/Other", token(), "body") : read_case();
    stage.begin(request);
    stage.port.turn = Milliseconds(7);
    stage.upstream_ready();
    EXPECT_EQ(stage.port.timer(Timer::upstream), Milliseconds(307))
        << "or it would be early, and no deadline";
    stage.port.flush_upstream();
    stage.port.clock += Milliseconds(300);
    stage.exchange.on_timer(Timer::upstream);
    stage.port.flush_client();
    EXPECT_THAT(stage.port.to_client, HasSubstr("upstream_deadline"));
    EXPECT_EQ(stage.port.stalled, sends ? 0 : 1);
  }
}

TEST(Exchange, AReplyThatStopsInTheMiddleIsAFailureOfTheServer) {
  Stage stage;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
  stage.exchange.on_upstream_body("half");
  stage.exchange.on_timer(Timer::upstream);
  EXPECT_EQ(stage.port.stalled, 1);
}

// The head of an upload has left whose client waits for the upstream's leave.
void begin_waiting_upload(Stage& stage) {
  static const Request request =
      with_token("POST", "/0/Other", token(), "body", {{"Expect", "100-continue"}});
  stage.begin(request);
  stage.upstream_ready();
  stage.port.flush_upstream();
  stage.exchange.on_upstream_writable();
}

// RFC 9110 section 10.1.1: until the upstream tells it to go on, the client owes nothing.
TEST(Exchange, WhoWaitsForTheUpstreamsLeaveIsNotWaitedFor) {
  for (const bool tired : {false, true}) {
    Stage stage;
    begin_waiting_upload(stage);
    const config::Timeouts& timeouts = stage.snapshot->settings.timeouts;
    EXPECT_TRUE(stage.exchange.client_awaits_continue());
    EXPECT_TRUE(stage.port.reads_client) << "it may send without it";
    EXPECT_EQ(stage.port.timer(Timer::client), std::nullopt);
    EXPECT_EQ(stage.port.timer(Timer::upstream), stage.snapshot->settings.upstreams[0].response_timeout);
    if (tired)
      stage.exchange.on_request_body("bo");
    else
      stage.reply_head("HTTP/1.1 100 Continue\r\n\r\n", "POST");
    stage.port.flush_upstream();
    stage.exchange.on_upstream_writable();
    EXPECT_FALSE(stage.exchange.client_awaits_continue());
    EXPECT_EQ(stage.port.timer(Timer::client), timeouts.request_body);
    EXPECT_EQ(stage.port.timer(Timer::upstream), std::nullopt);
    stage.exchange.on_request_body(tired ? "dy" : "body");
    stage.exchange.on_request_end({});
    stage.whole_reply();
    EXPECT_EQ(stage.port.status, 200);
  }
}

TEST(Exchange, AnUpstreamThatNeverSaysGoOnIsLate) {
  Stage stage;
  begin_waiting_upload(stage);
  stage.exchange.on_timer(Timer::upstream);
  stage.port.flush_client();
  EXPECT_EQ(stage.port.reason, Reason::upstream_timeout);
  EXPECT_EQ(stage.port.stalled, 1);
}

TEST(Exchange, TheHashKeyIsTheUserTheAddressOrAField) {
  for (const auto& [kind, key] : std::vector<std::pair<std::string, std::string>>{
           {"user", "ann"}, {"ip", "192.0.2.7"}, {"header:x-room", "12"}, {"header:x-other", ""}}) {
    config::Settings settings = test::settings();
    settings.upstreams[0].balance = config::Balance::hash;
    settings.upstreams[0].hash_key = kind;
    Stage stage(settings);
    const Request request = with_token("GET", "/0/odata/Case", token(), "", {{"X-Room", "12"}});
    stage.begin(request);
    EXPECT_EQ(stage.port.last_hash_key, key) << kind;
  }
}

TEST(Exchange, StaleThenUnreachableIsNotGivenBack) {
  Stage stage;
  stage.port.idle_connection = true;
  const Request request = read_case();
  stage.begin(request);
  stage.exchange.on_upstream_failed(UpstreamFailure::closed_early);
  stage.exchange.on_upstream_failed(UpstreamFailure::connect);
  stage.port.flush_client();
  EXPECT_EQ(stage.port.given_back, 0) << "the first server may have received it";
  EXPECT_EQ(stage.port.counted(), 1U);
}

}  // namespace
}  // namespace tollgate::flow
