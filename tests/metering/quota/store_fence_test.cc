// What the store does after it lost data: the fence, votes, clocks and replays, on the model.
#include "tests/metering/quota/store_rig.h"

namespace tollgate::quota {
namespace {

using namespace store_test;

// ---- fence

TEST(Fence, PartitionNeverSeenSettlesButLendsNothingUntilTheFirstVote) {
  Store store(false);
  const OpReply fenced = store.send(kA, {.uses = {{store.bucket(), 2}}, .need = 1, .want = 1});
  EXPECT_TRUE(fenced.fenced);
  EXPECT_EQ(fenced.states[0].used, 2U);
  EXPECT_EQ(fenced.states[0].granted, 0U);
  EXPECT_TRUE(store.ping(kA, 1).open);
  EXPECT_EQ(store.state(kA, {.need = 1, .want = 1}).granted, 1U);
}

TEST(Fence, OpensWhenEveryLiveSessionHasVoted) {
  Store store;
  store.ping(kB);
  store.model.set_listeners(2);
  store.context.run = "other";
  EXPECT_FALSE(store.ping(kA).open);
  const auto messages = store.model.take_messages();
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_EQ(messages[0].kind, StoreModel::Message::Kind::fence);
  EXPECT_EQ(messages[0].partition, store.partition);
  EXPECT_FALSE(store.ping(kA).open) << "one vote however often";
  EXPECT_TRUE(store.model.take_messages().empty()) << "raised once";
  EXPECT_TRUE(store.ping(kB).open);
  EXPECT_TRUE(store.ping(kA).open);
  const auto told = store.model.take_messages();
  ASSERT_EQ(told.size(), 1U) << "that it opens is told once";
  EXPECT_EQ(told[0].kind, StoreModel::Message::Kind::fence);
}

TEST(Fence, OpensNoSoonerThanItHasSettledForWhoReconnectsLast) {
  Store store;
  store.send(kA, {.need = 5, .want = 5});
  store.context.fence_settle = 2'500ms;
  store.context.run = "other";
  EXPECT_FALSE(store.ping(kA, 1).open)
      << "all that are known have voted, but a journal may still be on its way";
  store.now += 2'499ms;
  EXPECT_FALSE(store.ping(kA, 1).open);
  store.now += 1ms;
  EXPECT_TRUE(store.ping(kA, 1).open);
}

TEST(Fence, SettlesAnewAfterEachReplay) {
  Store store;
  store.send(kA, {.need = 5, .want = 5});
  store.context.fence_settle = 2'500ms;
  store.model.flush();
  EXPECT_FALSE(store.ping(kA, 1).open);
  store.now += 2'000ms;
  Replay fact{store.op(kA, 1, {}), {5}, store.now + 15min, false};
  EXPECT_EQ(store.model.replay(fact, store.at_now()).status, OpStatus::applied);
  store.now += 2'499ms;
  EXPECT_FALSE(store.ping(kA, 1).open);
  store.now += 1ms;
  EXPECT_TRUE(store.ping(kA, 1).open);
}

TEST(Fence, PartitionThatNobodyHasEverSeenHasNothingToSettle) {
  Store store(false);
  store.context.fence_settle = 2'500ms;
  EXPECT_TRUE(store.ping(kA).open);
  Store remembered(false);
  remembered.context.fence_settle = 2'500ms;
  EXPECT_FALSE(remembered.ping(kA, 0, {{kB, kStart - 1s}}).open)
      << "kA knows of another, though its session is over";
}

TEST(Clock, JumpThatIsTakenBackFreesNothingEarly) {
  Store store;
  store.send(kA, {.need = 1, .want = 1});
  store.send(kA, {.uses = {{store.bucket(), 1}}});
  const Milliseconds truth = store.now;
  SendContext context = store.at_now();
  store.now = truth + 25h;
  const OpReply reply = store.model.apply(store.op(kA, 3, {}), context);
  EXPECT_TRUE(reply.clock_off);
  EXPECT_EQ(reply.now, store.now) << "told all the same, so that the sender sees by how much";
  EXPECT_EQ(reply.states[0].used, 1U);
  EXPECT_EQ(store.model.ping({kA, store.partition, 3, {}}, context).session_expiry, truth + 15min);
  store.now = truth;
  EXPECT_EQ(store.state(kA, {.limit = 1, .need = 1, .want = 1}).granted, 0U);
}

TEST(Clock, WhoKnowsNoneMovesNoTimeForward) {
  Store store;
  store.send(kA, {.need = 1, .want = 1});
  store.send(kA, {.uses = {{store.bucket(), 1}}});
  const Milliseconds truth = store.now;
  SendContext knows_none = store.at_now();
  knows_none.clock = 0ms;
  store.now = truth + 25h;
  EXPECT_EQ(store.model.ping({kB, store.partition, 0, {}}, knows_none).now, store.now);
  store.now = truth;
  const OpReply reply =
      store.model.apply(store.op(kA, 3, {.limit = 1, .need = 1, .want = 1}), store.at_now());
  EXPECT_FALSE(reply.clock_off);
  EXPECT_EQ(reply.states[0].used, 1U);
  EXPECT_EQ(reply.states[0].granted, 0U);
}

TEST(Clock, NothingIsLentWhileItIsFarBehindWhatWasBelieved) {
  Store store;
  const Milliseconds truth = store.now;
  store.now = truth + 25h;
  store.send(kA, {.need = 1, .want = 1});  // the sender's estimate has jumped as well
  store.now = truth;
  OpReply reply = store.model.apply(store.op(kA, 2, {.need = 1, .want = 1}), store.at_now());
  EXPECT_TRUE(reply.clock_off);
  EXPECT_EQ(reply.states[0].granted, 0U);
  store.now = truth + 25h - kClockGuard;
  reply = store.model.apply(store.op(kA, 3, {.need = 1, .want = 1}), store.at_now());
  EXPECT_FALSE(reply.clock_off);
  EXPECT_EQ(reply.states[0].granted, 1U);
}

TEST(Fence, WaitsForListenersWhoseSessionsTheStoreHasForgotten) {
  Store store;
  store.ping(kB);
  store.model.flush();
  store.model.set_listeners(2);
  EXPECT_FALSE(store.ping(kA).open);
  EXPECT_TRUE(store.ping(kB).open);
}

TEST(Fence, WaitsForPeersThatTheVoterRemembers) {
  Store store;
  const auto peers = (store.ping(kB), store.ping(kA)).peers;
  EXPECT_EQ(peers.size(), 2U);
  store.model.flush();
  EXPECT_FALSE(store.ping(kA, 0, peers).open) << "the store hears of kB from kA";
  EXPECT_TRUE(store.ping(kB).open);
}

TEST(Fence, WhoHasNotReplayedDoesNotVote) {
  Store store;
  store.send(kA, {.need = 5, .want = 5});
  store.model.flush();
  EXPECT_FALSE(store.ping(kA, 1).open);
  Replay fact{store.op(kA, 1, {}), {5}, store.now + 15min, false};
  EXPECT_EQ(store.model.replay(fact, store.at_now()).status, OpStatus::applied);
  EXPECT_EQ(store.sums().lent, 5U);
  EXPECT_TRUE(store.ping(kA, 1).open);
}

TEST(Fence, OpensWithoutTheDeadAfterTheWait) {
  Store store;
  store.ping(kB);
  store.context.run = "other";
  EXPECT_FALSE(store.ping(kA).open);
  store.now += 10s - 1ms;
  EXPECT_FALSE(store.ping(kA).open);
  store.now += 1ms;
  EXPECT_TRUE(store.ping(kA).open);
}

TEST(Fence, ReplayAndVotelessPingHoldItUp) {
  Store store;
  store.send(kB, {});
  store.ping(kC);
  store.model.flush();
  store.model.set_listeners(3);
  EXPECT_FALSE(store.ping(kA).open);
  store.now += 9s;
  EXPECT_FALSE(store.ping(kB, 1).open);  // no vote: it has to replay
  store.now += 9s;
  EXPECT_FALSE(store.ping(kA).open);
  store.model.replay({store.op(kB, 1, {}), {0}, store.now, false}, store.at_now());
  store.now += 9s;
  EXPECT_FALSE(store.ping(kA).open);
  store.now += 1s;
  EXPECT_TRUE(store.ping(kA).open);
}

TEST(Fence, OldVotesForARunThatComesBackDoNotCount) {
  Store store;
  store.ping(kB);
  store.context.run = "second";
  store.ping(kA), store.ping(kB);
  store.context.run = "run";
  EXPECT_FALSE(store.ping(kA).open) << "kB voted for this run long ago, before the second had it";
  EXPECT_TRUE(store.ping(kB).open);
}

TEST(Fence, PingDoesNotBringBackWhatALapsedSessionHeld) {
  Store store;
  store.state(kA, {.need = 100, .want = 100});
  store.now += 15min + kDay.window + kDay.guard();
  EXPECT_EQ(store.state(kB, {.need = 100, .want = 100}).granted, 100U);
  store.ping(kA);
  EXPECT_EQ(store.sums().lent, 100U);
  EXPECT_EQ(store.model.apply(store.op(kA, 1, {}), store.at_now()).status, OpStatus::duplicate);
}

// ---- replay

TEST(Replay, BringsBackTotalsAndLeasesExactly) {
  Store store;
  const StoreModel before = store.model;
  store.state(kA, {.need = 10, .want = 10});
  store.state(kA, {.uses = {{store.bucket(), 4}}, .need = 3, .want = 3});
  const StoreModel::Sums truth = store.sums();
  const Milliseconds expiry = store.now + 15min;
  const Op first = store.op(kA, 1, {}), second = store.op(kA, 2, {.uses = {{store.bucket(), 4}}});
  store.model = before;  // a copy that is behind takes over
  EXPECT_EQ(store.model.apply(store.op(kA, 3, {}), store.at_now()).status, OpStatus::gap);
  EXPECT_EQ(store.model.replay({second, {9}, expiry, false}, store.at_now()).status, OpStatus::gap);
  EXPECT_EQ(store.model.replay({first, {9}, expiry, false}, store.at_now()).status, OpStatus::applied);
  EXPECT_EQ(store.model.replay({second, {9}, expiry, false}, store.at_now()).status, OpStatus::applied);
  EXPECT_EQ(store.model.replay({second, {9}, expiry, false}, store.at_now()).status, OpStatus::duplicate);
  EXPECT_EQ(store.sums().used, truth.used);
  EXPECT_EQ(store.sums().lent, truth.lent);
  EXPECT_EQ(store.send(kA, {}).status, OpStatus::applied);
}

TEST(Replay, IsNeverRefusedForWantOfRoom) {
  Store store;
  store.state(kB, {.need = 100, .want = 100});
  EXPECT_EQ(store.model
                .replay({store.op(kA, 1, {.uses = {{store.bucket(), 30}}}), {20}, store.now + 1min, false},
                        store.at_now())
                .status,
            OpStatus::applied);
  EXPECT_EQ(store.sums().used, 30U);
  EXPECT_EQ(store.sums().lent, 120U);
}

TEST(Replay, BaseStartsALogWhoseBeginningIsNoLongerKept) {
  Store store;
  EXPECT_EQ(store.model.replay({store.op(kA, 50, {}), {0}, store.now, true}, store.at_now()).status,
            OpStatus::applied);
  EXPECT_EQ(store.model.hwm(store.partition, kA), 50U);
  EXPECT_EQ(store.model.replay({store.op(kA, 50, {}), {0}, store.now, true}, store.at_now()).status,
            OpStatus::duplicate);
}

TEST(Replay, ReplayingMemberIsNotForgottenThoughItsSessionIsOver) {
  Store store;
  store.model.replay({store.op(kB, 1, {}), {0}, 0ms, false}, store.at_now());
  store.ping(kA);
  EXPECT_EQ(store.model.hwm(store.partition, kB), 1U);
  EXPECT_EQ(store.ping(kA).peers, (std::vector<Ping::Peer>{{kA, store.now + 15min}})) << "but it is not live";
}

}  // namespace
}  // namespace tollgate::quota
