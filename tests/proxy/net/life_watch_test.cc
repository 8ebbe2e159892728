#include "proxy/net/life_watch.h"

#include <gtest/gtest.h>

namespace tollgate::net {
namespace {

MonotonicTime no_clock() {
  return MonotonicTime(Seconds(100));
}

TEST(LifeWatch, WatchesOneRequestInKSampleAtIrregularDistances) {
  LifeWatch watch(7);
  std::vector<int> distances;
  int last = 0;
  constexpr int kRequests = 400'000;
  for (int i = 0; i < kRequests; ++i) {
    if (!watch.due()) {
      watch.pass();
      continue;
    }
    EXPECT_TRUE(watch.begin(&no_clock, no_clock())->sampled());
    distances.push_back(i - last);
    last = i;
  }
  const double expected = kRequests / static_cast<double>(LifeWatch::kSample);
  EXPECT_GT(static_cast<double>(distances.size()), 0.9 * expected);
  EXPECT_LT(static_cast<double>(distances.size()), 1.1 * expected);
  std::sort(distances.begin(), distances.end());
  EXPECT_LT(distances.front(), 10);
  EXPECT_GT(distances.back(), 200);
}

TEST(LifeWatch, WatchesEveryRequestWhileATrailLastsAndSamplesNoMoreForIt) {
  LifeWatch watch(7);
  const auto trail = std::make_shared<flow::Trail>(
      flow::TrailOrder{.request_id = "", .user = "ann", .tenant = "", .time = Seconds(60)}, no_clock(),
      [](std::string_view) {});
  watch.follow(trail);
  int sampled = 0;
  for (int i = 0; i < 12'800; ++i) {
    ASSERT_TRUE(watch.due());
    sampled += watch.begin(&no_clock, no_clock())->sampled() ? 1 : 0;
  }
  EXPECT_GT(sampled, 60);
  EXPECT_LT(sampled, 160);
  int due = 0;
  for (int i = 0; i < 1'000; ++i) {
    if (watch.due()) {
      ++due;
      watch.begin(&no_clock, no_clock() + Seconds(60));  // its time is over
    } else {
      watch.pass();
    }
  }
  EXPECT_LT(due, 40) << "who is not followed any more costs nothing any more";
}

}  // namespace
}  // namespace tollgate::net
