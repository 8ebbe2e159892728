// What the lease engine does when messages, servers, journals and processes fail.
#include <deque>

#include "metering/base/random.h"
#include "tests/metering/quota/lease_rig.h"

namespace tollgate::quota {
namespace {

using Answer = LeaseEngine::Answer;
using State = LeaseEngine::PartitionStatus::State;
using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

void drain(World& world) {
  for (auto& proxy : world.proxies) {
    bool settled = false;
    proxy->engine->drain(world.now, [&](bool all) { settled = all; });
    world.advance(seconds(5));
    EXPECT_TRUE(settled);
    EXPECT_TRUE(proxy->engine->idle());
  }
}

// Uses one more unit and reports it.
void use_and_settle(Proxy& proxy, std::uint64_t limit, std::uint32_t units = 1) {
  EXPECT_TRUE(proxy.call(proxy.account(), limit, units));
  proxy.engine->settle(kAnn, false, proxy.world.now, [](bool) {});
  proxy.world.run();
}

std::size_t sent(const Proxy& proxy, Proxy::Kind kind) {
  return static_cast<std::size_t>(
      std::ranges::count_if(proxy.history, [&](const auto& message) { return message.kind == kind; }));
}

TEST(LeaseEngineFailure, LostReplyIsFoundOutByTheRepeatedOp) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  world.advance(minutes(1), seconds(10));
  proxy.engine->settle(kAnn, true, world.now, [](bool) {});
  proxy.drop_replies = 1;
  world.advance(seconds(3));
  EXPECT_EQ(proxy.engine->counters().resent, 1U);
  EXPECT_EQ(proxy.engine->status(kOfAnn).unacknowledged, 0U);
  EXPECT_EQ(world.sums().used, 1U);
  EXPECT_EQ(world.sums().lent, 0U);
}

TEST(LeaseEngineFailure, GrantWhoseReplyWasLostIsUsable) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 8, 8));
  world.advance(hours(25), minutes(1));
  const AccountRef again = proxy.account();
  proxy.ask(again, 8, 8);
  proxy.drop_replies = 1;
  world.advance(seconds(3));
  EXPECT_EQ(again->cell->outstanding(), world.sums().lent);
  EXPECT_TRUE(proxy.call(again, 8, 8));
}

TEST(LeaseEngineFailure, GhostsOfADeadConnectionChangeNothing) {
  World world;
  Proxy& proxy = world.add();
  use_and_settle(proxy, 100);
  use_and_settle(proxy, 100);
  const auto before = world.sums();
  for (const auto& message : std::vector(proxy.history)) {
    proxy.arrive(message, true);
    proxy.arrive(message, false);
  }
  world.advance(seconds(10));
  EXPECT_EQ(world.sums().used, before.used);
  EXPECT_EQ(world.sums().lent, before.lent);
  EXPECT_EQ(proxy.account()->cell->outstanding(), before.lent);
}

TEST(LeaseEngineFailure, SwallowedMessagesAreSentAgain) {
  World world;
  Proxy& proxy = world.add();
  EXPECT_TRUE(proxy.call(proxy.account(), 100));
  proxy.hold = true;
  proxy.engine->settle(kAnn, true, world.now, [](bool) {});
  proxy.wire.clear();
  proxy.hold = false;
  world.advance(seconds(8));
  EXPECT_EQ(world.sums().used, 1U);
  EXPECT_TRUE(proxy.engine->idle());
}

TEST(LeaseEngineFailure, StoreThatForgotTheLastOpsIsToldThemAgain) {
  World world;
  Proxy& proxy = world.add();
  use_and_settle(proxy, 1'000);
  const StoreModel old = world.store;
  use_and_settle(proxy, 1'000, 3);
  use_and_settle(proxy, 1'000, 2);
  const auto truth = world.sums();
  world.store = old;
  world.run_id = "run-2";
  proxy.down();
  proxy.up();
  world.advance(seconds(3));
  EXPECT_EQ(proxy.engine->status(kOfAnn).state, State::open);
  EXPECT_GT(proxy.engine->counters().replays, 0U);
  EXPECT_EQ(world.sums().used, truth.used);
  EXPECT_EQ(world.sums().lent, truth.lent);
  drain(world);
  EXPECT_EQ(world.sums().used, 6U);
}

TEST(LeaseEngineFailure, FlushUnderARunningServerIsNoticedByAGapAndRepaired) {
  World world;
  Proxy& proxy = world.add();
  for (int i = 0; i < 5; ++i) use_and_settle(proxy, 1'000);
  world.store.flush();
  use_and_settle(proxy, 1'000);
  world.advance(seconds(3));
  EXPECT_EQ(proxy.engine->counters().gaps, 1U);
  drain(world);
  EXPECT_EQ(world.sums().used, 6U);
  EXPECT_EQ(world.sums().lent, 0U);
}

TEST(LeaseEngineFailure, LongReplayGoesInBatches) {
  World world;
  Proxy& proxy = world.add();
  for (int i = 0; i < 600; ++i) use_and_settle(proxy, 10'000);
  proxy.down();
  world.store.flush();
  world.run_id = "run-2";
  proxy.hold = true;
  proxy.up();
  proxy.hold = false;
  ASSERT_TRUE(proxy.deliver());  // the ping
  EXPECT_LE(proxy.wire.size(), 256U);
  world.advance(seconds(3));
  drain(world);
  EXPECT_EQ(world.sums().used, 600U);
}

TEST(LeaseEngineFailure, JournalThatNoLongerKeepsOldOpsStartsWithABase) {
  World world;
  Proxy& proxy = world.add();
  for (int i = 0; i < 10; ++i) use_and_settle(proxy, 1'000);
  proxy.log.dropped_below = 6;
  world.store.flush();
  proxy.down();
  proxy.up();
  world.advance(seconds(3));
  EXPECT_EQ(proxy.engine->status(kOfAnn).state, State::open);
  EXPECT_GT(world.sums().used, 0U);
  EXPECT_LT(world.sums().used, 10U);
  proxy.log.dropped_below = 1'000'000;
  world.store.flush();
  proxy.down();
  proxy.up();
  world.advance(seconds(3));
  EXPECT_EQ(proxy.engine->status(kOfAnn).state, State::open);
  EXPECT_TRUE(proxy.call(proxy.account(), 1'000));
}

TEST(LeaseEngineFailure, NothingIsGrantedAfterALossBeforeEverybodyAliveHasReplayed) {
  World world;
  Proxy& one = world.add();
  Proxy& two = world.add();
  EXPECT_TRUE(one.call(one.account(), 20, 12));
  EXPECT_TRUE(two.call(two.account(), 20));
  world.store.flush();
  world.run_id = "run-2";
  one.down();
  two.down();
  two.up();
  two.ask(two.account(), 20, 20);
  world.advance(seconds(2));
  EXPECT_TRUE(two.engine->status(kOfAnn).fenced);
  EXPECT_GT(two.engine->fence_open_since(world.now), Milliseconds(1'000));
  EXPECT_EQ(world.sums().lent, two.account()->cell->outstanding());
  one.up();
  world.advance(seconds(4));
  EXPECT_FALSE(two.engine->status(kOfAnn).fenced);
  for (int i = 0; i < 30; ++i) two.call(two.account(), 20);
  EXPECT_EQ(one.admitted + two.admitted, 20U);
  drain(world);
  EXPECT_EQ(world.sums().used, 20U);
}

TEST(LeaseEngineFailure, IdleProxyComesBackToVoteAndToReplayWhatIsInItsJournal) {
  World world;
  LeaseOptions options;
  options.flush_interval = minutes(5);
  Proxy& one = world.add(options);
  Proxy& two = world.add(options);
  const AccountRef ann = one.account();
  EXPECT_TRUE(one.call(ann, 10, 7));
  one.engine->drain(world.now, [](bool) {});
  world.advance(minutes(30), seconds(20));
  EXPECT_EQ(one.engine->status(kOfAnn).state, State::absent);
  world.store.flush();
  for (int i = 0; i < 10; ++i) {
    two.call(two.account(), 10);
    world.advance(seconds(2));
  }
  EXPECT_EQ(one.admitted + two.admitted, 10U);
}

TEST(LeaseEngineFailure, LapsedTokensAreNeverUsedAgainAndGoBack) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  const std::uint64_t lent = world.sums().lent;
  proxy.down();
  world.advance(minutes(14), seconds(10));
  std::int64_t bucket = 0;
  EXPECT_EQ(admit(*ann, proxy.table->partition(kOfAnn), 1, world.now, bucket), Admission::admitted);
  world.advance(minutes(2), seconds(10));
  EXPECT_EQ(admit(*ann, proxy.table->partition(kOfAnn), 1, world.now, bucket), Admission::lacking);
  proxy.up();
  EXPECT_EQ(admit(*ann, proxy.table->partition(kOfAnn), 1, world.now, bucket), Admission::lacking);
  proxy.hold = true;
  world.advance(seconds(1));
  EXPECT_EQ(admit(*ann, proxy.table->partition(kOfAnn), 1, world.now, bucket), Admission::lacking);
  proxy.hold = false;
  world.advance(minutes(1), seconds(1));
  EXPECT_EQ(proxy.engine->counters().lapses, 1U);
  EXPECT_EQ(world.sums().used, 2U);
  EXPECT_LT(world.sums().lent, lent);
  EXPECT_TRUE(proxy.call(ann, 1'000));
}

TEST(LeaseEngineFailure, PingAloneDoesNotReviveLapsedTokens) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  proxy.down();
  world.advance(minutes(16), seconds(10));
  proxy.up();
  while (proxy.wire.front().kind == Proxy::Kind::ping) ASSERT_TRUE(proxy.deliver());  // a session again
  proxy.hold = true;
  EXPECT_GT(proxy.table->partition(kOfAnn).session_expiry_ms.load(), world.clock.count());
  std::int64_t bucket = 0;
  EXPECT_EQ(admit(*ann, proxy.table->partition(kOfAnn), 1, world.now, bucket), Admission::lacking);
}

TEST(LeaseEngineFailure, DownAnswersUnavailableAndTokensAreSpentOn) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  proxy.hold = true;
  proxy.ask(proxy.account("other"), 10);
  proxy.down();
  EXPECT_EQ(proxy.answers.back(), Answer::unavailable);
  proxy.ask(proxy.account("other"), 10);
  EXPECT_EQ(proxy.answers.back(), Answer::unavailable);
  EXPECT_TRUE(proxy.call(ann, 1'000));
  bool settled = true;
  proxy.engine->settle(kAnn, false, world.now, [&](bool all) { settled = all; });
  EXPECT_FALSE(settled);
}

TEST(LeaseEngineFailure, FullJournalGrantsNothingLosesNothingAndRecovers) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000, 3));
  proxy.log.full = true;
  const std::uint64_t ops = proxy.engine->counters().ops;
  proxy.ask(proxy.account("other"), 10);
  EXPECT_EQ(proxy.answers.back(), Answer::unavailable);
  EXPECT_GT(proxy.engine->counters().log_failures, 0U);
  EXPECT_TRUE(proxy.call(ann, 1'000));
  world.advance(seconds(30));
  EXPECT_EQ(proxy.engine->counters().ops, ops);
  proxy.log.full = false;
  world.advance(seconds(3));
  EXPECT_TRUE(proxy.call(proxy.account("other"), 10));
  drain(world);
  EXPECT_EQ(world.sums().used, 4U);
  EXPECT_EQ(world.sums().lent, 0U);
}

TEST(LeaseEngineFailure, KilledProcessLosesNoUnitAndHoldsNoTokenAfterwards) {
  World world;
  Proxy& proxy = world.add();
  EXPECT_TRUE(proxy.call(proxy.account(), 1'000, 5));
  EXPECT_EQ(world.sums().used, 0U);
  proxy.restart();
  const AccountRef ann = proxy.account();
  std::int64_t bucket = 0;
  EXPECT_EQ(admit(*ann, proxy.table->partition(kOfAnn), 1, world.now, bucket), Admission::lacking);
  world.advance(seconds(5));
  EXPECT_EQ(world.sums().used, 5U);
  EXPECT_EQ(world.sums().lent, 0U);
  EXPECT_TRUE(proxy.call(ann, 1'000));
}

TEST(LeaseEngineFailure, KilledWithAnOpOnTheWayItIsReplayedOnce) {
  for (const bool arrived : {false, true}) {
    World world;
    Proxy& proxy = world.add();
    EXPECT_TRUE(proxy.call(proxy.account(), 1'000, 5));
    proxy.hold = true;
    proxy.engine->settle(kAnn, false, world.now, [](bool) {});
    ASSERT_FALSE(proxy.wire.empty());
    if (arrived) proxy.arrive(proxy.wire.back(), false);
    std::int64_t bucket = 0;
    EXPECT_EQ(admit(*proxy.account(), proxy.table->partition(kOfAnn), 2, world.now, bucket),
              Admission::admitted);
    proxy.hold = false;
    proxy.restart();
    world.advance(seconds(5));
    EXPECT_EQ(world.sums().used, 7U) << arrived;
    EXPECT_EQ(world.sums().lent, 0U) << arrived;
    drain(world);
  }
}

TEST(LeaseEngineFailure, UnsettledUsesOfAKilledProxyStayChargedThroughAFlush) {
  World world;
  Proxy& one = world.add();
  Proxy& two = world.add();
  EXPECT_TRUE(one.call(one.account(), 10, 9));
  EXPECT_TRUE(two.call(two.account("other"), 10));
  world.store.flush();
  one.restart();
  for (int i = 0; i < 5; ++i) {
    two.call(two.account(), 10);
    world.advance(seconds(1));
  }
  EXPECT_LE(one.admitted + two.admitted, 11U);  // "other" included
  drain(world);
  EXPECT_LE(world.sums().used, 10U);
}

TEST(LeaseEngineFailure, ErrorRepliesAreFollowedByAPauseAndTheSameOp) {
  World world;
  Proxy& proxy = world.add();
  EXPECT_TRUE(proxy.call(proxy.account(), 100));
  proxy.errors = true;
  proxy.engine->settle(kAnn, true, world.now, [](bool) {});
  const std::size_t before = sent(proxy, Proxy::Kind::ping);
  world.advance(seconds(10));
  EXPECT_LE(sent(proxy, Proxy::Kind::ping) - before, 20U);
  proxy.errors = false;
  world.advance(seconds(2));
  EXPECT_EQ(world.sums().used, 1U);
  EXPECT_TRUE(proxy.engine->idle());
}

TEST(LeaseEngineFailure, FenceDoesNotOpenOverAReplayThatErrorsInterrupt) {
  World world;
  LeaseOptions options;
  options.fence_wait = Milliseconds(800);
  Proxy &much = world.add(options), &little = world.add(options);
  use_and_settle(little, 10'000);
  for (int i = 0; i < 600; ++i) use_and_settle(much, 10'000);
  const std::uint64_t told = much.engine->status(kOfAnn).acknowledged;
  ASSERT_GE(told, 600U);
  world.store.flush();
  world.run_id = "run-2";
  for (auto& proxy : world.proxies) proxy->down();
  much.error_every = 20;
  for (auto& proxy : world.proxies) proxy->up();
  auto known = [&] { return world.store.hwm(kOfAnn, much.incarnation); };
  for (int waited = 0; waited < 3'000 && known() < told; ++waited) {
    ASSERT_NE(little.engine->status(kOfAnn).state, State::open) << known() << " of " << told;
    world.advance(Milliseconds(20), Milliseconds(20));
  }
  EXPECT_EQ(known(), told);
  world.advance(seconds(3));
  EXPECT_EQ(little.engine->status(kOfAnn).state, State::open);
  EXPECT_EQ(world.sums().used, 601U);
}

TEST(LeaseEngineFailure, SteppedStoreClockGrantsNothingUntilBothAgree) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  world.clock += minutes(1);
  EXPECT_FALSE(proxy.call(proxy.account("other"), 10));
  EXPECT_GT(proxy.engine->counters().clock_off, 0U);
  EXPECT_TRUE(proxy.call(ann, 1'000));
  world.clock -= minutes(1);
  world.advance(minutes(2), seconds(1));
  EXPECT_TRUE(proxy.call(proxy.account("other"), 10));
}

TEST(LeaseEngineFailure, StoreClockThatStaysSteppedIsBelievedAfterASession) {
  World world;
  Proxy& proxy = world.add();
  EXPECT_TRUE(proxy.call(proxy.account(), 1'000));
  world.clock += hours(1);
  for (int i = 0; i < 20; ++i) {
    proxy.ask(proxy.account("other"), 10);
    world.advance(minutes(1), seconds(10));
  }
  EXPECT_TRUE(proxy.call(proxy.account("other"), 10));
}

TEST(LeaseEngineFailure, StoreClockIsNotBelievedByAPartitionThatIsJoinedDuringTheStep) {
  World world;
  Proxy& proxy = world.add();
  EXPECT_TRUE(proxy.call(proxy.account(), 1'000));
  ASSERT_NE(partition_of(kBob), kOfAnn);
  // What bob's partition was told of the time is too old by now; ann's is kept.
  world.advance(hours(1), seconds(10));
  world.clock += minutes(10);
  const AccountRef bob = proxy.account("daily", hours(24), true, kBob);
  proxy.ask(bob, 10);
  world.advance(seconds(5));
  EXPECT_EQ(bob->cell->available(), 0U);
  world.clock -= minutes(10);
  world.advance(minutes(11), seconds(5));
  EXPECT_TRUE(proxy.call(bob, 10));
}

TEST(LeaseEngineFailure, StoreClockSteppedTwiceWithAgreementInBetweenIsNotBelieved) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  for (int steps = 0; steps < 2; ++steps) {
    EXPECT_TRUE(proxy.call(ann, 1'000));
    world.clock += minutes(10);
    proxy.ask(proxy.account("other"), 10);
    world.advance(seconds(5));
    EXPECT_EQ(proxy.answers.back(), Answer::unavailable);
    EXPECT_GT(proxy.table->partition(kOfAnn).clock.disagreement(), minutes(9)) << "step " << steps;
    world.clock -= minutes(10);
    // Longer than a session, in which only the pings tell that it is right.
    world.advance(minutes(20), seconds(10));
  }
  EXPECT_EQ(proxy.engine->counters().lapses, 0U);
}

// Negative controls: with a protection off, the same faults must do harm.
TEST(LeaseEngineUnsafe, WithoutReplayALossIsForgotten) {
  World world;
  LeaseOptions options;
  options.unsafe.no_replay = true;
  Proxy& proxy = world.add(options);
  use_and_settle(proxy, 1'000, 5);
  world.store.flush();
  proxy.down();
  proxy.up();
  world.advance(seconds(3));
  EXPECT_LT(world.sums().used, 5U);
}

TEST(LeaseEngineUnsafe, TokensThatOutliveTheirSessionAreUsedAfterIt) {
  World world;
  LeaseOptions options;
  options.unsafe.keep_lapsed_tokens = true;
  Proxy& proxy = world.add(options);
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  proxy.down();
  world.advance(minutes(20), seconds(10));
  std::int64_t bucket = 0;
  EXPECT_EQ(admit(*ann, proxy.table->partition(kOfAnn), 1, world.now, bucket), Admission::admitted);
}

TEST(LeaseEngineUnsafe, DatingAtTheGrantOrByTheWrongClockFreesTooEarly) {
  for (const bool at_grant : {true, false}) {
    World world;
    LeaseOptions options;
    (at_grant ? options.unsafe.charge_at_grant : options.unsafe.wall_clock) = true;
    Proxy& proxy = world.add(options);
    EXPECT_TRUE(proxy.call(proxy.account(), 1'000));
    world.advance(minutes(5), seconds(10));
    const std::int64_t used_in = world.clock.count() / 60'000;
    EXPECT_TRUE(proxy.call(proxy.account(), 1'000));
    drain(world);
    auto record = AccountRecord::decode(world.store.record({kAnn, "daily"}));
    ASSERT_TRUE(record.has_value());
    EXPECT_LT(record->window.buckets().back().number, used_in);
  }
}

}  // namespace
}  // namespace tollgate::quota
