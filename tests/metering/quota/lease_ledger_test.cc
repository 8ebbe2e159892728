// Charges: from tokens, by asking, all or nothing, given back.
#include "metering/base/random.h"
#include "tests/metering/quota/ledger_rig.h"

namespace tollgate::quota {
namespace {

using namespace ledger_test;

TEST_F(LeaseLedgerTest, TheFirstCallAsksTheOthersAreAdmittedFromTheLease) {
  owners.extra = 9;
  ASSERT_EQ(charge({of("ann", "daily", 100)}), Status::admitted);
  EXPECT_EQ(owners.requests, 1);
  for (std::uint64_t i = 2; i <= 8; ++i) {
    ASSERT_EQ(charge({of("ann", "daily", 100)}), Status::admitted);
    EXPECT_EQ(outcome->states[0].used, i);
    EXPECT_EQ(outcome->states[0].remaining(), 100 - i);
  }
  EXPECT_EQ(owners.requests, 1);
  EXPECT_EQ(ledger->counters().waited, 1U);
  EXPECT_EQ(ledger->counters().local, 7U);
  ASSERT_EQ(outcome->receipt.items.size(), 1U);
  EXPECT_EQ(outcome->receipt.items[0].bucket_number, kEpoch / kMinute);
  EXPECT_FALSE(outcome->receipt.items[0].degraded);
}

TEST_F(LeaseLedgerTest, EitherAllAccountsAreChargedOrNone) {
  owners.extra = 5;
  ASSERT_EQ(charge({of("ann", "daily", 100), of("ann", "burst", 2), of("org", "all", 100)}),
            Status::admitted);
  ASSERT_EQ(charge({of("ann", "daily", 100), of("ann", "burst", 2), of("org", "all", 100)}),
            Status::admitted);
  ASSERT_EQ(charge({of("ann", "daily", 100), of("ann", "burst", 2), of("org", "all", 100)}),
            Status::exceeded);
  EXPECT_EQ(outcome->violated, std::vector<std::uint32_t>{1});
  EXPECT_EQ(outcome->states[0].used, 2U);
  EXPECT_EQ(outcome->states[1].used, 2U);
  EXPECT_EQ(outcome->states[2].used, 2U);
  EXPECT_GT(outcome->states[1].admitted_after, 0ms);
  EXPECT_EQ(outcome->states[0].admitted_after, 0ms);
  EXPECT_TRUE(outcome->receipt.items.empty());
}

TEST_F(LeaseLedgerTest, AStormOverTheLimitAsksOnceUntilTheStatedMoment) {
  charge({of("ann", "daily", 3, 3)});
  ASSERT_EQ(charge({of("ann", "daily", 3)}), Status::exceeded);
  const int asked = owners.requests;
  const Milliseconds wait = outcome->states[0].admitted_after;
  EXPECT_GE(wait, 10'000ms);
  EXPECT_LE(wait, 10'010ms);
  for (int i = 0; i < 1'000; ++i) ASSERT_EQ(charge({of("ann", "daily", 3)}), Status::exceeded);
  EXPECT_EQ(owners.requests, asked);
  EXPECT_EQ(ledger->counters().denied_locally, 1'000U);
  now += wait;
  owners.book(account(of("ann", "daily", 3))).used = 0;  // the window went on
  EXPECT_EQ(charge({of("ann", "daily", 3)}), Status::admitted) << "who waits that long is served";
  EXPECT_EQ(owners.requests, asked + 1);
}

TEST_F(LeaseLedgerTest, FewerUnitsThanWereRefusedAreAskedForAndMoreAreNot) {
  charge({of("ann", "daily", 10, 7)});
  ASSERT_EQ(charge({of("ann", "daily", 10, 5)}), Status::exceeded);
  const int asked = owners.requests;
  EXPECT_EQ(charge({of("ann", "daily", 10, 6)}), Status::exceeded);
  EXPECT_EQ(owners.requests, asked);
  EXPECT_EQ(charge({of("ann", "daily", 10, 3)}), Status::admitted);
  EXPECT_EQ(owners.requests, asked + 1);
  EXPECT_EQ(charge({of("ann", "daily", 10, 11)}), Status::exceeded);
  EXPECT_EQ(outcome->states[0].admitted_after, Milliseconds::max());
}

TEST_F(LeaseLedgerTest, TokensThatOthersTookFirstAreAskedForAgain) {
  owners.steal = 2;
  EXPECT_EQ(charge({of("ann", "daily", 100)}), Status::admitted);
  EXPECT_EQ(owners.requests, 3);
}

TEST_F(LeaseLedgerTest, AnAnswerThatNeverHelpsEndsAsUnavailable) {
  owners.steal = 1'000;
  EXPECT_EQ(charge({of("ann", "daily", 1'000'000)}), Status::unavailable);
  EXPECT_FALSE(outcome->error.empty());
}

TEST_F(LeaseLedgerTest, AccountsOfSeveralOwnersAreAskedAtTheSameTime) {
  owners.at_once = false;
  EXPECT_EQ(charge({of("ann", "daily", 9), of("org", "all", 9), of("t", "all", 9)}), kWaits);
  EXPECT_EQ(owners.requests, 3);
  EXPECT_EQ(owners.timers.size(), 1U);
  owners.deliver();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::admitted);
  EXPECT_TRUE(owners.timers[0].token.expired());
}

TEST_F(LeaseLedgerTest, ARefusalNamesEveryLimitWithoutRoomAndTheWaitOfEach) {
  owners.at_once = false;
  charge({of("ann", "burst", 0), of("org", "all", 0), of("t", "all", 9)});
  owners.answer_next();
  EXPECT_FALSE(outcome) << "one of the others may refuse it for longer";
  owners.refuse_until = owners.fits_at = kEpoch + 90'000ms;
  owners.deliver();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, Status::exceeded);
  EXPECT_EQ(outcome->violated, (std::vector<std::uint32_t>{0, 1}));
  EXPECT_GE(outcome->states[0].admitted_after, Milliseconds::max()) << "more than the limit";
  EXPECT_EQ(account(of("t", "all", 9)).cell->available(), 1U) << "kept for the next call";
}

TEST_F(LeaseLedgerTest, ARememberedRefusalAsksTheOtherLimitsOnceAndThenNobody) {
  const AccountCharge burst = of("ann", "burst", 2, 2), all = of("org", "all", 3, 2);
  ASSERT_EQ(charge({burst, all}), Status::admitted);
  ASSERT_EQ(charge({burst}), Status::exceeded);
  const int asked = owners.requests;
  owners.refuse_until = owners.fits_at = kEpoch + 90'000ms;
  ASSERT_EQ(charge({burst, all}), Status::exceeded);
  EXPECT_EQ(owners.requests, asked + 1);
  EXPECT_EQ(outcome->violated, (std::vector<std::uint32_t>{0, 1}));
  EXPECT_LE(outcome->states[0].admitted_after, 10'010ms);
  EXPECT_GE(outcome->states[1].admitted_after, 90'000ms);
  const std::uint64_t local = ledger->counters().denied_locally;
  for (int i = 0; i < 1'000; ++i) {
    ASSERT_EQ(charge({burst, all}), Status::exceeded);
    ASSERT_EQ(outcome->violated.size(), 2U);
  }
  EXPECT_EQ(owners.requests, asked + 1);
  EXPECT_EQ(ledger->counters().denied_locally, local + 1'000);
}

TEST_F(LeaseLedgerTest, WhatARefusedCallIsGrantedServesALaterOne) {
  const AccountCharge burst = of("ann", "burst", 1), all = of("org", "all", 2);
  ASSERT_EQ(charge({burst, all}), Status::admitted);
  ASSERT_EQ(charge({burst}), Status::exceeded);
  const int asked = owners.requests;
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(charge({burst, all}), Status::exceeded);
    ASSERT_EQ(outcome->violated, std::vector<std::uint32_t>{0});
    EXPECT_EQ(outcome->states[1].used, 1U);
  }
  EXPECT_EQ(owners.requests, asked + 1);
  EXPECT_EQ(owners.book(account(all)).lent, 1U);
  EXPECT_EQ(account(all).cell->available(), 1U);
  EXPECT_EQ(charge({all}), Status::admitted);
  EXPECT_EQ(owners.requests, asked + 1);
  EXPECT_EQ(charge({all}), Status::exceeded);
}

// Two calls that wait at once: what one is granted the other takes.
TEST_F(LeaseLedgerTest, ARefusedCallDoesNotAskAgainForWhatOthersTook) {
  const AccountCharge burst = of("ann", "burst", 1), all = of("org", "all", 100);
  ASSERT_EQ(charge({burst}), Status::admitted);
  ASSERT_EQ(charge({burst}), Status::exceeded);
  const int asked = owners.requests;
  owners.steal = 1'000;
  ASSERT_EQ(charge({burst, all}), Status::exceeded);
  EXPECT_EQ(outcome->violated, std::vector<std::uint32_t>{0});
  EXPECT_EQ(owners.requests, asked + 1);
}

TEST_F(LeaseLedgerTest, ARefusedCallDoesNotWaitForACandidateLimit) {
  AccountCharge candidate = of("org", "candidate", 9);
  candidate.shadow = true;
  const AccountCharge burst = of("ann", "burst", 1), all = of("t", "all", 9);
  ASSERT_EQ(charge({burst}), Status::admitted);
  owners.at_once = false;
  ASSERT_EQ(charge({candidate, burst, all}), kWaits);
  std::swap(owners.waiting[0], owners.waiting[2]);
  owners.answer_next();
  EXPECT_FALSE(outcome);
  owners.answer_next();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->violated, std::vector<std::uint32_t>{1});
  EXPECT_TRUE(outcome->shadow_violated.empty());
  const int asked = owners.requests;
  EXPECT_EQ(charge({candidate, burst, all}), Status::exceeded) << "remembered";
  EXPECT_EQ(owners.requests, asked);
}

TEST_F(LeaseLedgerTest, AShadowLimitIsChargedAndReportedAndRefusesNothing) {
  AccountCharge candidate = of("ann", "candidate", 2);
  candidate.shadow = true;
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(charge({of("ann", "daily", 9), candidate}), Status::admitted);
    EXPECT_TRUE(outcome->shadow_violated.empty());
    EXPECT_EQ(outcome->receipt.items.size(), 2U);
  }
  ASSERT_EQ(charge({of("ann", "daily", 9), candidate}), Status::admitted);
  EXPECT_EQ(outcome->shadow_violated, std::vector<std::uint32_t>{1});
  EXPECT_TRUE(outcome->violated.empty());
  EXPECT_EQ(outcome->receipt.items.size(), 1U);
  EXPECT_EQ(outcome->states[1].used, 2U);
  EXPECT_GT(outcome->states[1].admitted_after, 0ms);
  owners.up = false;
  AccountCharge unheard = of("bob", "candidate", 2);
  unheard.shadow = true;
  owners.up = true;
  charge({of("ann", "daily", 9, 2)});
  give_back();  // tokens for the next
  owners.up = false;
  ASSERT_EQ(charge({of("ann", "daily", 9), unheard}), Status::admitted)
      << "what nobody can say holds nobody up";
  EXPECT_TRUE(outcome->shadow_violated.empty());
  EXPECT_FALSE(outcome->degraded);
}

// An owner on the same thread answers what it can while it is told of something else.
TEST_F(LeaseLedgerTest, AnAnswerInTheMiddleOfTheLastAttemptDoesNotDecideTheCallTwice) {
  const AccountCharge daily = of("ann", "daily", 10), burst = of("ann", "burst", 5);
  ASSERT_EQ(charge({daily}), Status::admitted);
  owners.at_once = false;
  AccountCharge raised = daily;
  raised.limit = 20;
  ASSERT_EQ(charge({raised, burst}), kWaits);
  owners.answers_on_change = true;
  account(daily).limit_told = 0;  // so that the last attempt tells it again
  now += 60s;
  owners.expire();
  owners.deliver();
  ASSERT_TRUE(outcome.has_value());
}

TEST_F(LeaseLedgerTest, ALowerLimitAdmitsNothingFromOldTokens) {
  owners.extra = 50;
  charge({of("ann", "daily", 100, 5)});
  ASSERT_EQ(charge({of("ann", "daily", 6)}), Status::admitted);
  EXPECT_EQ(owners.requests, 2) << "the owner was asked under the new limit";
  ASSERT_EQ(owners.changes.size(), 1U);
  EXPECT_EQ(owners.changes[0].second, 6U);
  EXPECT_EQ(charge({of("ann", "daily", 6)}), Status::exceeded);
  EXPECT_EQ(outcome->states[0].limit, 6U);
}

TEST_F(LeaseLedgerTest, AHigherLimitActsOnTheNextCallInSpiteOfARememberedRefusal) {
  charge({of("ann", "daily", 2, 2)});
  ASSERT_EQ(charge({of("ann", "daily", 2)}), Status::exceeded);
  ASSERT_EQ(charge({of("ann", "daily", 3)}), Status::admitted);
  EXPECT_EQ(outcome->states[0].limit, 3U);
}

TEST_F(LeaseLedgerTest, WhatIsGivenBackCanBeUsedAgainAtOnce) {
  charge({of("ann", "daily", 2, 2)});
  const Receipt receipt = outcome->receipt;
  ledger->give_back(charged, receipt);
  EXPECT_EQ(charge({of("ann", "daily", 2, 2)}), Status::admitted);
  EXPECT_EQ(owners.requests, 1);
  EXPECT_EQ(ledger->counters().given_back, 1U);
  owners.report(account(of("ann", "daily", 2)), 0, false);  // settled: the store must be told
  give_back();
  EXPECT_EQ(owners.taken_back, (std::vector<BucketUse>{{kEpoch / kMinute, -2}}));
}

TEST_F(LeaseLedgerTest, ObservationsNeverAskAndNeverRefuse) {
  owners.extra = 50;
  charge({of("ann", "daily", 100)});
  const int asked = owners.requests;
  owners.up = false;
  ASSERT_EQ(charge({of("ann", "daily", 100), of("ann", "#|Case|read", kUnlimited)}), Status::admitted);
  EXPECT_EQ(owners.requests, asked);
  EXPECT_EQ(outcome->states[1].limit, kUnlimited);
  EXPECT_EQ(account(of("ann", "#|Case|read", kUnlimited)).cell->unsettled(), 1U);
  EXPECT_EQ(outcome->receipt.items.size(), 2U);
  give_back();
  EXPECT_EQ(account(of("ann", "#|Case|read", kUnlimited)).cell->unsettled(), 0U);
}

TEST_F(LeaseLedgerTest, AFullTableRefusesLimitsAndLetsObservationsThrough) {
  owners.extra = 1;
  for (int i = 0; i < 32; ++i) ASSERT_EQ(charge({of("ann", "r" + std::to_string(i), 9)}), Status::admitted);
  EXPECT_EQ(charge({of("ann", "one-more", 9)}), Status::unavailable);
  EXPECT_NE(outcome->error.find("32"), std::string::npos);
  ASSERT_EQ(charge({of("ann", "r0", 9), of("ann", "#|Case|read", kUnlimited)}), Status::admitted);
  EXPECT_EQ(outcome->states.size(), 2U);
  EXPECT_EQ(outcome->receipt.items.size(), 1U);
  EXPECT_FALSE(outcome->degraded);
  EXPECT_EQ(ledger->counters().table_full, 2U);
  ledger->set_outage_policy(OutagePolicy::allow);
  ASSERT_EQ(charge({of("ann", "one-more", 9)}), Status::admitted);
  EXPECT_TRUE(outcome->degraded);
  EXPECT_TRUE(outcome->receipt.items.empty());
}

TEST_F(LeaseLedgerTest, AQuarterLeftIsPrefetchedOnce) {
  owners.extra = 7;
  charge({of("ann", "daily", 100)});  // 8 lent
  for (int i = 0; i < 4; ++i) charge({of("ann", "daily", 100)});
  EXPECT_EQ(owners.prefetches, 0);
  charge({of("ann", "daily", 100)});
  EXPECT_EQ(owners.prefetches, 1);
  charge({of("ann", "daily", 100)});
  EXPECT_EQ(owners.prefetches, 1) << "one is under way";
  owners.report(*owners.prefetched[0], 20, false);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(charge({of("ann", "daily", 100)}), Status::admitted);
  EXPECT_EQ(owners.prefetches, 2);
  EXPECT_EQ(owners.requests, 1);
}

TEST_F(LeaseLedgerTest, TheSameAccountTwiceNeedsRoomForTheSum) {
  EXPECT_EQ(charge({of("ann", "daily", 5, 3), of("ann", "daily", 5, 3)}), Status::exceeded);
  EXPECT_EQ(account(of("ann", "daily", 5)).cell->unsettled(), 0U);
  EXPECT_EQ(charge({of("ann", "daily", 5, 3), of("ann", "daily", 5, 2)}), Status::admitted);
  EXPECT_EQ(outcome->states[0].used, 5U);
}

TEST_F(LeaseLedgerTest, DozensOfAccountsAreOneCharge) {
  std::vector<AccountCharge> charges;
  for (int i = 0; i < 30; ++i) charges.push_back(of("user" + std::to_string(i), "daily", 1));
  ASSERT_EQ(charge(charges), Status::admitted);
  EXPECT_EQ(outcome->receipt.items.size(), 30U);
  charges[3].limit = 2;
  ASSERT_EQ(charge(charges), Status::exceeded);
  EXPECT_EQ(outcome->states.size(), 30U);
  EXPECT_EQ(outcome->states[3].used, 1U);
}

TEST_F(LeaseLedgerTest, AChangedWindowIsTakenUpOnceTheOldAccountIsRetired) {
  owners.extra = 5;
  AccountCharge daily = of("ann", "daily", 9);
  charge({daily});
  AccountCharge hourly = daily;
  hourly.window = 3'600'000ms;
  hourly.bucket = 2'500ms;
  ASSERT_EQ(charge({hourly}), Status::admitted);
  const AccountRef old = table.find(daily.key);
  EXPECT_TRUE(old->outdated);
  owners.report(*old, 0, true);
  table.retire(old);
  ASSERT_EQ(charge({hourly}), Status::admitted);
  EXPECT_EQ(table.find(daily.key)->shape.window, hourly.window);
}

TEST_F(LeaseLedgerTest, RandomChargesAndGivingBackAgreeWithAPlainSum) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    ledger = nullptr;
    Random random(seed);
    std::vector<LeaseCell> own_cells(64);
    // On the heap: GCC 12's address sanitizer puts no local variable at a boundary of 64 bytes.
    const auto placed = std::make_unique<LeaseTable>(TableOptions{own_cells, 1});
    LeaseTable& own_table = *placed;
    FakeOwners own(own_table, now);
    own.extra = random.below(5);
    own.refuse_until = own.fits_at = owners.store_now() + 50ms;
    LeaseLedger one(own_table, own, [this] { return now; }, {.cache_entries = 8});
    const auto pick = [&] {
      return of("u" + std::to_string(random.below(4)), "r" + std::to_string(random.below(3)), 5,
                static_cast<std::uint32_t>(1 + random.below(2)));
    };
    std::map<std::string, std::uint64_t> truth;
    std::vector<std::pair<std::vector<AccountCharge>, Receipt>> receipts;
    for (int step = 0; step < 300; ++step) {
      own.at_once = random.one_in(2);
      own.up = !random.one_in(15);
      if (random.one_in(10)) now += 30ms;
      std::vector<AccountCharge> charges;
      for (std::uint64_t n = 1 + random.below(4); n > 0; --n) charges.push_back(pick());
      std::optional<ChargeOutcome> said;
      one.charge(charges, [&](ChargeOutcome&& o) { said = std::move(o); });
      if (random.one_in(3) && !own.at_once) now += 60ms;
      own.expire();
      own.up = true;
      own.deliver();
      own.at_once = true;
      now += 60ms;
      own.expire();
      ASSERT_TRUE(said) << "every charge is answered by its deadline";
      if (said->status == Status::admitted) {
        for (const AccountCharge& c : charges) truth[c.key.subject_key + "\n" + c.key.field] += c.units;
        receipts.emplace_back(charges, said->receipt);
      }
      if (!receipts.empty() && random.one_in(4)) {
        const std::size_t which = random.below(receipts.size());
        const auto& [given, receipt] = receipts[which];
        for (const auto& item : receipt.items)
          truth[given[item.charge].key.subject_key + "\n" + given[item.charge].key.field] -= item.units;
        one.give_back(given, receipt);
        receipts.erase(receipts.begin() + static_cast<std::ptrdiff_t>(which));
      }
      if (random.one_in(6)) one.read({pick()}, [](auto&&) {});
      for (auto& [name, sum] : truth) {
        const std::size_t cut = name.find('\n');
        const AccountRef account = own_table.find({name.substr(0, cut), name.substr(cut + 1)});
        ASSERT_EQ(own.books[name].used + account->cell->unsettled(), sum) << name;
        ASSERT_LE(sum, 5U) << name;
        ASSERT_EQ(own.books[name].lent, account->cell->available() + account->cell->unsettled()) << name;
      }
    }
  }
}

}  // namespace
}  // namespace tollgate::quota
