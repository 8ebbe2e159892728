#include "proxy/net/timer_queue.h"

#include <gtest/gtest.h>

#include <deque>

#include "metering/base/random.h"

namespace tollgate::net {
namespace {

struct Fired {
  LoopTimer timer;
  int count = 0;
  Fired() {
    timer.bind(this, [](void* self) { ++static_cast<Fired*>(self)->count; });
  }
};
MonotonicTime at(int ms) {
  return MonotonicTime(Milliseconds(ms));
}

TEST(TimerQueue, FiresAtItsMomentAndOnce) {
  TimerQueue queue;
  Fired one;
  queue.set(one.timer, at(10));
  queue.expire(at(9));
  EXPECT_EQ(one.count, 0);
  queue.expire(at(10));
  queue.expire(at(11));
  EXPECT_EQ(one.count, 1);
  EXPECT_FALSE(one.timer.armed());
}

TEST(TimerQueue, LaterMomentReplacesTheEarlierOne) {
  TimerQueue queue;
  Fired one;
  queue.set(one.timer, at(10));
  queue.set(one.timer, at(30));
  queue.expire(at(20));
  EXPECT_EQ(one.count, 0);
  EXPECT_EQ(queue.next(), at(30));
  queue.expire(at(30));
  EXPECT_EQ(one.count, 1);
}

TEST(TimerQueue, EarlierMomentReplacesTheLaterOne) {
  TimerQueue queue;
  Fired one;
  queue.set(one.timer, at(30));
  queue.set(one.timer, at(10));
  queue.expire(at(10));
  EXPECT_EQ(one.count, 1);
  queue.expire(at(40));
  EXPECT_EQ(one.count, 1);
}

TEST(TimerQueue, ClearedTimerDoesNotFireAndMayBeSetAgain) {
  TimerQueue queue;
  Fired one;
  queue.set(one.timer, at(10));
  queue.clear(one.timer);
  queue.expire(at(20));
  EXPECT_EQ(one.count, 0);
  queue.set(one.timer, at(25));
  queue.expire(at(25));
  EXPECT_EQ(one.count, 1);
}

TEST(TimerQueue, DestroyedTimerIsForgotten) {
  TimerQueue queue;
  Fired kept;
  {
    Fired gone;
    queue.set(gone.timer, at(5));
    queue.set(kept.timer, at(6));
  }
  queue.expire(at(10));
  EXPECT_EQ(kept.count, 1);
}

TEST(TimerQueue, AgreesWithAPlainListOfMoments) {
  const std::uint64_t seed = 20261122;
  SCOPED_TRACE(seed);
  Random random(seed);
  TimerQueue queue;
  std::deque<Fired> timers(50);
  std::vector<int> due(50, -1), expected(50, 0);
  for (int now = 0; now < 2'000; ++now) {
    for (int change = 0; change < 5; ++change) {
      const auto i = static_cast<std::size_t>(random.below(50));
      if (random.one_in(4)) {
        queue.clear(timers[i].timer);
        due[i] = -1;
      } else {
        due[i] = now + 1 + static_cast<int>(random.below(100));
        queue.set(timers[i].timer, at(due[i]));
      }
    }
    queue.expire(at(now));
    for (std::size_t i = 0; i < 50; ++i) {
      if (due[i] >= 0 && due[i] <= now) {
        ++expected[i];
        due[i] = -1;
      }
      ASSERT_EQ(timers[i].count, expected[i]) << "timer " << i << " at " << now;
    }
  }
}

}  // namespace
}  // namespace tollgate::net
