#include "proxy/flow/life.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proxy/flow/call.h"
#include "proxy/http/message.h"

namespace tollgate::flow {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

MonotonicTime at{Seconds(100)};
MonotonicTime clock_by_hand() {
  return at;
}
void passes(int microseconds) {
  at += std::chrono::microseconds(microseconds);
}
Duration us(int count) {
  return std::chrono::microseconds(count);
}

class LifeTest : public testing::Test {
 protected:
  std::shared_ptr<Trail> trail(TrailOrder order) {
    return std::make_shared<Trail>(std::move(order), at,
                                   [this](std::string_view line) { lines_.emplace_back(line); });
  }
  // A call of this user up to its end.
  void live(const std::shared_ptr<Trail>& followed, std::string id, std::string user,
            std::string tenant = "acme") {
    Life life(&clock_by_hand, at, false, followed);
    Call call;
    call.request_id = std::move(id);
    call.client_address = "203.0.113.9";
    http::RequestHead head;
    head.method = "GET";
    head.path = "/0/odata/Case";
    life.arrived(call, &head);
    auto token = std::make_shared<identity::VerifiedToken>();
    token->principal.user = std::move(user);
    token->principal.tenant = std::move(tenant);
    call.token = token;
    passes(5);
    life.authenticated(call);
    usage::Fact fact;
    fact.status = 200;
    life.ended(fact);
  }
  std::vector<std::string> lines_;
};

TEST_F(LifeTest, TimeBelongsToThePhaseThatEndsAndWaitingToNone) {
  Life life(&clock_by_hand, at, true, nullptr);
  passes(3);
  life.enter(Phase::authenticate);
  passes(2);
  life.enter(Phase::forward);
  passes(7);
  life.pause(Wait::upstream);
  passes(1'000);
  life.resume();
  passes(4);  // what came is the upstream's reply
  life.enter(Phase::relay);
  passes(5);
  life.pause(Wait::client);
  passes(50);
  life.enter(Phase::record);
  passes(6);
  life.ended({});
  EXPECT_EQ(life.own(Phase::read), us(3));
  EXPECT_EQ(life.own(Phase::authenticate), us(2));
  EXPECT_EQ(life.own(Phase::classify), us(0));
  EXPECT_EQ(life.own(Phase::forward), us(7));
  EXPECT_EQ(life.own(Phase::relay), us(9));
  EXPECT_EQ(life.own(Phase::record), us(6));
  EXPECT_EQ(life.waited(Wait::upstream), us(1'000));
  EXPECT_EQ(life.waited(Wait::client), us(50));
  EXPECT_EQ(life.waited(Wait::store), us(0));
}

TEST_F(LifeTest, AUserIsFollowedFromTheFirstStepOnAndOthersAreNot) {
  const auto followed = trail({.request_id = "", .user = "ann", .tenant = "acme"});
  live(followed, "id-1", "ann");
  live(followed, "id-2", "bob");
  live(followed, "id-3", "ann", "other");
  EXPECT_THAT(lines_, ElementsAre("trace id-1 +0us received GET \"/0/odata/Case\" from 203.0.113.9",
                                  HasSubstr("trace id-1 +5us authenticated as user \"ann\" tenant \"acme\""),
                                  HasSubstr("trace id-1 +5us ended ok: status 200")));
}

TEST_F(LifeTest, ARequestIsFollowedByItsId) {
  const auto followed = trail({.request_id = "id-2", .user = ""});
  live(followed, "id-1", "ann");
  EXPECT_THAT(lines_, IsEmpty());
  live(followed, "id-2", "bob");
  EXPECT_EQ(lines_.size(), 3U);
}

TEST_F(LifeTest, ATrailEndsWithItsTimeEvenInTheMiddleOfARequest) {
  const auto followed = trail({.request_id = "id-1", .user = "", .tenant = "", .time = Milliseconds(1)});
  Life life(&clock_by_hand, at, false, followed);
  Call call;
  call.request_id = "id-1";
  life.arrived(call, nullptr);
  EXPECT_EQ(lines_.size(), 1U);
  passes(1'000);
  life.answers(400);
  EXPECT_EQ(lines_.size(), 1U);
  EXPECT_TRUE(followed->over(at));
}

TEST_F(LifeTest, ATrailEndsWithItsLinesAndSaysSo) {
  const auto followed =
      trail({.request_id = "", .user = "ann", .tenant = "", .time = Seconds(60), .lines = 4});
  for (int i = 0; i < 5; ++i) live(followed, "id", "ann");
  EXPECT_EQ(lines_.size(), 5U);
  EXPECT_THAT(lines_.back(), HasSubstr("trace ended"));
  EXPECT_TRUE(followed->over(at));
}

TEST_F(LifeTest, ALineStaysOneLineWhateverTheNamesAre) {
  live(trail({.request_id = "id-1", .user = ""}), "id-1", "ann\nforged \"line\"");
  ASSERT_EQ(lines_.size(), 3U);
  for (const std::string& line : lines_) EXPECT_EQ(line.find('\n'), std::string::npos) << line;
}

}  // namespace
}  // namespace tollgate::flow
