// Seats, as an exchange sees them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/flow/support/stage.h"

namespace tollgate::flow {
namespace {

using test::Request;
using test::Stage;
using test::token;
using test::with_token;
using testing::HasSubstr;
using testing::StartsWith;

config::Settings forty_at_once() {
  config::Settings settings = test::settings();
  settings.licensing.concurrent_seats.capacity = 40;
  return settings;
}

TEST(ExchangeSeats, KnownHolderGoesOnAtOnceAndWhoIsAskedForWaits) {
  Stage stage(forty_at_once());
  const Request read = with_token("GET", "/0/odata/Case", token());
  stage.begin(read);
  EXPECT_EQ(stage.port.acquired, 1);
  EXPECT_EQ(stage.port.counted(), 1U);

  Stage waiting(forty_at_once());
  waiting.port.seat.reset();
  waiting.begin(read);
  EXPECT_THAT(waiting.port.seats_asked, testing::ElementsAre("concurrent"));
  EXPECT_TRUE(waiting.exchange.awaits_store());
  EXPECT_EQ(waiting.port.counted(), 0U) << "the seat comes first";
  waiting.port.clock += Milliseconds(3);
  waiting.exchange.on_seat({.status = seats::Outcome::Status::held, .taken = true});
  EXPECT_EQ(waiting.port.acquired, 1);
  EXPECT_EQ(waiting.port.counted(), 1U);
}

TEST(ExchangeSeats, RefusedSeatIsAReplyThatCostsNothing) {
  Stage stage(forty_at_once());
  stage.port.seat = seats::Outcome{.status = seats::Outcome::Status::full, .retry_after = Seconds(5)};
  const Request read = with_token("GET", "/0/odata/Case", token());
  stage.begin(read);
  EXPECT_THAT(stage.port.to_client, StartsWith("HTTP/1.1 429 "));
  EXPECT_THAT(stage.port.to_client, HasSubstr("Retry-After: 5\r\n"));
  stage.port.flush_client();
  EXPECT_EQ(stage.port.facts, 1);
  EXPECT_EQ(stage.port.reason, Reason::concurrent_licenses_exhausted);
  EXPECT_EQ(stage.port.counted(), 0U);
}

TEST(ExchangeSeats, ClientThatLeavesWhileItsSeatIsAskedForEndsOnceAndUncharged) {
  const Request read = with_token("GET", "/0/odata/Case", token());
  for (const bool stops : {false, true}) {
    Stage stage(forty_at_once());
    stage.port.seat.reset();
    stage.begin(read);
    stage.exchange.on_client_gone();
    EXPECT_EQ(stage.port.facts, 0) << "the answer is still to come";
    if (stops) stage.exchange.stop();
    stage.exchange.on_seat({.status = seats::Outcome::Status::held});
    EXPECT_TRUE(stage.exchange.over());
    EXPECT_EQ(stage.port.facts, 1);
    EXPECT_EQ(stage.port.reason, Reason::client_closed);
    EXPECT_EQ(stage.port.acquired, 0);
    EXPECT_EQ(stage.port.counted(), 0U);
  }
}

}  // namespace
}  // namespace tollgate::flow
