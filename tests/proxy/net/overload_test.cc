#include "proxy/net/overload.h"

#include <gtest/gtest.h>

namespace tollgate::net {
namespace {

using flow::Shed;
constexpr OverloadRules kRules{Milliseconds(250), 1'000'000'000};

struct Loop {
  Overload overload;
  MonotonicTime now{Seconds(10)};
  // For `span` the timer comes `lag` late each time.
  void run(Milliseconds lag, Milliseconds span) {
    const MonotonicTime until = now + span;
    while (now < until) {
      now += Milliseconds(100) + lag;
      overload.observe_lag(kRules, lag, now);
    }
  }
};

TEST(Overload, ALoopInTimeTurnsNobodyAway) {
  Loop loop;
  loop.run(Milliseconds(20), Seconds(60));
  EXPECT_EQ(loop.overload.level(), Shed::nothing);
}
TEST(Overload, OneLateTurnIsNoOverload) {
  Loop loop;
  for (int i = 0; i < 50; ++i) {
    loop.run(Milliseconds(1), Milliseconds(900));
    loop.run(Milliseconds(30'000), Milliseconds(1));
    EXPECT_EQ(loop.overload.level(), Shed::nothing);
  }
}
TEST(Overload, AnonymousRequestsGoBeforeAllOthers) {
  Loop loop;
  loop.run(Milliseconds(300), Seconds(3));
  EXPECT_EQ(loop.overload.level(), Shed::anonymous);
  loop.run(Milliseconds(1'100), Seconds(8));
  EXPECT_EQ(loop.overload.level(), Shed::everything);
}
TEST(Overload, ItEndsStepByStep) {
  Loop loop;
  loop.run(Milliseconds(1'100), Seconds(8));
  ASSERT_EQ(loop.overload.level(), Shed::everything);
  loop.run(Milliseconds(600), Seconds(5));
  EXPECT_EQ(loop.overload.level(), Shed::everything);  // not below twice the bound yet
  loop.run(Milliseconds(300), Seconds(3));
  EXPECT_EQ(loop.overload.level(), Shed::anonymous);
  loop.run(Milliseconds(200), Seconds(5));
  EXPECT_EQ(loop.overload.level(), Shed::anonymous);  // not below half of it yet
  loop.run(Milliseconds(50), Seconds(3));
  EXPECT_EQ(loop.overload.level(), Shed::nothing);
}
TEST(Overload, ABoundOfZeroIsNone) {
  Overload overload;
  const OverloadRules off{Milliseconds(0), 0};
  for (int i = 1; i < 100; ++i) {
    overload.observe_lag(off, Seconds(5), MonotonicTime(Seconds(5 * i)));
    overload.observe_memory(off, ~std::uint64_t{0});
  }
  EXPECT_EQ(overload.level(), Shed::nothing);
}
TEST(Overload, MemoryHasItsOwnBounds) {
  Overload overload;
  auto level = [&](std::uint64_t megabytes) {
    overload.observe_memory(kRules, megabytes * 1'000'000);
    return overload.level();
  };
  EXPECT_EQ(level(890), Shed::nothing);
  EXPECT_EQ(level(910), Shed::anonymous);
  EXPECT_EQ(level(1'010), Shed::everything);
  EXPECT_EQ(level(960), Shed::everything);
  EXPECT_EQ(level(940), Shed::anonymous);
  EXPECT_EQ(level(860), Shed::anonymous);
  EXPECT_EQ(level(840), Shed::nothing);
}
TEST(Overload, TheSystemSaysWhatThereIs) {
  EXPECT_GT(private_memory(), 100'000U);
  EXPECT_LT(private_memory(), memory_allowed());
}

}  // namespace
}  // namespace tollgate::net
