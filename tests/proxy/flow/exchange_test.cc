// The life of one call, step by step. Whatever happens at whatever step, there is exactly one fact, and the charge is given
// back if and only if the upstream never received the call.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/flow/support/stage.h"

namespace tollgate::flow {
namespace {

using test::read_case;
using test::Request;
using test::Stage;
using test::token;
using test::two_servers;
using test::with_token;
using testing::HasSubstr;
using testing::Not;

TEST(Exchange, ForwardedCallIsOneFactOneUnitAndKeepsTheConnection) {
  Stage stage;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  EXPECT_THAT(stage.port.to_upstream, HasSubstr("GET /0/odata/Case HTTP/1.1\r\n"));
  stage.whole_reply();
  EXPECT_TRUE(stage.exchange.over());
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::keep);
  EXPECT_TRUE(stage.port.released_reusable);
  EXPECT_EQ(stage.port.facts, 1);
  EXPECT_EQ(stage.port.units, 1U);
  EXPECT_EQ(stage.port.status, 200);
  EXPECT_EQ(stage.port.counted(), 1U);
  EXPECT_THAT(stage.port.to_client, HasSubstr("RateLimit: \"daily\";r=2"));
  EXPECT_THAT(stage.port.to_client, testing::EndsWith("\r\n\r\nok"));
}

// Staff is not metered by the licence; a rule that binds staff makes its calls units all the same.
TEST(Exchange, StaffHasUnitsExactlyWhenARuleChargesIt) {
  for (const bool bound : {false, true}) {
    config::Settings settings = test::settings();
    settings.quotas.front().staff = bound;
    Stage stage(settings);
    const Request request = with_token("GET", "/0/odata/Case", token({.type = "staff"}));
    stage.begin(request);
    stage.upstream_ready();
    stage.whole_reply();
    EXPECT_EQ(stage.port.facts, 1);
    EXPECT_EQ(stage.port.units, bound ? 1U : 0U) << bound;
  }
}

TEST(Exchange, FactIsRecordedOnlyWhenTheReplyHasLeft) {
  Stage stage;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  stage.exchange.on_upstream_end({}, true);
  EXPECT_EQ(stage.port.facts, 0);
  stage.port.flush_client();
  EXPECT_EQ(stage.port.facts, 1);
}

// ---- an ending at every step

enum class Step { store, acquiring, forwarding, replying, flushing };

enum class Blow { client_gone, upstream_fails, upstream_timer, stop };

std::string name_of(Step step) {
  return std::array{"store", "acquiring", "forwarding", "replying",
                    "flushing"}[static_cast<std::size_t>(step)];
}

std::string name_of(Blow blow) {
  return std::array{"client_gone", "upstream_fails", "upstream_timer",
                    "stop"}[static_cast<std::size_t>(blow)];
}

// Leads a fresh exchange to `step`.
void lead_to(Stage& stage, Step step, const Request& request) {
  stage.port.defer_store = true;
  stage.begin(request);
  if (step == Step::store) return;
  stage.port.answer_store();
  if (step == Step::acquiring) return;
  stage.upstream_ready();
  if (step == Step::forwarding) return;
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
  if (step == Step::replying) return;
  stage.exchange.on_upstream_body("ok");
  stage.exchange.on_upstream_end({}, true);
}

TEST(Exchange, EveryBlowAtEveryStepIsOneFactAndGivesBackIffNeverReceived) {
  for (const Step step : {Step::store, Step::acquiring, Step::forwarding, Step::replying, Step::flushing}) {
    for (const Blow blow : {Blow::client_gone, Blow::upstream_fails, Blow::upstream_timer, Blow::stop}) {
      if (step == Step::store && (blow == Blow::upstream_fails || blow == Blow::upstream_timer)) continue;
      if (step == Step::flushing && (blow == Blow::upstream_fails || blow == Blow::upstream_timer)) continue;
      if (step == Step::acquiring && blow == Blow::upstream_timer) continue;  // the pool's business
      SCOPED_TRACE(name_of(step) + " / " + name_of(blow));
      Stage stage;
      const Request request = read_case();
      lead_to(stage, step, request);
      switch (blow) {
        case Blow::client_gone:
          stage.exchange.on_client_gone();
          break;
        case Blow::upstream_fails:
          stage.port.held = false;
          stage.exchange.on_upstream_failed(step == Step::acquiring ? UpstreamFailure::connect
                                                                    : UpstreamFailure::invalid);
          break;
        case Blow::upstream_timer:
          stage.exchange.on_timer(Timer::upstream);
          break;
        case Blow::stop:
          stage.exchange.stop();
          break;
      }
      if (stage.exchange.awaits_store()) {
        EXPECT_EQ(stage.port.facts, 0) << "the verdict is awaited";
        stage.port.answer_store();
      }
      if (!stage.exchange.over()) stage.port.flush_client();
      EXPECT_TRUE(stage.exchange.over());
      EXPECT_EQ(stage.port.facts, 1);
      EXPECT_FALSE(stage.port.held) << "no connection is left behind";
      EXPECT_FALSE(stage.port.timer(Timer::client) || stage.port.timer(Timer::upstream));
      const bool received = step != Step::store && step != Step::acquiring;
      EXPECT_EQ(stage.port.counted(), received ? 1U : 0U);
      EXPECT_EQ(stage.port.units, received ? 1U : 0U);
      EXPECT_LE(stage.port.given_back, 1);
    }
  }
}

TEST(Exchange, EventsAfterTheEndChangeNothing) {
  Stage stage;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.whole_reply();
  const std::string sent = stage.port.to_client;
  stage.exchange.on_client_gone();
  stage.exchange.on_upstream_failed(UpstreamFailure::invalid);
  stage.exchange.on_upstream_body("late");
  stage.exchange.on_timer(Timer::client);
  stage.exchange.on_timer(Timer::upstream);
  stage.exchange.on_client_writable();
  stage.exchange.stop();
  EXPECT_EQ(stage.port.facts, 1);
  EXPECT_EQ(stage.port.to_client, sent);
}

TEST(Exchange, AFollowedLifeTellsEachStepInOrderAndWhomItWaitedFor) {
  static MonotonicTime clock{Seconds(7)};
  std::vector<std::string> lines;
  const auto trail = std::make_shared<Trail>(TrailOrder{.request_id = "", .user = "ann", .tenant = ""}, clock,
                                             [&](std::string_view line) { lines.emplace_back(line); });
  Life life([] { return clock; }, clock, true, trail);
  Stage stage(two_servers());
  stage.life = &life;
  stage.port.defer_store = true;
  const Request request = read_case();
  stage.begin(request);
  auto passes = [&](int milliseconds) {
    life.pause(stage.exchange.waits_for());
    clock += Milliseconds(milliseconds);
  };
  passes(3);
  stage.port.answer_store();
  passes(10);
  stage.exchange.on_upstream_failed(UpstreamFailure::connect);
  passes(20);
  stage.upstream_ready();
  passes(40);
  stage.reply_head("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
  stage.exchange.on_upstream_body("ok");
  stage.exchange.on_upstream_end({}, true);
  passes(5);
  stage.port.flush_client();
  ASSERT_TRUE(stage.exchange.over());
  EXPECT_EQ(life.waited(Wait::store), Milliseconds(3));
  EXPECT_EQ(life.waited(Wait::upstream), Milliseconds(70));
  EXPECT_EQ(life.waited(Wait::client), Milliseconds(5));
  for (std::size_t i = 0; i < kPhaseCount; ++i) EXPECT_EQ(life.own(static_cast<Phase>(i)), Duration(0));
  EXPECT_THAT(lines,
              testing::ElementsAre(
                  HasSubstr("received GET \"/0/odata/Case\""), HasSubstr("authenticated as user \"ann\""),
                  HasSubstr("classified as objects: \"Case\" read"),
                  HasSubstr("allowed; charges: 1 to \"daily\""), HasSubstr("+3000us charge admitted"),
                  HasSubstr("attempt 1"), HasSubstr("+13000us upstream failed: no connection"),
                  HasSubstr("attempt 2"), HasSubstr("+33000us server 10.0.0.7:9000, new connection"),
                  HasSubstr("+73000us reply head 200"), HasSubstr("+78000us ended ok: status 200, 1 units")));
}

TEST(Exchange, RefusedRequestWithASmallBodyIsReadToItsEndAndTheConnectionGoesOn) {
  Stage stage;
  const Request request("PUT", "/0/odata/Case(1)", {}, std::string(50, 'b'));  // no token
  stage.begin(request);
  EXPECT_THAT(stage.port.to_client, HasSubstr("HTTP/1.1 401 "));
  EXPECT_THAT(stage.port.to_client, Not(HasSubstr("Connection: close")));
  stage.port.flush_client();
  EXPECT_FALSE(stage.exchange.over());
  stage.exchange.on_request_body(request.body());
  stage.exchange.on_request_end({});
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::keep);
  EXPECT_EQ(stage.port.facts, 1);
}

TEST(Exchange, RefusedRequestWithALargeBodyClosesTheConnection) {
  Stage stage;
  const Request request("PUT", "/0/odata/Case(1)", {}, std::string(kDiscardMax + 1, 'b'));
  stage.begin(request);
  EXPECT_THAT(stage.port.to_client, HasSubstr("Connection: close\r\n"));
  EXPECT_FALSE(stage.port.reads_client);
  stage.port.flush_client();
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::close);
}

TEST(Exchange, DrainingClosesAfterTheReply) {
  Stage stage;
  stage.port.is_draining = true;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  stage.whole_reply();
  EXPECT_THAT(stage.port.to_client, HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::close);
}

TEST(Exchange, RefusedHeadIsOneFactWithoutMethod) {
  Stage stage;
  Arrival arrival;
  arrival.snapshot = stage.snapshot;
  arrival.peer_address = "192.0.2.7";
  arrival.new_request_id = "made-request-id";
  stage.exchange.on_request_refused(arrival, {Reason::header_too_large, "The header section is too large."},
                                    false);
  stage.port.flush_client();
  EXPECT_EQ(stage.port.status, 431);
  EXPECT_EQ(stage.port.facts, 1);
  EXPECT_THAT(stage.port.to_client, HasSubstr("X-Request-Id: made-request-id\r\n"));
  EXPECT_EQ(stage.exchange.client_end(), ClientEnd::close);
}

TEST(Exchange, RefusedHeadOfAHeadRequestIsAnsweredWithoutContent) {
  Stage stage;
  Arrival arrival;
  arrival.snapshot = stage.snapshot;
  stage.exchange.on_request_refused(arrival, {Reason::bad_request, "no Host"}, true);
  stage.port.flush_client();
  EXPECT_THAT(stage.port.to_client,
              testing::AllOf(HasSubstr("\r\nContent-Length: "), testing::EndsWith("\r\n\r\n")));
}

TEST(Exchange, EndlessInterimRepliesAreInvalid) {
  Stage stage;
  const Request request = read_case();
  stage.begin(request);
  stage.upstream_ready();
  for (int i = 0; i < 40 && stage.exchange.active(); ++i)
    stage.reply_head("HTTP/1.1 103 Early Hints\r\n\r\n");
  stage.port.flush_client();
  EXPECT_EQ(stage.port.reason, Reason::upstream_invalid);
  EXPECT_EQ(stage.port.facts, 1);
}

}  // namespace
}  // namespace tollgate::flow
