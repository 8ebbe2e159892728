// Each rule of the store, on the model; the scripts follow it step by step (tests/metering/redis).
#include "metering/quota/store_model.h"

#include <gtest/gtest.h>

#include "metering/base/random.h"
#include "metering/quota/keys.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;

constexpr Milliseconds kStart{1'763'820'000'000};
constexpr WindowShape kDay{86'400'000ms, 60'000ms};
constexpr Incarnation kA = 10, kB = 20, kC = 30;

struct Store {
  Milliseconds now = kStart;
  StoreModel model{[this] { return now; }};
  SendContext context{"run", kStart, 15min, 10s, 0};
  std::string subject = subject_key({"acme", std::nullopt, "ann"});
  unsigned partition = partition_of(subject);

  explicit Store(bool open = true) {
    if (!open) return;
    ping(kA);
    model.take_messages();
  }
  SendContext at_now() {
    context.clock = now;
    return context;
  }
  PingReply ping(Incarnation from, std::uint64_t acked = 0, std::vector<Ping::Peer> peers = {}) {
    return model.ping({from, partition, acked, std::move(peers)}, at_now());
  }
  Op op(Incarnation from, std::uint64_t seq, OpAccount account) {
    if (account.field.empty()) account.field = "daily";
    if (account.window == 0ms) account.window = kDay.window, account.bucket = kDay.bucket;
    if (account.limit == 0) account.limit = 100;
    return {from, partition, seq, subject, {std::move(account)}};
  }
  // The next op of that incarnation.
  OpReply send(Incarnation from, OpAccount account) {
    return model.apply(op(from, model.hwm(partition, from) + 1, std::move(account)), at_now());
  }
  LeaseState state(Incarnation from, OpAccount account) {
    OpReply reply = send(from, std::move(account));
    EXPECT_EQ(reply.status, OpStatus::applied);
    return reply.states.at(0);
  }
  std::int64_t bucket() const { return kDay.bucket_of(now); }
  StoreModel::Sums sums() { return model.sums({subject, "daily"}, kDay); }
  std::vector<Incarnation> recalled() {
    std::vector<Incarnation> to;
    for (const StoreModel::Message& message : model.take_messages())
      if (message.kind == StoreModel::Message::Kind::recall) to.push_back(message.to);
    return to;
  }
};

// ---- numbers

TEST(StoreModel, RepeatedOpIsAnsweredAndNotAppliedAgain) {
  Store store;
  const OpAccount use{.uses = {{store.bucket(), 3}}, .want = 5};
  const OpReply first = store.send(kA, use);
  const std::string record = store.model.record({store.subject, "daily"});
  const OpReply again = store.model.apply(store.op(kA, 1, use), store.at_now());
  EXPECT_EQ(again.status, OpStatus::duplicate);
  EXPECT_EQ(again.hwm, 1U);
  EXPECT_EQ(again.states[0].outstanding, first.states[0].outstanding) << "what a lost reply had said";
  EXPECT_EQ(again.states[0].granted, 0U);
  EXPECT_EQ(again.states[0].used, 3U);
  EXPECT_EQ(store.model.record({store.subject, "daily"}), record);
}

TEST(StoreModel, RetryLongAfterTheAccountIsForgottenIsStillADuplicate) {
  Store store;
  store.send(kA, {.uses = {{store.bucket(), 3}}});
  const std::int64_t then = store.bucket();
  store.now += 25h;
  store.send(kA, {.field = "other", .uses = {{store.bucket(), 1}}});
  ASSERT_EQ(store.model.apply(store.op(kA, 1, {.uses = {{then, 3}}}), store.at_now()).status,
            OpStatus::duplicate);
  EXPECT_EQ(store.sums().used, 0U);
}

TEST(StoreModel, GapIsReportedAndNothingIsApplied) {
  Store store;
  store.send(kA, {.want = 1});
  const auto before = store.model.partition_fields(store.partition);
  const OpReply reply = store.model.apply(store.op(kA, 3, {.uses = {{store.bucket(), 3}}}), store.at_now());
  EXPECT_EQ(reply.status, OpStatus::gap);
  EXPECT_EQ(reply.hwm, 1U);
  EXPECT_TRUE(reply.states.empty());
  EXPECT_EQ(store.sums().used, 0U);
  EXPECT_EQ(store.model.partition_fields(store.partition), before);
}

TEST(StoreModel, NumbersOfIncarnationsAreTheirOwn) {
  Store store;
  store.send(kA, {});
  store.send(kA, {});
  EXPECT_EQ(store.model.apply(store.op(kB, 1, {}), store.at_now()).status, OpStatus::applied);
  EXPECT_EQ(store.model.hwm(store.partition, kA), 2U);
  EXPECT_EQ(store.model.hwm(store.partition, kB), 1U);
}

// ---- settling and lending

TEST(StoreModel, TokenIsChargedFromItsGrantUntilItsUseLeavesTheWindow) {
  Store store;
  EXPECT_EQ(store.state(kA, {.need = 100, .want = 100}).granted, 100U);
  EXPECT_EQ(store.sums().lent, 100U);
  store.now += 10min;
  store.state(kA, {.uses = {{store.bucket(), 100}}});
  EXPECT_EQ(store.sums().lent, 0U);
  EXPECT_EQ(store.sums().used, 100U);
  const Milliseconds leaves = kDay.leaves_at(store.bucket());
  store.now = leaves - 1ms;
  EXPECT_EQ(store.state(kB, {.need = 1, .want = 1}).granted, 0U)
      << "24 h after the grant, not yet after the use";
  store.now = leaves;
  EXPECT_EQ(store.state(kB, {.need = 1, .want = 1}).granted, 1U);
}

TEST(StoreModel, UsesAreDatedExactlyInTailAndBody) {
  Store store;
  const std::int64_t now = store.bucket();
  store.state(kA, {.uses = {{now - 500, 1}, {now, 2}}});
  store.state(kA, {.uses = {{now - 600, 4}, {now - 550, 8}, {now - 500, 16}, {now - 3, 32}}});
  auto record = AccountRecord::decode(store.model.record({store.subject, "daily"}));
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->window.buckets(),
            (std::vector<RollingWindow::Bucket>{
                {now - 600, 4}, {now - 550, 8}, {now - 500, 17}, {now - 3, 32}, {now, 2}}));
}

TEST(StoreModel, UseInABucketThatHasLeftCountsNothingButEndsItsLease) {
  Store store;
  store.state(kA, {.need = 10, .want = 10});
  const LeaseState state = store.state(kA, {.uses = {{store.bucket() - 1'500, 4}}});
  EXPECT_EQ(state.used, 0U);
  EXPECT_EQ(state.outstanding, 6U);
}

TEST(StoreModel, UseOlderThanTheWindowIsNoOveruse) {
  Store store;
  EXPECT_FALSE(store.state(kA, {.uses = {{store.bucket() - 1'500, 4}}}).over);
}

TEST(StoreModel, MoreUseThanWasLentIsCountedAndReported) {
  Store store;
  store.state(kA, {.need = 3, .want = 3});
  const LeaseState state = store.state(kA, {.uses = {{store.bucket(), 4}}});
  EXPECT_TRUE(state.over);
  EXPECT_EQ(state.used, 4U);
  EXPECT_EQ(state.outstanding, 0U);
}

TEST(StoreModel, UseOfAnAccountWithoutLimitIsNoOveruse) {
  Store store;
  const LeaseState state = store.state(kA, {.limit = kUnlimited, .uses = {{store.bucket(), 4'000'000}}});
  EXPECT_FALSE(state.over);
  EXPECT_EQ(state.used, 4'000'000U);
  EXPECT_EQ(state.limit, kUnlimited);
}

TEST(StoreModel, UnitsGivenBackLeaveTheWindowAndNotTheLease) {
  Store store;
  store.state(kA, {.need = 10, .want = 10});
  store.state(kA, {.uses = {{store.bucket(), 4}}});
  const LeaseState state = store.state(kA, {.uses = {{store.bucket(), 1}, {store.bucket(), -3}}});
  EXPECT_EQ(state.used, 2U);
  EXPECT_EQ(state.outstanding, 5U) << "10 - 4 - 1: the three come back to the store, not to the lease";
  EXPECT_EQ(store.state(kA, {.uses = {{store.bucket(), -50}}}).used, 0U) << "never more than is there";
}

TEST(StoreModel, ReturnedTokensAreLentToTheNextAtOnce) {
  Store store;
  store.state(kA, {.need = 100, .want = 100});
  EXPECT_EQ(store.state(kB, {.need = 1, .want = 1}).granted, 0U);
  store.state(kA, {.returned = 60});
  EXPECT_EQ(store.state(kB, {.need = 60, .want = 60}).granted, 60U);
}

TEST(StoreModel, ForgetVoidsWhatWasLentBefore) {
  Store store;
  store.state(kA, {.need = 50, .want = 50});
  const LeaseState state =
      store.state(kA, {.uses = {{store.bucket(), 20}}, .forget = true, .need = 5, .want = 5});
  EXPECT_EQ(state.outstanding, 5U);
  EXPECT_EQ(state.used, 20U);
  EXPECT_FALSE(state.over);
}

TEST(StoreModel, NeedIsAllOrNothingOverTheAccountsOfAnOp) {
  Store store;
  store.send(kB, {.field = "full", .need = 100, .want = 100});
  Op op = store.op(kA, 1, {.field = "daily", .need = 1, .want = 10});
  op.accounts.push_back(store.op(kA, 1, {.field = "full", .need = 1, .want = 1}).accounts[0]);
  const OpReply reply = store.model.apply(op, store.at_now());
  EXPECT_EQ(reply.states[0].granted, 0U);
  EXPECT_EQ(reply.states[1].granted, 0U);
  EXPECT_EQ(reply.states[0].outstanding, 0U);
}

TEST(StoreModel, WantIsSharedFairlyWithOtherHolders) {
  Store store;
  store.state(kA, {.need = 20, .want = 20});
  EXPECT_EQ(store.state(kB, {.need = 1, .want = 80}).granted, 40U) << "80 left, one other holder";
  EXPECT_EQ(store.state(kC, {.need = 1, .want = 80}).granted, 13U) << "40 left, two other holders";
}

TEST(StoreModel, ShareIsReckonedForADozenAtMostSinceMostOfManyHoldersAreIdle) {
  Store store;
  for (Incarnation holder = 100; holder < 115; ++holder)
    ASSERT_EQ(store.state(holder, {.limit = 1'000, .need = 1, .want = 1}).granted, 1U);
  EXPECT_EQ(store.state(kA, {.limit = 1'000, .need = 1, .want = 400}).granted, 82U) << "a twelfth of 985";
}

TEST(StoreModel, LargeNeedIsGivenWholeThoughUnfair) {
  Store store;
  store.state(kA, {.need = 20, .want = 20});
  EXPECT_EQ(store.state(kB, {.need = 80, .want = 80}).granted, 80U);
}

TEST(StoreModel, PlentyIsLentGenerouslyUpToTheLeaseMaximum) {
  Store store;
  store.context.lease_max = 400;
  EXPECT_EQ(store.state(kA, {.limit = 1'000, .need = 1, .want = 10}).granted, 125U) << "an eighth";
  EXPECT_EQ(store.state(kA, {.field = "big", .limit = 1'000'000, .need = 1, .want = 10}).granted, 400U);
  EXPECT_EQ(store.state(kA, {.field = "exact", .limit = 1'000'000, .need = 10, .want = 10}).granted, 10U)
      << "who wants no more than it needs gets no more";
}

TEST(StoreModel, LastTokensAreLentToTheLast) {
  Store store;
  EXPECT_EQ(store.state(kA, {.need = 0, .want = 500}).granted, 100U);
  store.state(kA, {.returned = 3});
  EXPECT_EQ(store.state(kB, {.need = 2, .want = 50}).granted, 2U);
  EXPECT_EQ(store.state(kB, {.need = 0, .want = 50}).granted, 1U);
  EXPECT_EQ(store.state(kB, {.need = 0, .want = 50}).granted, 0U);
}

TEST(StoreModel, UsedAndLentNeverExceedTheLimitAfterAGrant) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    Store store;
    store.context.lease_max = static_cast<std::uint32_t>(random.below(80));
    std::map<Incarnation, std::uint64_t> held;
    bool reached = false;
    for (int step = 0; step < 300; ++step) {
      store.now += Milliseconds(random.below(20'000'000));
      const Incarnation who = random.one_in(3) ? kA : random.one_in(2) ? kB : kC;
      OpAccount account;
      const std::uint64_t used = random.below(held[who] + 1);
      if (used > 0) account.uses = {{store.bucket(), static_cast<std::int64_t>(used)}};
      account.returned = random.one_in(3) ? random.below(held[who] - used + 1) : 0;
      account.need = static_cast<std::uint32_t>(random.below(20));
      account.want = account.need + static_cast<std::uint32_t>(random.below(60));
      const LeaseState state = store.state(who, account);
      held[who] = state.outstanding;
      ASSERT_FALSE(state.over);
      ASSERT_LE(store.sums().used + store.sums().lent, 100U);
      ASSERT_EQ(store.sums().lent, held[kA] + held[kB] + held[kC]) << "the books of both sides agree";
      reached |= store.sums().used + store.sums().lent == 100;
      store.ping(kA), store.ping(kB), store.ping(kC);
    }
    EXPECT_TRUE(reached);
  }
}

TEST(StoreModel, MoreHoldersThanARecordNamesGetNothing) {
  Store store;
  for (Incarnation i = 1; i <= kLeasesMax; ++i)
    ASSERT_EQ(store.state(1'000 + i, {.limit = 10'000, .need = 1, .want = 1}).granted, 1U);
  EXPECT_EQ(store.state(kA, {.limit = 10'000, .need = 1, .want = 1}).granted, 0U);
  EXPECT_EQ(store.state(1'001, {.limit = 10'000, .need = 1, .want = 1}).granted, 1U);
  Replay fact{store.op(kB, 1, {}), {25}, store.now + 1min, false};
  store.model.replay(fact, store.at_now());
  EXPECT_EQ(store.sums().used, 25U) << "a replayed lease that finds no place is counted as used";
}

// ---- refusals

TEST(StoreModel, RefusalSaysWhenItWouldFitToTheMillisecond) {
  Store store;
  store.state(kA, {.need = 100, .want = 100});
  store.state(kA, {.uses = {{store.bucket(), 40}}});
  const Milliseconds first = kDay.leaves_at(store.bucket());
  store.now += 30min;
  store.state(kA, {.uses = {{store.bucket(), 60}}});
  const Milliseconds second = kDay.leaves_at(store.bucket());
  const LeaseState refused = store.state(kB, {.need = 41, .want = 41});
  EXPECT_EQ(refused.next_free_at, first);
  EXPECT_EQ(refused.next_free_units, 40U);
  EXPECT_EQ(refused.fits_at, second);
  EXPECT_EQ(store.state(kB, {.need = 40, .want = 40}).fits_at, first);
  EXPECT_EQ(store.state(kB, {.need = 101, .want = 101}).fits_at, Milliseconds::max());
  store.now = second - 1ms;
  EXPECT_EQ(store.state(kB, {.need = 41, .want = 41}).granted, 0U);
  store.now = second;
  EXPECT_EQ(store.state(kB, {.need = 41, .want = 41}).granted, 41U);
}

TEST(StoreModel, RefusalRecallsWhatOthersHoldWhenThatWouldDo) {
  Store store;
  store.state(kA, {.need = 60, .want = 60});
  store.state(kB, {.need = 40, .want = 40});
  store.model.take_messages();
  const LeaseState refused = store.state(kC, {.need = 1, .want = 1});
  EXPECT_EQ(refused.fits_at, 0ms);
  EXPECT_EQ(refused.lent_to_others, 100U);
  EXPECT_EQ(store.recalled(), (std::vector<Incarnation>{kA, kB}));
}

TEST(StoreModel, RefusalThatNobodyCanHelpRecallsNothing) {
  Store store;
  store.state(kA, {.need = 100, .want = 100});
  store.state(kA, {.uses = {{store.bucket(), 95}}});
  store.model.take_messages();
  EXPECT_GT(store.state(kB, {.need = 6, .want = 6}).fits_at, store.now);
  EXPECT_EQ(store.recalled(), std::vector<Incarnation>{});
  EXPECT_EQ(store.state(kB, {.need = 5, .want = 5}).fits_at, 0ms);
  EXPECT_EQ(store.recalled(), std::vector<Incarnation>{kA});
}

TEST(StoreModel, RecallGoesOnlyToLiveSessions) {
  Store store;
  store.state(kA, {.need = 50, .want = 50});
  store.state(kB, {.need = 50, .want = 50});
  store.now += 16min;
  store.ping(kB);
  store.model.take_messages();
  store.state(kC, {.need = 1, .want = 1});
  EXPECT_EQ(store.recalled(), std::vector<Incarnation>{kB})
      << "the ping renewed it, the record does not know";
}

TEST(StoreModel, WantAloneRecallsNobody) {
  Store store;
  store.state(kA, {.need = 100, .want = 100});
  store.model.take_messages();
  store.state(kB, {.need = 0, .want = 50});
  EXPECT_TRUE(store.model.take_messages().empty());
}

TEST(StoreModel, UnitsThatLeaveBeforeTheirTimeAreToldToAllAndNothingElseIs) {
  Store store;
  store.state(kA, {.need = 10, .want = 10});
  store.state(kA, {.uses = {{store.bucket(), 4}}});
  const std::int64_t used_in = store.bucket();
  store.model.take_messages();
  store.state(kA, {.returned = 6});
  EXPECT_TRUE(store.model.take_messages().empty()) << "a refusal reckons with what others may hand back";
  store.state(kA, {.uses = {{used_in - 1, -2}}});
  EXPECT_TRUE(store.model.take_messages().empty()) << "nothing was counted there";
  store.state(kA, {.uses = {{used_in, -2}}});
  const auto told = store.model.take_messages();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].kind, StoreModel::Message::Kind::room);
  store.state(kA, {.limit = kUnlimited, .uses = {{used_in, -2}}});
  EXPECT_TRUE(store.model.take_messages().empty()) << "nobody is refused without a limit";
}

// ---- sessions

TEST(StoreModel, LeaseIsForgottenAWindowAfterItsSession) {
  Store store;
  store.state(kA, {.need = 100, .want = 100});
  const Milliseconds over = store.now + 15min + kDay.window + kDay.guard();
  store.now = over - 1ms;
  EXPECT_EQ(store.sums().lent, 100U);
  store.now = over;
  EXPECT_EQ(store.sums().lent, 0U);
}

TEST(StoreModel, PingKeepsALeaseWithoutTouchingItsRecord) {
  Store store;
  store.state(kA, {.need = 100, .want = 100});
  const std::string record = store.model.record({store.subject, "daily"});
  for (int hour = 0; hour < 30; ++hour) {
    store.now += 1h;
    store.ping(kA);
  }
  EXPECT_EQ(store.model.record({store.subject, "daily"}), record);
  EXPECT_EQ(store.sums().lent, 100U);
  EXPECT_EQ(store.state(kB, {.need = 1, .want = 1}).granted, 0U);
}

TEST(StoreModel, SessionsAreNeverShortened) {
  Store store;
  const Milliseconds promised = store.send(kA, {}).session_expiry;
  EXPECT_EQ(promised, store.now + 15min);
  store.context.session_ttl = 1min;
  EXPECT_EQ(store.send(kA, {}).session_expiry, promised);
  EXPECT_EQ(store.ping(kA).session_expiry, promised);
}

TEST(StoreModel, DuplicateAndGapRenewNoSession) {
  Store store;
  const Milliseconds promised = store.send(kA, {}).session_expiry;
  store.now += 5min;
  EXPECT_EQ(store.model.apply(store.op(kA, 1, {}), store.at_now()).session_expiry, promised);
  EXPECT_EQ(store.model.apply(store.op(kA, 7, {}), store.at_now()).session_expiry, promised);
  EXPECT_EQ(store.send(kA, {}).session_expiry, store.now + 15min);
}

TEST(StoreModel, MembersAreForgottenTwoDaysAfterTheirSession) {
  Store store;
  store.send(kB, {});
  store.now += 15min + 48h - 1ms;
  store.ping(kA);
  EXPECT_EQ(store.model.hwm(store.partition, kB), 1U);
  store.now += 1ms;
  store.ping(kA);
  EXPECT_EQ(store.model.hwm(store.partition, kB), 0U);
}

TEST(StoreModel, MembersAreKeptForTheLongestWindowCountedHere) {
  Store store;
  const std::int64_t then = store.now / 60s;
  store.send(kB, {.window = 744h, .bucket = 60s, .uses = {{then, 7}}});
  store.now += 30 * 24h;
  store.ping(kA);
  const OpReply again = store.model.apply(
      store.op(kB, 1, {.window = 744h, .bucket = 60s, .uses = {{then, 7}}}), store.at_now());
  EXPECT_EQ(again.status, OpStatus::duplicate) << "its uses still count: applied twice they would be doubled";
  store.now += 2 * 24h;
  store.ping(kA);
  EXPECT_EQ(store.model.hwm(store.partition, kB), 0U);
}

// ---- clocks

TEST(StoreModel, ClockThatStepsBackFreesNothingEarlyAndDatesNothingEarlier) {
  Store store;
  store.state(kA, {.need = 1, .want = 1});
  store.now -= 10min;
  const OpReply reply = store.model.apply(store.op(kA, 2, {}), store.at_now());
  EXPECT_EQ(reply.now, kStart);
}

TEST(StoreModel, DisagreeingClocksAreSettledAndNotServed) {
  for (const Milliseconds skew : {-2'001ms, 2'001ms}) {
    Store store;
    store.context.clock = store.now + skew;
    const OpReply reply = store.model.apply(
        store.op(kA, 1, {.uses = {{store.bucket(), 2}}, .need = 1, .want = 1}), store.context);
    EXPECT_TRUE(reply.clock_off);
    EXPECT_EQ(reply.states[0].used, 2U);
    EXPECT_EQ(reply.states[0].granted, 0U);
    EXPECT_EQ(reply.states[0].fits_at, 0ms);
    store.context.clock = store.now + (skew > 0ms ? 2'000ms : -2'000ms);
    EXPECT_EQ(store.model.apply(store.op(kA, 2, {.need = 1, .want = 1}), store.context).states[0].granted,
              1U);
  }
}

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

// ---- changes by administrators

TEST(Override, ActsOnTheNextOpAndExpiresWithItsGrant) {
  Store store;
  store.state(kA, {.need = 100, .want = 100});
  EXPECT_EQ(store.state(kB, {.need = 1, .want = 1}).granted, 0U);
  store.model.set_override({store.subject, "daily"}, LimitOverride{std::nullopt, {{5, store.now + 1h}}});
  const LeaseState more = store.state(kB, {.need = 5, .want = 5});
  EXPECT_EQ(more.granted, 5U);
  EXPECT_EQ(more.limit, 105U);
  store.now += 1h;
  EXPECT_EQ(store.state(kB, {.returned = 5, .need = 1, .want = 1}).granted, 0U);
}

TEST(Override, LoweringDrainsAndRecalls) {
  Store store;
  store.state(kA, {.need = 40, .want = 40});
  store.model.take_messages();
  store.model.set_override({store.subject, "daily"}, LimitOverride{50, {}});
  auto messages = store.model.take_messages();
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_EQ(messages[0].kind, StoreModel::Message::Kind::policy);
  EXPECT_EQ(messages[0].account, (AccountKey{store.subject, "daily"}));
  store.model.set_override({store.subject, "daily"}, LimitOverride{10, {}});
  EXPECT_EQ(store.recalled(), std::vector<Incarnation>{kA});
  EXPECT_EQ(store.state(kB, {.need = 1, .want = 1}).granted, 0U);
  store.state(kA, {.uses = {{store.bucket(), 9}}, .returned = 31});
  EXPECT_EQ(store.state(kB, {.need = 1, .want = 1}).granted, 1U);
}

TEST(Override, WithoutALimitTokensAreLentFreely) {
  Store store;
  store.context.lease_max = 400;
  store.model.set_override({store.subject, "daily"}, LimitOverride{kUnlimited, {}});
  const LeaseState state = store.state(kA, {.need = 5'000, .want = 6'000});
  EXPECT_EQ(state.granted, 6'000U);
  EXPECT_EQ(state.limit, kUnlimited);
}

TEST(Override, TakenAwayLeavesTheRulesLimitAndNoTrace) {
  Store store;
  const AccountKey key{store.subject, "daily"};
  store.model.set_override(key, LimitOverride{7, {}});
  EXPECT_EQ(store.model.get_override(key), (LimitOverride{7, {}}));
  store.model.set_override(key, std::nullopt);
  EXPECT_EQ(store.model.get_override(key), std::nullopt);
  EXPECT_EQ(store.state(kA, {.need = 1, .want = 1}).limit, 100U);
}

TEST(Reset, ForgetsWhatWasCountedAndKeepsWhatIsLent) {
  Store store;
  store.state(kA, {.need = 100, .want = 100});
  store.state(kA, {.uses = {{store.bucket(), 90}}});
  store.model.take_messages();
  store.model.reset({store.subject, "daily"});
  EXPECT_EQ(store.sums().used, 0U);
  EXPECT_EQ(store.sums().lent, 10U);
  EXPECT_EQ(store.model.take_messages().at(0).kind, StoreModel::Message::Kind::policy);
  EXPECT_EQ(store.state(kB, {.need = 90, .want = 90}).granted, 90U);
  store.model.reset({store.subject, "nothing"});
  EXPECT_EQ(store.model.record({store.subject, "nothing"}), "");
}

TEST(StoreModel, ReadAndListShowWhatIsCounted) {
  Store store;
  store.state(kA, {.need = 10, .want = 10});
  store.state(kA, {.uses = {{store.bucket(), 4}}});
  store.state(kA, {.field = "#|Case|read", .limit = kUnlimited, .uses = {{store.bucket(), 9}}});
  const auto states = store.model.read(
      {{.key = {store.subject, "daily"}, .limit = 100, .window = kDay.window, .bucket = kDay.bucket}});
  ASSERT_EQ(states.size(), 1U);
  EXPECT_EQ(states[0].used, 4U);
  EXPECT_EQ(states[0].lent_to_others, 6U);
  EXPECT_EQ(states[0].limit, 100U);
  EXPECT_EQ(states[0].next_free_at, kDay.leaves_at(store.bucket()));
  const auto listed = store.model.list(store.subject, "#|", kDay.window, kDay.bucket);
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].field, "#|Case|read");
  EXPECT_EQ(listed[0].used, 9U);
}

}  // namespace
}  // namespace tollgate::quota
