#include "proxy/net/pace.h"

#include <gtest/gtest.h>

namespace tollgate::net {
namespace {

constexpr PaceRules kRules{240, Milliseconds(10'000)};
MonotonicTime at(double seconds) {
  return MonotonicTime(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds)));
}

// The second at which a client that moves `rate` bytes a second is found out, looked at each second; 0: never.
int found_out(double rate, int seconds) {
  Pace pace;
  for (int second = 1; second <= seconds; ++second)
    if (pace.too_slow(kRules, static_cast<std::uint64_t>(rate * second), at(second))) return second;
  return 0;
}

TEST(Pace, WhoIsAtTheFloorStaysForEver) {
  EXPECT_EQ(found_out(241, 10'000), 0);
}
TEST(Pace, WhoIsBelowIsFoundOutAfterOneWindow) {
  EXPECT_EQ(found_out(230, 100), 11);
  EXPECT_EQ(found_out(0, 100), 11);
}
TEST(Pace, WhoBecomesSlowIsFoundOutWithinTwoWindows) {
  Pace pace;
  std::uint64_t bytes = 0;
  int slow_at = 0;
  for (int second = 1; second <= 60 && slow_at == 0; ++second) {
    bytes += second <= 25 ? 100'000 : 1;
    if (pace.too_slow(kRules, bytes, at(second))) slow_at = second;
  }
  EXPECT_GT(slow_at, 25);
  EXPECT_LE(slow_at, 25 + 20 + 1);
}
TEST(Pace, TimeInWhichNobodyWaitsDoesNotCount) {
  Pace pace;
  for (int second = 1; second <= 1'000; ++second) {
    if (second % 8 == 0)
      pace.forget();
    else
      EXPECT_FALSE(pace.too_slow(kRules, 0, at(second)));
  }
}
TEST(Pace, WithoutAFloorNobodyIsSlow) {
  Pace pace;
  for (int second = 1; second <= 100; ++second)
    EXPECT_FALSE(pace.too_slow({0, Milliseconds(1'000)}, 0, at(second)));
}

}  // namespace
}  // namespace tollgate::net
