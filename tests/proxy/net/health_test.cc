// Who is left out, for how long, and how it comes back. Time by hand.
#include "proxy/net/health.h"

#include <gtest/gtest.h>

namespace tollgate::net {
namespace {

using namespace std::chrono_literals;

config::Upstream upstream(std::size_t servers) {
  config::Upstream out;
  out.servers.resize(servers);
  out.outlier = {
      .failures = 3, .statuses = {}, .ejection = 10s, .ejection_max = 25s, .max_ejected_percent = 50};
  return out;
}

struct Clock {
  MonotonicTime now{1000s};
  std::uint32_t share(const PassiveHealth& health, std::size_t server,
                      MonotonicTime checked_up_since = {}) const {
    return health.share(server, now, checked_up_since);
  }
};

TEST(CheckCount, ThresholdsInARow) {
  CheckCount count(3, 2);
  EXPECT_FALSE(count.note(true));
  for (bool passed : {false, false, true, false, false}) EXPECT_FALSE(count.note(passed));
  EXPECT_TRUE(count.note(false));
  EXPECT_FALSE(count.up());
  for (bool passed : {true, false, true}) EXPECT_FALSE(count.note(passed));
  EXPECT_TRUE(count.note(true));
  EXPECT_TRUE(count.up());
}

TEST(CheckCount, TheFirstResultDecidesAtOnce) {
  CheckCount count(3, 2);
  EXPECT_TRUE(count.note(false));
  EXPECT_FALSE(count.up());
}

TEST(PassiveHealth, UnreachableIsTriedAgainByOneCallAfterGrowingPauses) {
  Clock clock;
  PassiveHealth health(upstream(2));
  EXPECT_TRUE(health.unreachable(0, clock.now));
  EXPECT_EQ(clock.share(health, 0), 0U);
  EXPECT_EQ(clock.share(health, 1), Balancer::kWhole);
  for (const auto pause : {1s, 2s, 4s, 8s, 10s, 10s}) {
    clock.now += pause - 1ms;
    EXPECT_EQ(clock.share(health, 0), 0U);
    clock.now += 1ms;
    EXPECT_EQ(clock.share(health, 0), Balancer::kWhole);
    health.chosen(0, clock.now, 2s);
    EXPECT_EQ(clock.share(health, 0), 0U) << "one call tries it, the others stay away";
    EXPECT_FALSE(health.unreachable(0, clock.now)) << "nothing new";
  }
  EXPECT_TRUE(health.reached(0, clock.now));
  EXPECT_EQ(clock.share(health, 0), Balancer::kWhole);
  EXPECT_FALSE(health.reached(0, clock.now));
}

TEST(PassiveHealth, FailuresInARowEjectForLongerEachTime) {
  Clock clock;
  PassiveHealth health(upstream(2));
  auto fail_until_ejected = [&] {
    int failures = 1;
    while (!health.failed(0, clock.now)) ++failures;
    return failures;
  };
  health.failed(0, clock.now), health.failed(0, clock.now);
  health.answered(0);
  for (const auto length : {10s, 20s, 25s, 25s}) {
    EXPECT_EQ(fail_until_ejected(), 3);
    EXPECT_TRUE(health.is_ejected(0, clock.now));
    EXPECT_FALSE(health.failed(0, clock.now)) << "calls that were under way change nothing";
    clock.now += length - 1ms;
    EXPECT_EQ(clock.share(health, 0), 0U);
    clock.now += 1ms;
    EXPECT_EQ(clock.share(health, 0), Balancer::kWhole);
  }
  clock.now += 26s;  // in peace
  EXPECT_EQ(fail_until_ejected(), 3);
  EXPECT_EQ(health.ejected_until(0), clock.now + 10s);
}

TEST(PassiveHealth, NeverMoreThanTheShareIsEjected) {
  Clock clock;
  PassiveHealth one(upstream(1)), five(upstream(5));
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(one.failed(0, clock.now)) << "the only server stays";
  int ejected = 0;
  for (std::size_t server = 0; server < 5; ++server)
    for (int i = 0; i < 3; ++i) ejected += five.failed(server, clock.now);
  EXPECT_EQ(ejected, 2);
  clock.now += 10s;
  EXPECT_TRUE(five.failed(4, clock.now)) << "room again: the next failure counts";
}

TEST(PassiveHealth, WithoutAThresholdNobodyIsEjected) {
  config::Upstream settings = upstream(4);
  settings.outlier.failures = 0;
  PassiveHealth health(settings);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(health.failed(0, MonotonicTime(1s)));
}

TEST(PassiveHealth, WhoComesBackWarmsUp) {
  Clock clock;
  config::Upstream settings = upstream(2);
  settings.slow_start = 20s;
  PassiveHealth health(settings);
  EXPECT_EQ(clock.share(health, 0), Balancer::kWhole) << "nobody warms up at the start";
  for (int i = 0; i < 3; ++i) health.failed(0, clock.now);
  clock.now += 10s;
  EXPECT_EQ(clock.share(health, 0), Balancer::kWhole / 10);
  clock.now += 10s;
  EXPECT_EQ(clock.share(health, 0), Balancer::kWhole / 2);
  clock.now += 10s;
  EXPECT_EQ(clock.share(health, 0), Balancer::kWhole);
  // From connecting, and from health checks.
  health.unreachable(1, clock.now);
  clock.now += 5s;
  health.reached(1, clock.now);
  EXPECT_EQ(clock.share(health, 1), Balancer::kWhole / 10);
  EXPECT_EQ(clock.share(health, 0, clock.now - 5s), Balancer::kWhole / 4);
}

TEST(RetryBudget, IsAShareOfTheCallsAndOneASecond) {
  MonotonicTime now{5s};
  RetryBudget budget(20);
  int taken = 0;
  while (budget.take(now)) ++taken;
  EXPECT_EQ(taken, 10) << "to begin with";
  for (int i = 0; i < 50; ++i) budget.call();
  for (taken = 0; budget.take(now);) ++taken;
  EXPECT_EQ(taken, 10);
  now += 3500ms;
  for (taken = 0; budget.take(now);) ++taken;
  EXPECT_EQ(taken, 3);
  now += 500ms;
  EXPECT_TRUE(budget.take(now)) << "the half second is not lost";
  for (int i = 0; i < 100'000; ++i) budget.call();
  for (taken = 0; budget.take(now);) ++taken;
  EXPECT_EQ(taken, 100) << "a storm after a long peace is bounded";
}

TEST(RetryBudget, NoneIsNone) {
  RetryBudget budget(0);
  EXPECT_FALSE(budget.take(MonotonicTime(100s)));
}

}  // namespace
}  // namespace tollgate::net
