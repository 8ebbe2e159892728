#include "metering/quota/lease_engine.h"

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
    world.advance(seconds(2));
    EXPECT_TRUE(settled);
    EXPECT_TRUE(proxy->engine->idle());
  }
}

std::uint64_t ops_of(const Proxy& proxy) {
  return proxy.engine->counters().ops;
}

TEST(LeaseEngine, FirstTouchSharesOneRoundTripWithThePing) {
  World world;
  Proxy& proxy = world.add();
  EXPECT_TRUE(proxy.call(proxy.account(), 1'000));
  EXPECT_EQ(proxy.engine->status(kOfAnn).state, State::open);
  // Another partition of the same server: the server's clock is known.
  const AccountRef bob = proxy.account("daily", hours(24), true, kBob);
  proxy.hold = true;
  proxy.engine->on_up(bob->subject->partition, world.run_id, world.now);
  proxy.ask(bob, 1'000);
  ASSERT_EQ(proxy.wire.size(), 2U);
  EXPECT_EQ(proxy.wire[0].kind, Proxy::Kind::ping);
  EXPECT_EQ(proxy.wire[1].kind, Proxy::Kind::op);
  proxy.hold = false;
  world.run();
  EXPECT_EQ(proxy.answers.back(), Answer::granted);
}

TEST(LeaseEngine, AdmitsExactlyTheLimitAndSettlesEveryUnit) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  for (int i = 0; i < 150; ++i) proxy.call(ann, 100);
  EXPECT_EQ(proxy.admitted, 100U);
  drain(world);
  EXPECT_EQ(world.sums().used, 100U);
  EXPECT_EQ(world.sums().lent, 0U);
}

TEST(LeaseEngine, LeavesTheStoreAloneWhileTokensLast) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 10'000));
  const std::uint64_t after_first = ops_of(proxy);
  for (int i = 0; i < 300; ++i) EXPECT_TRUE(proxy.call(ann, 10'000));
  EXPECT_EQ(ops_of(proxy), after_first);
}

TEST(LeaseEngine, RefusalSaysWhenTheOldestBucketLeavesAndCountsAsDenial) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  for (int i = 0; i < 4; ++i) proxy.call(ann, 3);
  EXPECT_EQ(proxy.admitted, 3U);
  EXPECT_EQ(proxy.answers.back(), Answer::refused);
  EXPECT_EQ(proxy.engine->counters().denials, 1U);
  EXPECT_GT(ann->view().denied_until, world.clock);
  EXPECT_GE(ann->view().fits_at, world.clock + hours(24));
  world.advance(hours(24) + minutes(2), minutes(1));
  EXPECT_TRUE(proxy.call(proxy.account(), 3));
}

// Ten units used up by the first of two proxies, the second is refused.
struct Refused {
  World world;
  Proxy& one = world.add();
  Proxy& two = world.add();
  AccountRef here = one.account(), there = two.account();
  std::int64_t bucket = world.clock.count() / 60'000;

  Refused() {
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(one.call(here, 10));
    EXPECT_FALSE(two.call(there, 10));
    world.advance(minutes(30));
  }
  bool denied() const { return there->view().denied_until > world.clock; }
  void take_back() {
    one.engine->take_back(here, bucket, 3, world.now);
    world.advance(seconds(2));
  }
};

TEST(LeaseEngine, RefusalIsKeptUntilSomebodySaysThatUnitsLeftBeforeTheirTime) {
  Refused test;
  const std::uint64_t asked = ops_of(test.two);
  EXPECT_TRUE(test.denied());
  EXPECT_EQ(ops_of(test.two), asked);
  test.take_back();
  EXPECT_FALSE(test.denied());
  for (int i = 0; i < 5; ++i) test.two.call(test.there, 10);
  EXPECT_EQ(test.two.admitted, 3U);
}

TEST(LeaseEngine, MissedWordOfRoomIsMadeUpForByListeningAgain) {
  Refused test;
  test.world.deaf = true;
  test.take_back();
  EXPECT_TRUE(test.denied());
  test.two.engine->on_listening(kOfAnn, test.world.now);
  EXPECT_FALSE(test.denied());
  EXPECT_TRUE(test.two.call(test.there, 10));
}

TEST(LeaseEngine, LostWordOfRoomCostsWhatIsConfiguredAtMost) {
  World world;
  LeaseOptions options;
  options.denial_max = hours(1);
  Proxy& proxy = world.add(options);
  const AccountRef ann = proxy.account();
  for (int i = 0; i < 4; ++i) proxy.call(ann, 3);
  EXPECT_GE(ann->view().fits_at, world.clock + hours(23));
  EXPECT_LE(ann->view().denied_until, world.clock + hours(1));
}

TEST(LeaseEngine, RefusalThatComesAfterTheWordOfRoomIsNotBelievedForLong) {
  Refused test;
  test.two.engine->on_room(kAnn, "daily", test.world.now);
  test.two.hold = true;
  test.two.ask(test.there, 10);
  ASSERT_EQ(test.two.wire.size(), 1U);
  const Proxy::Sent asked = test.two.wire.front();
  const OpReply refusal = test.world.store.apply(asked.op, asked.context);
  test.take_back();
  test.two.engine->on_op(kOfAnn, asked.op.seq, refusal, asked.at, test.world.now);
  EXPECT_EQ(test.two.answers.back(), Answer::refused);
  EXPECT_GT(test.there->view().fits_at, test.world.clock + hours(1));
  EXPECT_LE(test.there->view().denied_until, test.world.clock + seconds(1));
}

TEST(LeaseEngine, NeedBeyondTheLimitIsRefusedForGood) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_FALSE(proxy.call(ann, 5, 6));
  EXPECT_EQ(ann->view().fits_at, Milliseconds::max());
  EXPECT_TRUE(proxy.call(ann, 5, 5));
}

TEST(LeaseEngine, TokensHeldElsewhereAreRecalledSoThatTheLastOneIsUsed) {
  World world;
  Proxy& one = world.add();
  Proxy& two = world.add();
  const AccountRef here = one.account(), there = two.account();
  EXPECT_TRUE(one.call(here, 40));
  EXPECT_GT(here->cell->available(), 0U);
  for (int i = 0; i < 60; ++i) two.call(there, 40);
  EXPECT_EQ(one.admitted + two.admitted, 40U);
  EXPECT_GT(one.engine->counters().recalls, 0U);
  drain(world);
  EXPECT_EQ(world.sums().used, 40U);
  EXPECT_EQ(world.sums().lent, 0U);
}

TEST(LeaseEngine, ProxyThatDoesNotAnswerARecallIsAskedThreeTimesThenTheCallIsRefused) {
  World world;
  Proxy& one = world.add();
  Proxy& two = world.add();
  EXPECT_TRUE(one.call(one.account(), 16, 10));
  const AccountRef there = two.account();
  world.deaf = true;
  while (two.call(there, 16)) {
  }
  EXPECT_EQ(two.answers.back(), Answer::refused);
  EXPECT_EQ(one.admitted + two.admitted + one.account()->cell->available(), 16U);
  EXPECT_LE(there->view().denied_until, world.clock + seconds(1));
}

TEST(LeaseEngine, FullAccountDoesNotHoldBackAnotherOfTheSameUser) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef full = proxy.account("full"), free = proxy.account("free");
  EXPECT_TRUE(proxy.call(full, 1));
  proxy.hold = true;
  proxy.ask(full, 1);
  proxy.ask(free, 100);
  proxy.hold = false;
  world.run();
  ASSERT_EQ(proxy.answers.size(), 3U);
  EXPECT_EQ(std::ranges::count(proxy.answers, Answer::granted), 2);
  EXPECT_EQ(std::ranges::count(proxy.answers, Answer::refused), 1);
}

TEST(LeaseEngine, SmallCallIsAdmittedWhereALargeOneBeforeItIsRefused) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 10, 8));
  proxy.hold = true;
  proxy.ask(ann, 10, 5);
  proxy.ask(ann, 10, 1 + ann->cell->available());
  proxy.hold = false;
  world.run();
  EXPECT_EQ(std::ranges::count(proxy.answers, Answer::refused), 1);
  EXPECT_EQ(std::ranges::count(proxy.answers, Answer::granted), 2);
}

TEST(LeaseEngine, PrefetchGrowsTheLeaseWithTheRate) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  for (int second = 0; second < 60; ++second) {
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(proxy.call(ann, 1'000'000));
    if (ann->cell->available() < 100) proxy.engine->prefetch(ann, world.now);
    world.advance(seconds(1));
  }
  EXPECT_GE(ann->cell->available(), 50U);
  EXPECT_LE(ann->cell->available(), 500U);
  EXPECT_LT(proxy.engine->counters().blocking_ops, 4U);
}

TEST(LeaseEngine, UsesAreSettledIntoTheBucketInWhichTheyHappened) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  const std::int64_t first = world.clock.count() / 60'000;
  EXPECT_TRUE(proxy.call(ann, 1'000));
  world.advance(minutes(3), seconds(10));
  EXPECT_TRUE(proxy.call(ann, 1'000));
  drain(world);
  auto record = AccountRecord::decode(world.store.record({kAnn, "daily"}));
  ASSERT_TRUE(record.has_value());
  const auto buckets = record->window.buckets();
  ASSERT_EQ(buckets.size(), 2U);
  EXPECT_EQ(buckets[0].number, first);
  EXPECT_EQ(buckets[1].number, first + 3);
}

TEST(LeaseEngine, DirtyAccountsAreFlushedWithinTheInterval) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  EXPECT_EQ(world.sums().used, 0U);
  world.advance(minutes(20), seconds(10));
  EXPECT_EQ(world.sums().used, 1U);
}

TEST(LeaseEngine, ObservationAccountsRideInFlushesOnly) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account(), seen = proxy.account("#|Case|read", hours(24), false);
  EXPECT_TRUE(proxy.call(ann, 1'000));
  std::int64_t bucket = 0;
  for (int i = 0; i < 7; ++i)
    EXPECT_EQ(admit(*seen, proxy.table->partition(kOfAnn), 1, world.now, bucket), Admission::admitted);
  proxy.engine->prefetch(ann, world.now);
  world.run();
  EXPECT_EQ(world.sums("#|Case|read").used, 0U);
  world.advance(minutes(40), seconds(10));
  EXPECT_EQ(world.sums("#|Case|read").used, 7U);
}

TEST(LeaseEngine, BusyAccountIsFlushedBeforeItsBucketsRunTogether) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef seen = proxy.account("#|Case|read", hours(24), false);
  EXPECT_TRUE(proxy.call(proxy.account(), 1'000));
  const std::int64_t first = world.clock.count() / 60'000 + 1;
  for (int minute = 0; minute < 30; ++minute) {
    world.advance(minutes(1), seconds(5));
    std::int64_t bucket = 0;
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(admit(*seen, proxy.table->partition(kOfAnn), 1, world.now, bucket), Admission::admitted);
  }
  drain(world);
  auto record = AccountRecord::decode(world.store.record({kAnn, "#|Case|read"}));
  ASSERT_TRUE(record.has_value());
  const auto buckets = record->window.buckets();
  ASSERT_EQ(buckets.size(), 30U);
  for (std::size_t i = 0; i < buckets.size(); ++i)
    EXPECT_EQ(buckets[i], (RollingWindow::Bucket{first + static_cast<std::int64_t>(i), 3}));
}

TEST(LeaseEngine, SettledUnitsThatNeverHappenedAreTakenBack) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 10, 4));
  bool settled = false;
  proxy.engine->settle(kAnn, false, world.now, [&](bool all) { settled = all; });
  world.run();
  EXPECT_TRUE(settled);
  EXPECT_EQ(world.sums().used, 4U);
  proxy.engine->take_back(ann, world.clock.count() / 60'000, 3, world.now);
  world.advance(seconds(2));
  EXPECT_EQ(world.sums().used, 1U);
  drain(world);
  EXPECT_EQ(world.sums().lent, 0U);
}

TEST(LeaseEngine, RaisedLimitActsOnTheNextCall) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  for (int i = 0; i < 6; ++i) proxy.call(ann, 5);
  EXPECT_EQ(proxy.admitted, 5U);
  proxy.engine->limit_changed(ann, 8, world.now);
  world.run();
  EXPECT_EQ(ann->view().denied_until, Milliseconds(0));
  for (int i = 0; i < 6; ++i) proxy.call(ann, 8);
  EXPECT_EQ(proxy.admitted, 8U);
}

TEST(LeaseEngine, LoweredLimitTakesUnusedTokensBack) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  EXPECT_GT(ann->cell->available(), 20U);
  proxy.engine->limit_changed(ann, 2, world.now);
  world.run();
  EXPECT_EQ(ann->cell->available(), 0U);
  EXPECT_TRUE(proxy.call(ann, 2));
  EXPECT_FALSE(proxy.call(ann, 2));
}

TEST(LeaseEngine, TokensLentUnderAGrantGoBackWithTheNextWordAfterItsEnd) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  world.grant_ann(40, minutes(10));
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(proxy.call(ann, 2));
  EXPECT_GT(ann->cell->available(), 0U);
  world.advance(minutes(17), seconds(10));
  EXPECT_EQ(world.sums().used, 4U);
  EXPECT_EQ(ann->cell->available(), 0U);
  EXPECT_FALSE(proxy.call(ann, 2));
}

TEST(LeaseEngine, LimitLoweredWhileDeafTakesUnusedTokensBackWithTheNextWord) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  EXPECT_GT(ann->cell->available(), 20U);
  world.deaf = true;
  LimitOverride less;
  less.limit = 2;
  world.store.set_override({kAnn, "daily"}, less);
  world.advance(minutes(17), seconds(10));
  EXPECT_EQ(ann->cell->available(), 0U);
  EXPECT_TRUE(proxy.call(ann, 1'000));
  EXPECT_FALSE(proxy.call(ann, 1'000));
}

TEST(LeaseEngine, LimitLoweredWhileDeafReachesAnUnusedLeaseAQuarterOfAWindowAfterListeningAgain) {
  for (const bool listening : {false, true}) {
    World world;
    Proxy& proxy = world.add();
    const AccountRef ann = proxy.account();
    EXPECT_TRUE(proxy.call(ann, 1'000));
    proxy.engine->settle(kAnn, false, world.now, [](bool) {});
    world.advance(minutes(1));
    world.deaf = true;
    LimitOverride less;
    less.limit = 2;
    world.store.set_override({kAnn, "daily"}, less);
    world.run();
    if (listening) proxy.engine->on_listening(kOfAnn, world.now);
    world.advance(hours(6) + minutes(20), minutes(1));
    EXPECT_EQ(ann->cell->available() == 0, listening);
  }
}

TEST(LeaseEngine, TokensLentUnderAGrantThatNobodyUsesGoBackWithinAQuarterOfAWindowAfterItsEnd) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  world.grant_ann(40, minutes(10));
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(proxy.call(ann, 2));
  proxy.engine->settle(kAnn, false, world.now, [](bool) {});
  world.advance(minutes(5), seconds(10));
  ASSERT_GT(ann->cell->available(), 0U);
  world.advance(hours(6) + minutes(20), minutes(1));
  EXPECT_EQ(ann->cell->available(), 0U);
}

TEST(LeaseEngine, OverrideInTheStoreForgetsDenialsAtOnce) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  for (int i = 0; i < 3; ++i) proxy.call(ann, 2);
  EXPECT_GT(ann->view().denied_until, world.clock);
  LimitOverride more;
  more.limit = 4;
  world.store.set_override({kAnn, "daily"}, more);
  world.run();
  EXPECT_EQ(ann->view().denied_until, Milliseconds(0));
  for (int i = 0; i < 3; ++i) proxy.call(ann, 2);
  EXPECT_EQ(proxy.admitted, 4U);
}

TEST(LeaseEngine, UseIsSettledWhenItIsAFlushIntervalOldHoweverLongNothingWasReported) {
  World world;
  LeaseOptions options;
  options.flush_interval = minutes(10);
  Proxy& proxy = world.add(options);
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  world.advance(minutes(47), seconds(10));
  EXPECT_EQ(world.sums().used, 1U);
  EXPECT_TRUE(proxy.call(ann, 1'000));
  world.advance(minutes(9), seconds(10));
  EXPECT_EQ(world.sums().used, 1U) << "one op takes along what comes in the meantime";
  world.advance(minutes(2) + seconds(10), seconds(10));
  EXPECT_EQ(world.sums().used, 2U) << "its minute has been over for the interval";
}

TEST(LeaseEngine, ShortFlushIntervalDoesNotWaitForTheEndOfABucket) {
  for (const Milliseconds interval : {Milliseconds(1'000), Milliseconds(599'000)}) {
    World world;
    LeaseOptions options;
    options.flush_interval = interval;
    Proxy& proxy = world.add(options);
    ASSERT_EQ(world.clock % minutes(1), Milliseconds(0));
    EXPECT_TRUE(proxy.call(proxy.account(), 1'000));
    world.advance(interval + seconds(2), seconds(1));
    EXPECT_EQ(world.sums().used, 1U) << interval.count() << " ms";
  }
}

TEST(LeaseEngine, SettlementFillsTheLeaseUpInTheSameOp) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  for (int i = 0; i < 11; ++i) EXPECT_TRUE(proxy.call(ann, 1'000));
  ASSERT_EQ(ann->cell->available(), 114U);
  world.advance(minutes(17), seconds(10));
  EXPECT_EQ(world.sums().used, 11U);
  EXPECT_EQ(ann->cell->available(), 125U);
  EXPECT_EQ(ops_of(proxy), 2U);
}

TEST(LeaseEngine, WhoHoldsAllThatIsLeftNeedNotAskWhetherThereIsMore) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(proxy.call(ann, 3));
  proxy.engine->settle(kAnn, false, world.now, [](bool) {});
  world.run();
  EXPECT_EQ(proxy.engine->counters().denials, 0U);
  EXPECT_EQ(ann->view().denied_units, 1U);
  EXPECT_GE(ann->view().denied_until, world.clock + hours(24));
  EXPECT_EQ(ann->view().fits_at, ann->view().denied_until);
}

TEST(LeaseEngine, WhatOthersHoldMayComeBackSoItIsAskedFor) {
  World world;
  Proxy& one = world.add();
  Proxy& two = world.add();
  const AccountRef here = one.account(), there = two.account();
  EXPECT_TRUE(two.call(there, 8));
  EXPECT_GT(there->cell->available(), 0U);
  std::uint64_t calls = 0;
  while (here->view().used + here->view().lent_to_others < 8 && calls < 8) {
    EXPECT_TRUE(one.call(here, 8));
    one.engine->settle(kAnn, false, world.now, [](bool) {});
    world.run();
    ++calls;
  }
  ASSERT_GT(here->view().lent_to_others, 0U);
  EXPECT_EQ(here->view().denied_units, 0U);
}

TEST(LeaseEngine, SpentLeaseIsFollowedByALargerOne) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  EXPECT_TRUE(proxy.call(ann, 1'000));
  const std::uint32_t first = ann->view().lease;
  EXPECT_EQ(first, 125U);
  while (ann->cell->available() > 0) EXPECT_TRUE(proxy.call(ann, 1'000));
  EXPECT_TRUE(proxy.call(ann, 1'000));
  EXPECT_GT(ann->view().lease, first * 3 / 2);
  EXPECT_LE(ann->view().lease, 875U / 4);
}

TEST(LeaseEngine, UnusedLeaseIsHandedBackSoonerWhereCellsAreScarce) {
  World world;
  LeaseOptions options;
  options.flush_interval = minutes(5);
  Proxy& proxy = world.add(options);
  const AccountRef hourly = proxy.account("hourly", hours(1));
  EXPECT_TRUE(proxy.call(hourly, 1'000));
  for (int i = 0; i < 40; ++i)
    EXPECT_TRUE(proxy.call(proxy.account("hourly" + std::to_string(i), hours(1)), 1'000));
  world.advance(minutes(50), seconds(30));
  EXPECT_GT(world.sums("hourly", hours(1)).lent, 0U);
  world.advance(minutes(20), seconds(30));
  EXPECT_EQ(world.sums("hourly", hours(1)).lent, 0U);
}

TEST(LeaseEngine, UnusedLeaseIsHandedBackAndTheIdleSubjectForgotten) {
  World world;
  LeaseOptions options;
  options.flush_interval = minutes(5);
  Proxy& proxy = world.add(options);
  AccountRef hourly = proxy.account("hourly", hours(1));
  EXPECT_TRUE(proxy.call(hourly, 1'000));
  world.advance(minutes(170), seconds(30));
  EXPECT_GT(world.sums("hourly", hours(1)).lent, 0U) << "who comes back within three windows need not wait";
  world.advance(minutes(75), seconds(30));
  EXPECT_EQ(world.sums("hourly", hours(1)).lent, 0U);
  EXPECT_TRUE(hourly->retired.load());
  EXPECT_EQ(proxy.table->accounts(), 0U);
  EXPECT_EQ(proxy.engine->status(kOfAnn).state, State::absent);
  const std::uint64_t pings = proxy.engine->counters().pings;
  world.advance(minutes(30), seconds(30));
  EXPECT_EQ(proxy.engine->counters().pings, pings);
  EXPECT_TRUE(proxy.call(proxy.account("hourly", hours(1)), 1'000));
}

TEST(LeaseEngine, RequestsFromWithinAnAnswerAreServed) {
  World world;
  Proxy& proxy = world.add();
  const AccountRef ann = proxy.account();
  int answered = 0;
  std::function<void(Answer)> again = [&](Answer) {
    if (++answered < 5) proxy.engine->request(ann, 1, 1'000, world.now, again);
  };
  proxy.engine->request(ann, 1, 1'000, world.now, again);
  world.run();
  EXPECT_EQ(answered, 5);
}

TEST(LeaseEngine, NoMoreThanTheAllowedOpsAreOnTheirWay) {
  World world;
  LeaseOptions options;
  options.max_unacknowledged = 3;
  Proxy& proxy = world.add(options);
  EXPECT_TRUE(proxy.call(proxy.account(), 1'000));
  proxy.answers.clear();
  proxy.hold = true;
  for (int i = 0; i < 20; ++i)
    proxy.ask(proxy.account("daily", hours(24), true, subject_key({"acme", {}, "u" + std::to_string(i)})),
              100);
  EXPECT_EQ(std::ranges::count_if(proxy.wire, [](const auto& sent) { return sent.kind == Proxy::Kind::op; }),
            3);
  proxy.hold = false;
  world.advance(seconds(1));
  EXPECT_EQ(std::ranges::count(proxy.answers, Answer::granted), 20);
}

}  // namespace
}  // namespace tollgate::quota
