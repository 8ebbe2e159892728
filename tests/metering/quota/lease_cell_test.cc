#include "metering/quota/lease_cell.h"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "metering/base/random.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;
using Uses = std::vector<BucketUse>;

std::int64_t sum(const Uses& uses) {
  return std::accumulate(uses.begin(), uses.end(), std::int64_t{0},
                         [](std::int64_t total, const BucketUse& use) { return total + use.units; });
}

constexpr std::int64_t kMinute = 29'400'000;  // a bucket of 60 s in 2025

struct Limited : testing::Test {
  LeaseCell cell;
  std::uint64_t seq = 0;
  Limited() { cell.set_name("q:{p017}:acme:u:ann\ndaily", 86'400s, 60s, true); }
  Uses settle(std::uint64_t outstanding_now, bool return_all = false, std::int64_t current = kMinute) {
    cell.snapshot(++seq, current, return_all);
    Uses uses = cell.pending_uses(current);
    cell.acknowledge(outstanding_now);
    return uses;
  }
};
using LeaseCellOfALimit = Limited;

TEST_F(LeaseCellOfALimit, TakesNoMoreThanWasLent) {
  EXPECT_FALSE(cell.take(kMinute, 1));
  settle(3);
  EXPECT_TRUE(cell.take(kMinute, 2));
  EXPECT_FALSE(cell.take(kMinute, 2));
  EXPECT_TRUE(cell.take(kMinute, 1));
  EXPECT_FALSE(cell.take(kMinute, 1));
  EXPECT_EQ(cell.unsettled(), 3U);
  EXPECT_EQ(cell.outstanding(), 3U);
}

TEST_F(LeaseCellOfALimit, UsesAreReportedByBucketAndOnlyOnce) {
  settle(10);
  cell.take(kMinute, 2);
  cell.take(kMinute + 1, 1);
  cell.take(kMinute + 5, 4);
  EXPECT_EQ(settle(3, false, kMinute + 5), (Uses{{kMinute, 2}, {kMinute + 1, 1}, {kMinute + 5, 4}}));
  EXPECT_FALSE(cell.dirty());
  EXPECT_EQ(cell.unsettled(), 0U);
  EXPECT_EQ(cell.available(), 3U);
  EXPECT_EQ(settle(3), Uses{});
}

TEST_F(LeaseCellOfALimit, ACallDatedBeforeTheBucketAlreadyBegunIsCountedInThatOne) {
  settle(10);
  cell.take(kMinute + 1, 1);
  std::int64_t counted = 0;
  EXPECT_TRUE(cell.take(kMinute, 1, &counted));
  EXPECT_EQ(counted, kMinute + 1);
  EXPECT_FALSE(cell.put_back(kMinute, 1, false));
  EXPECT_TRUE(cell.put_back(counted, 1, false));
  EXPECT_EQ(settle(9, false, kMinute),
            (Uses{{kMinute + 1, 1}}));  // also when the owner looks at an earlier clock
}

TEST_F(LeaseCellOfALimit, MoreBucketsThanPlacesAreDatedLaterNeverEarlier) {
  settle(100);
  for (std::int64_t b = 0; b < 10; ++b) cell.take(kMinute + b, 1);
  const Uses uses = settle(90, false, kMinute + 9);
  EXPECT_EQ(sum(uses), 10);
  for (std::int64_t b = 0; b < 10; ++b) {
    std::int64_t until = 0;
    for (const BucketUse& use : uses)
      if (use.bucket <= kMinute + b) until += use.units;
    EXPECT_LE(until, b + 1) << b;
  }
  EXPECT_EQ(uses.back().bucket, kMinute + 9);
}

TEST_F(LeaseCellOfALimit, TokensComeInAsFarAsTheStoreLentMoreThanIsKnown) {
  settle(5);
  cell.take(kMinute, 2);
  cell.snapshot(++seq, kMinute, false);
  EXPECT_TRUE(cell.take(kMinute, 1));  // while the op is under way
  cell.acknowledge(5 - 2 + 10);
  EXPECT_EQ(cell.available(), 12U);
  EXPECT_EQ(cell.outstanding(), 13U);
  EXPECT_EQ(cell.unsettled(), 1U);
}

TEST_F(LeaseCellOfALimit, ReturnedTokensAreGoneAtOnceAndAnUndoneSnapshotBringsThemBack) {
  settle(5);
  cell.take(kMinute, 1);
  cell.snapshot(++seq, kMinute, true);
  EXPECT_EQ(cell.pending_returned(), 4U);
  EXPECT_EQ(cell.pending_seq(), seq);
  EXPECT_FALSE(cell.take(kMinute, 1));
  cell.undo_snapshot(kMinute);
  EXPECT_EQ(cell.pending_seq(), 0U);
  EXPECT_EQ(cell.pending_returned(), 0U);
  EXPECT_EQ(cell.available(), 4U);
  EXPECT_TRUE(cell.take(kMinute + 1, 1));
  EXPECT_EQ(settle(0, true, kMinute + 1), (Uses{{kMinute, 1}, {kMinute + 1, 1}}));
  EXPECT_EQ(cell.available(), 0U);
  EXPECT_EQ(cell.outstanding(), 0U);
}

TEST_F(LeaseCellOfALimit, WhatTheStoreHasForgottenIsTakenAwayDownToNone) {
  settle(10);
  cell.take(kMinute, 4);
  cell.snapshot(++seq, kMinute, false);
  cell.acknowledge(2);  // 6 were left by our books
  EXPECT_EQ(cell.available(), 2U);
  EXPECT_EQ(cell.outstanding(), 2U);
  cell.take(kMinute, 1);
  cell.snapshot(++seq, kMinute, false);
  EXPECT_TRUE(cell.take(kMinute, 1));
  cell.acknowledge(0);
  EXPECT_EQ(cell.available(), 0U);
  EXPECT_EQ(cell.outstanding(), 1U);  // one more was used than the store knows: still to be told
  EXPECT_EQ(settle(0), (Uses{{kMinute, 1}}));
  EXPECT_EQ(cell.outstanding(), 0U);
}

TEST_F(LeaseCellOfALimit, WhatIsPutBackWasNeverTaken) {
  settle(3);
  cell.take(kMinute, 2);
  cell.take(kMinute + 1, 1);
  EXPECT_TRUE(cell.put_back(kMinute, 2, false));  // of a closed bucket
  EXPECT_TRUE(cell.put_back(kMinute + 1, 1, false));
  EXPECT_EQ(cell.available(), 3U);
  EXPECT_EQ(cell.unsettled(), 0U);
  cell.take(kMinute, 1);
  cell.snapshot(++seq, kMinute, false);
  EXPECT_FALSE(cell.put_back(kMinute, 1, false)) << "it is on its way to the store";
  cell.acknowledge(2);
  EXPECT_FALSE(cell.put_back(kMinute, 1, false)) << "it is settled";
}

TEST_F(LeaseCellOfALimit, ForcedUnitsAreCountedAndMakeNoTokens) {
  settle(2);
  EXPECT_TRUE(cell.force(kMinute, 3));
  EXPECT_EQ(cell.available(), 2U);
  EXPECT_TRUE(cell.take(kMinute, 1));
  // The store takes 4 uses from the 2 it lent and lends nothing: nothing may be left here.
  EXPECT_EQ(settle(0), (Uses{{kMinute, 4}}));
  EXPECT_EQ(cell.available(), 0U);
  EXPECT_EQ(cell.outstanding(), 0U);
  EXPECT_TRUE(cell.force(kMinute, 3));
  EXPECT_EQ(settle(4), (Uses{{kMinute, 3}}));
  EXPECT_EQ(cell.available(), 4U);
}

TEST_F(LeaseCellOfALimit, ForcedUnitsAreNotGivenBackAsTokens) {
  settle(1);
  cell.take(kMinute, 1);
  settle(0);
  cell.force(kMinute, 1);
  EXPECT_FALSE(cell.put_back(kMinute, 1, false)) << "the unit that is there was never a token";
  EXPECT_EQ(cell.available(), 0U);
  EXPECT_TRUE(cell.put_back(kMinute, 1, true));
  EXPECT_EQ(settle(0), Uses{});
}

TEST_F(LeaseCellOfALimit, FieldsSaturateByRefusingNotByWrapping) {
  settle(kTokensMax + 5ULL);
  EXPECT_EQ(cell.available(), kTokensMax);
  EXPECT_FALSE(cell.take(kMinute, kTokensMax + 1));
  // Three times a million in one bucket: more than the bits of the word hold.
  const std::uint64_t lent = kTokensMax + 5ULL;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(cell.take(kMinute, kTokensMax));
    EXPECT_EQ(cell.unsettled(), kTokensMax);
    EXPECT_TRUE(cell.put_back(kMinute, 1, false));
    EXPECT_TRUE(cell.take(kMinute, 1));
    EXPECT_EQ(sum(settle(lent)), kTokensMax);  // and as many are lent anew
  }
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(cell.force(kMinute, kTokensMax));
  EXPECT_EQ(cell.unsettled(), 5ULL * kTokensMax);
  EXPECT_EQ(settle(lent), (Uses{{kMinute, 5LL * kTokensMax}}));
  std::uint64_t forced = 0;
  while (cell.force(kMinute, kTokensMax)) forced += kTokensMax;
  EXPECT_GT(forced, 900'000'000U);
  EXPECT_EQ(cell.unsettled(), forced);
  EXPECT_EQ(sum(settle(lent)), static_cast<std::int64_t>(forced));
}

TEST(LeaseCellOfAnObservation, RefusesBeforeItsBucketsOverflow) {
  LeaseCell cell;
  cell.set_name("q:{p017}:acme:u:ann\n#|Case|read", 86'400s, 60s, false);
  std::uint64_t counted = 0;
  for (std::int64_t b = 0; counted < 5'000'000'000; ++b) {
    if (!cell.force(kMinute + b % 20, kTokensMax)) break;
    counted += kTokensMax;
  }
  EXPECT_GT(counted, 1'000'000'000U);
  EXPECT_LT(counted, (kClosedBuckets + 1) << 28);
  EXPECT_EQ(cell.unsettled(), counted);
  cell.snapshot(1, kMinute + 19, false);
  EXPECT_EQ(sum(cell.pending_uses(kMinute + 19)), static_cast<std::int64_t>(counted));
  cell.acknowledge(0);
  EXPECT_EQ(cell.unsettled(), 0U);
  EXPECT_TRUE(cell.force(kMinute + 20, 1));
}

TEST(LeaseCellOfAnObservation, CountsWithoutTokensAndSettles) {
  LeaseCell cell;
  cell.set_name("q:{p017}:acme:u:ann\n#|Case|read", 86'400s, 60s, false);
  EXPECT_TRUE(cell.force(kMinute, 2));
  EXPECT_TRUE(cell.force(kMinute + 1, 1));
  EXPECT_TRUE(cell.put_back(kMinute, 1, true));
  cell.reopen();
  EXPECT_EQ(cell.recover(kMinute + 3, false), (Uses{{kMinute, 1}, {kMinute + 1, 1}}));
  cell.snapshot(1, kMinute + 3, true);
  EXPECT_EQ(cell.pending_returned(), 0U);
  EXPECT_EQ(cell.pending_uses(kMinute + 3), (Uses{{kMinute, 1}, {kMinute + 1, 1}}));
  cell.acknowledge(0);
  EXPECT_FALSE(cell.dirty());
}

TEST_F(LeaseCellOfALimit, RecoveryReturnsWhatWasUsedAndKeepsItForTheNextSnapshot) {
  settle(9);
  cell.take(kMinute, 2);
  cell.take(kMinute + 1, 3);
  for (int again = 0; again < 3; ++again) {
    cell.reopen();
    EXPECT_EQ(cell.recover(kMinute + 7, true), (Uses{{kMinute, 2}, {kMinute + 1, 3}}));
    EXPECT_EQ(cell.available(), 0U);
    EXPECT_EQ(cell.outstanding(), 5U);
  }
  // The op with `forget`: the store counts the uses and lends anew.
  EXPECT_EQ(settle(4, true, kMinute + 7), (Uses{{kMinute, 2}, {kMinute + 1, 3}}));
  EXPECT_EQ(cell.available(), 4U);
  EXPECT_EQ(cell.outstanding(), 4U);
}

TEST_F(LeaseCellOfALimit, RecoveryLeavesToTheJournalWhatTheJournalHas) {
  settle(9);
  cell.take(kMinute, 2);
  cell.snapshot(++seq, kMinute, false);
  cell.take(kMinute, 1);
  cell.reopen();
  EXPECT_EQ(cell.pending_seq(), seq);
  EXPECT_EQ(cell.recover(kMinute + 7, true), (Uses{{kMinute, 1}}));
  EXPECT_EQ(cell.pending_seq(), 0U);
  EXPECT_EQ(settle(0, true), (Uses{{kMinute, 1}}));
}

TEST_F(LeaseCellOfALimit, ASnapshotThatWasNeverJournaledIsUndoneAfterARestart) {
  settle(9);
  cell.take(kMinute, 2);
  cell.snapshot(++seq, kMinute, true);
  cell.reopen();
  cell.undo_snapshot(kMinute);
  EXPECT_EQ(cell.recover(kMinute + 7, true), (Uses{{kMinute, 2}}));
}

TEST_F(LeaseCellOfALimit, ABucketLongAgoIsDatedLaterThanItWas) {
  settle(2);
  cell.take(5, 1);
  const Uses uses = settle(1, false, 5 + (std::int64_t{1} << 23));
  ASSERT_EQ(uses.size(), 1U);
  EXPECT_GT(uses[0].bucket, 5);
  EXPECT_LE(uses[0].bucket, 5 + (std::int64_t{1} << 23) + (1 << 16));
}

TEST(LeaseCell, KeepsItsNameAndIsEmptyAfterRelease) {
  LeaseCell cell;
  const std::string name = "q:{p017}:acme:u:ann\n" + std::string(kNameBytes - 20, 'x');
  cell.set_name(name, 3'600s, 2500ms, true);
  EXPECT_TRUE(cell.in_use());
  EXPECT_EQ(cell.name(), name);
  EXPECT_EQ(cell.window(), 3'600s);
  EXPECT_EQ(cell.bucket(), 2500ms);
  EXPECT_TRUE(cell.limited());
  cell.snapshot(1, 0, false);
  cell.acknowledge(7);
  cell.take(1, 1);
  cell.release();
  EXPECT_FALSE(cell.in_use());
  cell.set_name("q:{p017}:acme:u:ann\nb", 1s, 100ms, true);
  EXPECT_EQ(cell.available() + cell.unsettled() + cell.outstanding(), 0U);
}

// A store's books of one account, for one cell.
struct Books {
  std::int64_t outstanding = 0, used = 0, granted = 0, returned = 0;
  std::uint64_t apply(const LeaseCell& cell, std::int64_t current, std::int64_t grant) {
    const std::int64_t uses = sum(cell.pending_uses(current));
    const auto back = static_cast<std::int64_t>(cell.pending_returned());
    used += uses;
    returned += back;
    granted += grant;
    outstanding = std::max<std::int64_t>(0, outstanding - uses - back) + grant;
    return static_cast<std::uint64_t>(outstanding);
  }
};

TEST(LeaseCell, RandomTakesPutBacksAndSettlementsAgreeWithAPlainCount) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    LeaseCell cell;
    cell.set_name("q:{p017}:acme:u:ann\ndaily", 86'400s, 60s, true);
    Books books;
    std::int64_t bucket = kMinute, net = 0;
    std::uint64_t seq = 0;
    std::vector<BucketUse> held;
    for (int step = 0; step < 400; ++step) {
      if (random.one_in(20)) bucket += static_cast<std::int64_t>(random.below(3));
      const auto units = static_cast<std::uint32_t>(1 + random.below(4));
      switch (random.below(8)) {
        case 0:
          if (cell.pending_seq() == 0) cell.snapshot(++seq, bucket, random.one_in(3));
          break;
        case 1:
          if (cell.pending_seq() == 0) break;
          if (random.one_in(4))
            cell.undo_snapshot(bucket);
          else
            cell.acknowledge(books.apply(cell, bucket, static_cast<std::int64_t>(random.below(20))));
          break;
        case 2:
          if (!held.empty()) {
            const BucketUse back = held[random.below(held.size())];
            const std::uint32_t before = cell.available();
            if (!cell.put_back(back.bucket, static_cast<std::uint32_t>(back.units), false)) break;
            ASSERT_EQ(cell.available(), before + static_cast<std::uint32_t>(back.units));
            net -= back.units;
            std::erase(held, back);
            held.clear();  // equal entries may stand for several calls: keep it simple
          }
          break;
        default: {
          const bool enough = cell.available() >= units;
          std::int64_t counted = 0;
          ASSERT_EQ(cell.take(bucket, units, &counted), enough);
          if (enough) {
            net += units;
            held.push_back({counted, units});
          }
        }
      }
      // Nothing is admitted that was not lent, nothing lent gets lost.
      ASSERT_EQ(books.outstanding,
                static_cast<std::int64_t>(cell.available() + cell.pending_returned() + cell.unsettled()));
      ASSERT_EQ(books.used + static_cast<std::int64_t>(cell.unsettled()), net);
    }
    if (cell.pending_seq() == 0) cell.snapshot(++seq, bucket, true);
    cell.acknowledge(books.apply(cell, bucket, 0));
    cell.snapshot(++seq, bucket, true);
    cell.acknowledge(books.apply(cell, bucket, 0));
    ASSERT_EQ(books.used, net);
    ASSERT_EQ(books.outstanding, 0);
    ASSERT_EQ(books.granted, books.used + books.returned);
    ASSERT_EQ(cell.available() + cell.outstanding() + cell.unsettled(), 0U);
  }
}

TEST(LeaseCell, ThreadsAndOwnerAtFullSpeedLoseAndDoubleNothing) {
  constexpr std::uint64_t kSeed = 7;
  constexpr int kThreads = 3, kCalls = 40'000;
  LeaseCell cell;
  cell.set_name("q:{p017}:acme:u:ann\ndaily", 86'400s, 60s, true);
  std::atomic<std::int64_t> bucket{kMinute}, net{0}, negative{0};
  std::atomic<int> running{kThreads};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      Random random(kSeed + static_cast<std::uint64_t>(t));
      std::int64_t mine = 0, reported = 0;
      for (int call = 0; call < kCalls; ++call) {
        if (random.one_in(200)) bucket.fetch_add(1);
        const auto units = static_cast<std::uint32_t>(1 + random.below(3));
        std::int64_t counted = 0;
        if (!cell.take(bucket.load(), units, &counted)) {
          std::this_thread::yield();
          continue;
        }
        mine += units;
        if (random.one_in(3)) {
          mine -= units;
          if (!cell.put_back(counted, units, false)) reported += units;
        }
      }
      net += mine;
      negative += reported;
      --running;
    });
  Books books;
  Random random(kSeed);
  std::uint64_t seq = 0;
  const auto round = [&](bool return_all, std::int64_t grant) {
    cell.snapshot(++seq, bucket.load(), return_all);
    if (random.one_in(5)) {
      cell.undo_snapshot(bucket.load());
      return;
    }
    cell.acknowledge(books.apply(cell, bucket.load() + 1, grant));
  };
  while (running.load() > 0) {
    round(random.one_in(4), static_cast<std::int64_t>(random.below(60)));
    ASSERT_LE(static_cast<std::int64_t>(cell.available()), books.outstanding);
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 20; ++i) round(true, 0);
  EXPECT_EQ(books.used, net + negative) << "seed " << kSeed;
  EXPECT_EQ(books.outstanding, 0);
  EXPECT_EQ(books.granted, books.used + books.returned);
  EXPECT_EQ(cell.available() + cell.outstanding() + cell.unsettled(), 0U);
}

TEST(LeaseCell, ForcedUnitsAmongThreadsAreCountedOnce) {
  LeaseCell cell;
  cell.set_name("q:{p017}:acme:u:ann\ndaily", 86'400s, 60s, true);
  constexpr int kThreads = 3, kCalls = 20'000;
  std::atomic<std::int64_t> bucket{kMinute}, net{0};
  std::atomic<int> running{kThreads};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      Random random(90 + static_cast<std::uint64_t>(t));
      std::int64_t mine = 0;
      for (int call = 0; call < kCalls; ++call) {
        if (random.one_in(100)) bucket.fetch_add(1);
        std::int64_t counted = 0;
        if (cell.take(bucket.load(), 1, &counted)) {
          ++mine;
        } else if (random.one_in(2) && cell.force(bucket.load(), 2, &counted)) {
          mine += 2;
          if (random.one_in(2) && cell.put_back(counted, 2, true)) mine -= 2;
        }
      }
      net += mine;
      --running;
    });
  Books books;
  std::uint64_t seq = 0;
  while (running.load() > 0) {
    cell.snapshot(++seq, bucket.load(), false);
    cell.acknowledge(books.apply(cell, bucket.load() + 1, 5));
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 3; ++i) {
    cell.snapshot(++seq, bucket.load(), true);
    cell.acknowledge(books.apply(cell, bucket.load(), 0));
  }
  EXPECT_EQ(books.used, net);
  EXPECT_EQ(cell.available() + cell.unsettled(), 0U);
}

}  // namespace
}  // namespace tollgate::quota
