// What a ledger does while the store is slow, away or not yet heard of; and reads.
#include "tests/metering/quota/ledger_rig.h"

namespace tollgate::quota {
namespace {

using namespace ledger_test;

TEST_F(LeaseLedgerTest, TheDeadlineIsOneForAllAndALateGrantServesTheNextCall) {
  owners.at_once = false;
  charge({of("ann", "daily", 9), of("org", "all", 9)});
  now += 49ms;
  owners.expire();
  EXPECT_FALSE(outcome);
  now += 1ms;
  owners.expire();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::unavailable);
  EXPECT_EQ(ledger->counters().timeouts, 1U);
  EXPECT_TRUE(outcome->states.empty());
  owners.deliver();
  EXPECT_EQ(charge({of("ann", "daily", 9), of("org", "all", 9)}), Status::admitted);
  EXPECT_EQ(owners.requests, 2);
}

TEST_F(LeaseLedgerTest, ARememberedRefusalWaitsForTheOtherLimitsNoLongerThanACallMay) {
  const AccountCharge burst = of("ann", "burst", 1), all = of("org", "all", 9);
  charge({burst});
  ASSERT_EQ(charge({burst}), Status::exceeded);
  owners.at_once = false;
  EXPECT_EQ(charge({burst, all}), kWaits);
  now += 49ms;
  owners.expire();
  EXPECT_FALSE(outcome);
  now += 1ms;
  owners.expire();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::exceeded) << "what is known wins over what nobody said";
  EXPECT_EQ(outcome->violated, std::vector<std::uint32_t>{0});
  EXPECT_EQ(ledger->counters().timeouts, 0U);
  owners.deliver();
  const int asked = owners.requests;
  EXPECT_EQ(charge({burst, all}), Status::exceeded) << "at once: tokens came in late";
  EXPECT_EQ(owners.requests, asked);
}

TEST_F(LeaseLedgerTest, ARememberedRefusalAsksNobodyWhileTheStoreIsDown) {
  const AccountCharge burst = of("ann", "burst", 1), all = of("org", "all", 9);
  charge({burst});
  ASSERT_EQ(charge({burst}), Status::exceeded);
  const int asked = owners.requests;
  for (const OutagePolicy policy : {OutagePolicy::lease, OutagePolicy::allow}) {
    ledger->set_outage_policy(policy);
    owners.up = false;
    EXPECT_EQ(charge({burst, all}), Status::exceeded);
    EXPECT_EQ(outcome->violated, std::vector<std::uint32_t>{0});
    EXPECT_EQ(owners.requests, asked);
  }
}

TEST_F(LeaseLedgerTest, ARefusalWinsOverAnOwnerThatCannotAsk) {
  owners.at_once = false;
  charge({of("ann", "burst", 0), of("org", "all", 9)});
  owners.answer_next();
  owners.up = false;
  owners.answer_next();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::exceeded);
  EXPECT_EQ(outcome->violated, std::vector<std::uint32_t>{0});
}

TEST_F(LeaseLedgerTest, WithoutTheStoreTokensAreSpentThenCallsAreUnavailable) {
  owners.extra = 1;
  charge({of("ann", "daily", 9)});
  owners.up = false;
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::admitted);
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::unavailable);
  EXPECT_EQ(ledger->counters().unavailable, 1U);
  owners.up = true;
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::admitted);
}

TEST_F(LeaseLedgerTest, PolicyDenyAdmitsNothingWhileTheStoreIsDown) {
  owners.extra = 5;
  charge({of("ann", "daily", 9)});
  ledger->set_outage_policy(OutagePolicy::deny);
  owners.up = false;
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::unavailable);
  EXPECT_EQ(owners.requests, 1);
  owners.up = true;
  EXPECT_EQ(charge({of("ann", "daily", 9)}), Status::admitted);
}

TEST_F(LeaseLedgerTest, PolicyAllowLetsThroughWhatLacksAndCountsIt) {
  charge({of("ann", "daily", 5)});
  ledger->set_outage_policy(OutagePolicy::allow);
  owners.up = false;
  ASSERT_EQ(charge({of("ann", "daily", 5, 3)}), Status::admitted);
  EXPECT_TRUE(outcome->degraded);
  ASSERT_EQ(outcome->receipt.items.size(), 1U);
  EXPECT_TRUE(outcome->receipt.items[0].degraded);
  EXPECT_EQ(outcome->states[0].used, 4U);
  ASSERT_EQ(charge({of("ann", "daily", 5, 2)}), Status::admitted);
  give_back();
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->available(), 0U) << "what was forced gives no token back";
  owners.up = true;
  owners.report(account(of("ann", "daily", 5)), 0, false);
  EXPECT_EQ(owners.book(account(of("ann", "daily", 5))).used, 4U);
  EXPECT_EQ(charge({of("ann", "daily", 5, 2)}), Status::exceeded);
  EXPECT_FALSE(outcome->degraded);
  owners.up = false;
  EXPECT_EQ(charge({of("ann", "daily", 5, 2)}), Status::exceeded) << "a refusal that is remembered stands";
  EXPECT_EQ(ledger->counters().degraded, 2U);
}

TEST_F(LeaseLedgerTest, PolicyAllowBeforeAnyClockCountsOnceTheTimeIsKnown) {
  ledger->set_outage_policy(OutagePolicy::allow);
  owners.up = false;
  ASSERT_EQ(charge({of("ann", "daily", 5, 3)}), Status::admitted);
  ASSERT_EQ(charge({of("ann", "daily", 5, 2)}), Status::admitted);
  EXPECT_TRUE(outcome->degraded);
  give_back();
  ledger->tick();
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->unsettled(), 0U);
  owners.join(partition_of(of("ann", "daily", 5).key.subject_key), kEpoch);
  ledger->tick();
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->unsettled(), 3U);
  ledger->tick();
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->unsettled(), 3U);
}

TEST_F(LeaseLedgerTest, AnObservationBeforeAnyClockWaitsForTheTimeOnly) {
  owners.at_once = false;
  EXPECT_EQ(charge({of("ann", "#|Case|read", kUnlimited)}), kWaits);
  owners.deliver();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::admitted);
  EXPECT_FALSE(outcome->degraded);
}

TEST_F(LeaseLedgerTest, ASessionThatEndedMustBeAskedFor) {
  owners.extra = 50;
  charge({of("ann", "daily", 100)});
  table.partition(partition_of(of("ann", "daily", 1).key.subject_key)).session.fetch_add(1);
  owners.up = false;
  EXPECT_EQ(charge({of("ann", "daily", 100)}), Status::unavailable);
}

TEST_F(LeaseLedgerTest, AReadSettlesFirstAndIsExact) {
  owners.extra = 9;
  charge({of("ann", "daily", 100, 4)});
  std::vector<AccountState> states;
  const auto read = [&](AccountCharge one) {
    states.clear();
    std::string error;
    ledger->read({one, one}, [&](Result<std::vector<AccountState>>&& answer) {
      if (answer)
        states = *answer;
      else
        error = answer.error().message;
    });
    return error;
  };
  EXPECT_EQ(read(of("ann", "daily", 100)), "");
  ASSERT_EQ(states.size(), 2U);
  EXPECT_EQ(states[0].used, 4U);
  EXPECT_GE(states[0].next_free_after, kDay);
  EXPECT_EQ(owners.settles, 1);
  charge({of("ann", "daily", 100, 2)});
  owners.up = false;
  EXPECT_EQ(read(of("ann", "daily", 100)), "");
  ASSERT_EQ(states.size(), 2U);
  EXPECT_EQ(states[0].used, 6U) << "from memory: what was settled and what came since";
  EXPECT_NE(read(of("bob", "daily", 100)), "");
}

TEST_F(LeaseLedgerTest, AListHasWhatTheStoreHasOrElseWhatIsRemembered) {
  owners.extra = 9;
  charge({of("ann", "daily", 100), of("ann", "#|Case|read", kUnlimited),
          of("ann", "#|Contact|read", kUnlimited, 3)});
  std::vector<Ledger::Listed> listed;
  const auto list = [&] {
    listed.clear();
    ledger->list(of("ann", "", 0).key.subject_key, "#|", kDay, kMinute,
                 [&](Result<std::vector<Ledger::Listed>>&& answer) {
                   if (answer) listed = *answer;
                 });
  };
  for (bool up : {true, false}) {
    owners.up = up;
    list();
    ASSERT_EQ(listed.size(), 2U);
    EXPECT_EQ(listed[0].field, "#|Case|read");
    EXPECT_EQ(listed[1].used, 3U);
  }
}

TEST_F(LeaseLedgerTest, AReadThatIsNotAnsweredEndsAndTellsWhatIsRemembered) {
  charge({of("ann", "daily", 100, 4)});
  owners.silent = true;
  std::optional<std::uint64_t> used;
  ledger->read({of("ann", "daily", 100)},
               [&](Result<std::vector<AccountState>>&& answer) { used = answer->at(0).used; });
  EXPECT_FALSE(used);
  now += 10s;
  owners.expire();
  EXPECT_EQ(used, 4U);
}

TEST_F(LeaseLedgerTest, ChargesThatWaitAreAnsweredWhenTheLedgerEnds) {
  owners.at_once = false;
  charge({of("ann", "daily", 9)});
  ledger = nullptr;
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::unavailable);
  owners.deliver();
}

}  // namespace
}  // namespace tollgate::quota
