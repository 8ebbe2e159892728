// Each rule of the store, on the model; the scripts follow it step by step (tests/metering/redis).
#include "tests/metering/quota/store_rig.h"

#include "metering/base/random.h"

namespace tollgate::quota {
namespace {

using namespace store_test;

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
