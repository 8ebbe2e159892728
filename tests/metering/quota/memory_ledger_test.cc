#include "metering/quota/memory_ledger.h"

#include <gtest/gtest.h>

#include <deque>

#include "metering/base/random.h"
#include "metering/quota/keys.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;

AccountCharge charge(std::string field, std::uint64_t limit, std::uint32_t units,
                     Milliseconds window = 86'400'000ms) {
  return {{subject_key({"acme", std::nullopt, "ann"}), std::move(field)},
          limit,
          window,
          default_bucket(window),
          units,
          0};
}

struct Store {
  Milliseconds now{1'700'000'000'000};
  MemoryLedger ledger{[this] { return now; }};

  std::vector<AccountCharge> charged;
  void give_back(const ChargeOutcome& outcome) { ledger.give_back(charged, outcome.receipt); }
  ChargeOutcome charge(std::vector<AccountCharge> charges) {
    ChargeOutcome out;
    charged = std::move(charges);
    ledger.charge(charged, [&](ChargeOutcome&& o) { out = std::move(o); });
    return out;
  }
  AccountState read(AccountCharge account) {
    AccountState out;
    ledger.read({std::move(account)},
                [&](Result<std::vector<AccountState>>&& states) { out = states->at(0); });
    return out;
  }
};

TEST(MemoryLedger, AdmitsUpToTheLimitAndThenSaysWhen) {
  Store store;
  for (std::uint32_t i = 1; i <= 3; ++i) {
    auto outcome = store.charge({charge("daily", 3, 1)});
    ASSERT_EQ(outcome.status, ChargeOutcome::Status::admitted);
    EXPECT_EQ(outcome.states[0].used, i);
    EXPECT_EQ(outcome.states[0].remaining(), 3 - i);
    store.now += 60'000ms;
  }
  auto refused = store.charge({charge("daily", 3, 1)});
  ASSERT_EQ(refused.status, ChargeOutcome::Status::exceeded);
  EXPECT_EQ(refused.violated, std::vector<std::uint32_t>{0});
  EXPECT_EQ(refused.states[0].used, 3U);
  EXPECT_EQ(refused.states[0].next_free_units, 1U);
  EXPECT_TRUE(refused.receipt.items.empty());
  const Milliseconds wait = refused.states[0].admitted_after;
  EXPECT_EQ(wait, refused.states[0].next_free_after);
  store.now += wait - 1ms;
  EXPECT_EQ(store.charge({charge("daily", 3, 1)}).status, ChargeOutcome::Status::exceeded);
  store.now += 1ms;
  EXPECT_EQ(store.charge({charge("daily", 3, 1)}).status, ChargeOutcome::Status::admitted);
}

TEST(MemoryLedger, ChargesAllAccountsOrNone) {
  Store store;
  auto outcome = store.charge(
      {charge("daily", 100, 5), charge("burst", 4, 5, 1'000ms), charge("hour", 4, 5, 3'600'000ms)});
  EXPECT_EQ(outcome.status, ChargeOutcome::Status::exceeded);
  EXPECT_EQ(outcome.violated, (std::vector<std::uint32_t>{1, 2}));
  EXPECT_EQ(outcome.states[1].admitted_after, Milliseconds::max()) << "five units never fit under four";
  EXPECT_EQ(store.read(charge("daily", 100, 0)).used, 0U);
  EXPECT_EQ(store.ledger.account_count(), 0U) << "a refusal leaves nothing behind";
}

TEST(MemoryLedger, TheSameAccountTwiceInACallNeedsRoomForBoth) {
  Store store;
  EXPECT_EQ(store.charge({charge("daily", 5, 3), charge("daily", 5, 3)}).status,
            ChargeOutcome::Status::exceeded);
  EXPECT_EQ(store.charge({charge("daily", 6, 3), charge("daily", 6, 3)}).status,
            ChargeOutcome::Status::admitted);
  EXPECT_EQ(store.read(charge("daily", 6, 0)).used, 6U);
}

TEST(MemoryLedger, GiveBackRestoresTheExactState) {
  Store store;
  store.charge({charge("daily", 10, 2)});
  const std::string before = store.ledger.record(charge("daily", 10, 1).key);
  auto outcome = store.charge({charge("daily", 10, 3), charge("hour", 10, 3, 3'600'000ms)});
  store.give_back(outcome);
  EXPECT_EQ(store.ledger.record(charge("daily", 10, 1).key), before);
  EXPECT_EQ(store.ledger.account_count(), 1U);
}

TEST(MemoryLedger, GiveBackOfADayOldReceiptIsHarmless) {
  Store store;
  auto outcome = store.charge({charge("daily", 10, 3)});
  store.now += 90'000'000ms;
  store.charge({charge("daily", 10, 4)});
  store.give_back(outcome);
  EXPECT_EQ(store.read(charge("daily", 10, 0)).used, 4U);
}

TEST(MemoryLedger, OverrideWinsOverTheRule) {
  Store store;
  const AccountCharge one = charge("daily", 1, 1);
  store.ledger.set_override(one.key, 3);
  EXPECT_EQ(store.charge({one}).states[0].limit, 3U);
  EXPECT_EQ(store.charge({one}).status, ChargeOutcome::Status::admitted);
  store.ledger.set_override(one.key, std::nullopt);
  EXPECT_EQ(store.charge({one}).status, ChargeOutcome::Status::exceeded);
}

TEST(MemoryLedger, UnlimitedAccountsAreCountedAndNeverRefuse) {
  Store store;
  for (int i = 0; i < 10; ++i)
    ASSERT_EQ(store.charge({charge("#|Case|read", kUnlimited, 1'000'000)}).status,
              ChargeOutcome::Status::admitted);
  EXPECT_EQ(store.read(charge("#|Case|read", kUnlimited, 0)).used, 10'000'000U);
}

TEST(MemoryLedger, ClockThatStepsBackIsAbsorbed) {
  Store store;
  store.charge({charge("daily", 1, 1)});
  const auto refused = store.charge({charge("daily", 1, 1)});
  store.now -= 3'600'000ms;
  EXPECT_EQ(store.charge({charge("daily", 1, 1)}).states[0].admitted_after, refused.states[0].admitted_after);
}

TEST(MemoryLedger, UnavailableStoreSaysSoAndChargesNothing) {
  Store store;
  auto admitted = store.charge({charge("daily", 5, 1)});
  store.ledger.set_available(false);
  auto outcome = store.charge({charge("daily", 5, 1)});
  EXPECT_EQ(outcome.status, ChargeOutcome::Status::unavailable);
  EXPECT_TRUE(outcome.states.empty());
  EXPECT_FALSE(outcome.error.empty());
  bool failed = false;
  store.ledger.read({charge("daily", 5, 1)},
                    [&](Result<std::vector<AccountState>>&& states) { failed = !states; });
  EXPECT_TRUE(failed);
  store.give_back(admitted);
  store.ledger.set_available(true);
  EXPECT_EQ(store.read(charge("daily", 5, 1)).used, 1U);
}

TEST(MemoryLedger, ListsTheAccountsOfOneSubjectThatHoldSomething) {
  Store store;
  AccountCharge other = charge("#|Case|read", kUnlimited, 9);
  other.key.subject_key = subject_key({"acme", std::nullopt, "anna"});
  store.charge({charge("daily", 10, 1), charge("#|Case|read", kUnlimited, 2),
                charge("#|Order|edit", kUnlimited, 1), other});
  auto list = [&] {
    std::map<std::string, std::uint64_t> out;
    store.ledger.list(charge("", 0, 0).key.subject_key, "#|", 86'400'000ms, 60'000ms, [&](auto&& listed) {
      for (const auto& one : listed.value()) out[one.field] = one.used;
    });
    return out;
  };
  EXPECT_EQ(list(), (std::map<std::string, std::uint64_t>{{"#|Case|read", 2}, {"#|Order|edit", 1}}));
  store.now += 90'000'000ms;
  EXPECT_TRUE(list().empty());
}

TEST(MemoryLedger, ReadNeverCreatesAccounts) {
  Store store;
  EXPECT_EQ(store.read(charge("daily", 5, 0)).used, 0U);
  EXPECT_EQ(store.ledger.account_count(), 0U);
}

// Several users and rules at once against plain lists of timestamps.
TEST(MemoryLedgerOracle, NoAccountEverHoldsMoreThanItsLimitInAnyWindow) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    Store store;
    const Milliseconds windows[] = {1'000ms, 60'000ms, 3'600'000ms};
    std::map<std::string, std::deque<std::pair<Milliseconds, std::uint32_t>>> truth;
    for (int i = 0; i < 1'500; ++i) {
      store.now += Milliseconds(
          static_cast<std::int64_t>(random.one_in(50) ? random.below(600'000) : random.below(300)));
      const std::string user = "u" + std::to_string(random.below(3));
      std::vector<AccountCharge> charges;
      const auto units = static_cast<std::uint32_t>(1 + random.below(3));
      for (std::size_t w = 0; w < 3; ++w) {
        AccountCharge one = charge("r" + std::to_string(w), 5 + 20 * w, units, windows[w]);
        one.key.subject_key = subject_key({"acme", std::nullopt, user});
        charges.push_back(one);
      }
      auto outcome = store.charge(charges);
      if (outcome.status != ChargeOutcome::Status::admitted) continue;
      if (random.one_in(10)) {
        store.give_back(outcome);
        continue;
      }
      for (std::size_t w = 0; w < 3; ++w) {
        auto& list = truth[user + charges[w].key.field];
        list.emplace_back(store.now, units);
        while (list.front().first <= store.now - windows[w]) list.pop_front();
        std::uint64_t sum = 0;
        for (const auto& [at, n] : list) sum += n;
        ASSERT_LE(sum, charges[w].limit) << "step " << i;
      }
    }
  }
}

TEST(MemoryLedger, CandidateLimitWithoutRoomIsReportedAndNotCharged) {
  Store store;
  AccountCharge candidate = charge("next", 1, 1);
  candidate.shadow = true;
  auto first = store.charge({charge("daily", 3, 1), candidate});
  EXPECT_TRUE(first.shadow_violated.empty());
  EXPECT_EQ(first.receipt.items.size(), 2U);
  auto second = store.charge({charge("daily", 3, 1), candidate});
  EXPECT_EQ(second.status, ChargeOutcome::Status::admitted);
  EXPECT_TRUE(second.violated.empty());
  EXPECT_EQ(second.shadow_violated, std::vector<std::uint32_t>{1});
  EXPECT_EQ(second.receipt.items.size(), 1U);
  EXPECT_GT(second.states[1].admitted_after, 0ms);
  EXPECT_EQ(store.read(charge("next", 1, 0)).used, 1U);
  EXPECT_EQ(store.read(charge("daily", 3, 0)).used, 2U);
  AccountCharge full = charge("daily", 2, 1);
  EXPECT_EQ(store.charge({full, candidate}).violated, std::vector<std::uint32_t>{0});
}

}  // namespace
}  // namespace tollgate::quota
