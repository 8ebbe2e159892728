#include "metering/quota/store_clock.h"

#include <gtest/gtest.h>

#include <thread>

#include "metering/base/random.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;

MonotonicTime at(Duration since) {
  return MonotonicTime(1'000s + since);
}

TEST(StoreClock, KnowsNothingBeforeTheFirstReply) {
  StoreClock clock;
  EXPECT_FALSE(clock.known());
  EXPECT_EQ(clock.hi_if_known(at(0s)), std::nullopt);
  clock.observe(1'700'000'000'000ms, at(0ms), at(2ms));
  EXPECT_TRUE(clock.known());
  clock.reset();
  EXPECT_FALSE(clock.known());
}

TEST(StoreClock, OneReplyBoundsTheTimeFromBothSides) {
  StoreClock clock;
  clock.observe(1'700'000'000'000ms, at(0ms), at(10ms));
  EXPECT_EQ(clock.lo(at(10ms)), 1'699'999'999'999ms);  // one drift unit below the told moment, rounded down
  EXPECT_EQ(clock.hi(at(10ms)),
            1'700'000'000'012ms);  // told, cut-off millisecond, ten of travel, drift rounded up
  EXPECT_GE(clock.estimate(at(10ms)), clock.lo(at(10ms)));
  EXPECT_LE(clock.estimate(at(10ms)), clock.hi(at(10ms)));
  // 200 ppm of an hour are 720 ms.
  EXPECT_GE(clock.hi(at(1h)), 1'700'003'600'000ms + 720ms);
  EXPECT_LE(clock.hi(at(1h)), 1'700'003'600'000ms + 723ms);
  EXPECT_LE(clock.lo(at(1h)), 1'700'003'600'000ms - 730ms);
  // Asked for an earlier moment, as another thread may.
  EXPECT_LE(clock.lo(at(5ms)), 1'699'999'999'995ms);
  EXPECT_GE(clock.hi(at(5ms)), 1'700'000'000'000ms);
}

TEST(StoreClock, AlwaysHoldsTheTruthWhateverTheDriftAndTheDelays) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    Random random(seed);
    const double rate = 1.0 + (static_cast<double>(random.below(399)) - 199.0) / 1e6;
    const auto truth = [&](MonotonicTime t) {  // ns of the store
      return 1.7e18 + static_cast<double>((t - at(0s)).count()) * rate;
    };
    StoreClock clock;
    MonotonicTime now = at(0s);
    for (int step = 0; step < 200; ++step) {
      now += Duration(static_cast<std::int64_t>(random.below(20'000'000'000)));
      const MonotonicTime sent = now;
      const MonotonicTime read = sent + Duration(static_cast<std::int64_t>(random.below(50'000'000)));
      now = read + Duration(static_cast<std::int64_t>(random.below(50'000'000)));
      clock.observe(Milliseconds(static_cast<std::int64_t>(truth(read) / 1e6)), sent, now);
      ASSERT_EQ(clock.disagreement(), 0ms) << "seed " << seed;
      const MonotonicTime asked = now + Duration(static_cast<std::int64_t>(random.below(5'000'000'000)));
      const double exact = truth(asked) / 1e6;
      ASSERT_GE(static_cast<double>(clock.hi(asked).count()), exact - 0.001) << "seed " << seed;
      ASSERT_LE(static_cast<double>(clock.lo(asked).count()), exact + 0.001) << "seed " << seed;
      ASSERT_LE(clock.hi(asked) - clock.lo(asked), 120ms);
    }
  }
}

TEST(StoreClock, ASteppedStoreClockIsReportedAndNotBelieved) {
  StoreClock clock;
  clock.observe(1'700'000'000'000ms, at(0ms), at(2ms));
  const Milliseconds before = clock.hi(at(1s));
  clock.observe(1'700'000'010'000ms, at(1s), at(1s + 2ms));
  EXPECT_GE(clock.disagreement(), 8'900ms);
  EXPECT_LE(clock.disagreement(), 9'000ms);
  EXPECT_EQ(clock.hi(at(1s)), before);
  clock.observe(1'699'999'000'000ms, at(2s), at(2s + 2ms));
  EXPECT_LE(clock.disagreement(), -1'000'000ms);
  clock.observe(1'700'000'003'000ms, at(3s), at(3s + 2ms));
  EXPECT_EQ(clock.disagreement(), 0ms);
  clock.reset();
  clock.observe(1'600'000'000'000ms, at(4s), at(4s));
  EXPECT_EQ(clock.disagreement(), 0ms);
  EXPECT_LE(clock.hi(at(4s)), 1'600'000'000'003ms);
}

TEST(StoreClock, StoreThatIsALittleAheadIsBelievedAtOnce) {
  StoreClock clock;
  clock.observe(1'700'000'000'000ms, at(0ms), at(2ms));
  clock.observe(1'700'000'001'090ms, at(1s), at(1s + 2ms));
  EXPECT_EQ(clock.disagreement(), 0ms);
  EXPECT_GE(clock.hi(at(1s + 2ms)), 1'700'000'001'090ms);
  EXPECT_LE(clock.hi(at(1s + 2ms)) - clock.lo(at(1s + 2ms)), 5ms);
}

TEST(StoreClock, StoreThatIsALittleBehindIsBelievedWhenItSaysSoAgainASecondLater) {
  StoreClock clock;
  clock.observe(1'700'000'000'000ms, at(0ms), at(2ms));
  for (const Duration since : {1'000ms, 1'500ms, 1'990ms}) {
    clock.observe(1'699'999'999'910ms + std::chrono::floor<Milliseconds>(since), at(since), at(since + 2ms));
    EXPECT_GE(clock.hi(at(since)), 1'700'000'000'000ms + std::chrono::floor<Milliseconds>(since));
    EXPECT_LT(clock.disagreement(), -80ms);
  }
  clock.observe(1'700'000'001'970ms, at(2'060ms), at(2'062ms));
  EXPECT_EQ(clock.disagreement(), 0ms);
  EXPECT_LE(clock.hi(at(2'062ms)), 1'700'000'001'975ms);
}

TEST(StoreClock, TimeThatStandsStillIsNotBelievedHoweverOftenItIsTold) {
  StoreClock clock;
  clock.observe(1'700'000'000'000ms, at(0ms), at(2ms));
  for (Duration since{0}; since < 1'900ms; since += 10ms) {
    clock.observe(1'700'000'000'000ms, at(since), at(since + 2ms));
    EXPECT_GE(clock.hi(at(since + 2ms)), 1'700'000'000'000ms + std::chrono::floor<Milliseconds>(since));
  }
}

// Ever since another server answered, whose clock is ahead, our interval must not have grown: the time that stands still
// lies in it then.
TEST(StoreClock, TimeThatStandsStillIsNotBelievedEitherAfterAnotherServerWasALittleAhead) {
  StoreClock clock;
  clock.observe(1'700'000'000'000ms, at(0ms), at(2ms));
  // Ours is slow by 150 ppm: the interval does not reach what is told by its own growth.
  auto told = [](Duration since) {
    return 1'700'000'000'090ms + std::chrono::floor<Milliseconds>(since * 1'000'150 / 1'000'000);
  };
  for (Duration since{0s}; since <= 600s; since += 400ms)
    clock.observe(told(since), at(since), at(since + 2ms));
  clock.observe(told(600s), at(600'200ms), at(600'202ms));
  EXPECT_GE(clock.hi(at(600'202ms)), told(600'200ms));
}

TEST(StoreClock, ReadersSeeOneIntervalOrTheOtherNeverAMixture) {
  // Two facts that contradict each other by far: a mixture would have its upper bound below the lower one.
  StoreClock clock;
  std::atomic<bool> stop{false};
  std::atomic<int> mixed{0};
  std::thread reader([&] {
    while (!stop.load()) {
      const auto hi = clock.hi_if_known(at(0s));
      if (hi && *hi != 1'002ms && *hi != 5'000'002ms) ++mixed;
    }
  });
  for (int i = 0; i < 100'000; ++i) {
    clock.reset();
    clock.observe(i % 2 == 0 ? 1'000ms : 5'000'000ms, at(0s), at(0s));
  }
  stop = true;
  reader.join();
  EXPECT_EQ(mixed, 0);
}

}  // namespace
}  // namespace tollgate::quota
