#include "metering/quota/record.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>

#include "metering/base/random.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;

constexpr WindowShape kDay{86'400'000ms, 60'000ms};
constexpr Milliseconds kStart{1'700'000'000'000};

std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (int v : values) out.push_back(static_cast<char>(v));
  return out;
}

// A window and a clock, used as a ledger uses them.
struct Account {
  explicit Account(WindowShape s, Milliseconds start = kStart) : shape(s), window(s.bucket), now(start) {}
  WindowShape shape;
  RollingWindow window;
  Milliseconds now;

  bool charge(std::uint64_t limit, std::uint64_t units, std::int64_t* bucket = nullptr) {
    window.prune(shape, now);
    if (window.fits_after(shape, now, limit, units) > 0ms) return false;
    std::int64_t number = window.add(shape.bucket_of(now), units);
    if (bucket != nullptr) *bucket = number;
    return true;
  }
  std::uint64_t used() {
    window.prune(shape, now);
    return window.used();
  }
};

TEST(RollingWindow, CallExactly24hOldIsNoLongerCountedOnceItsBucketAndTheGuardHavePassed) {
  Account account(kDay, Milliseconds(28'333'334LL * 60'000));  // the first millisecond of a bucket
  const Milliseconds called = account.now;
  ASSERT_TRUE(account.charge(1, 1));
  account.now = called + 86'400'000ms;
  EXPECT_FALSE(account.charge(1, 1))
      << "24 h after the start of the bucket its last call could be younger than 24 h";
  account.now = called + 60'000ms + 86'400'000ms + 2'000ms - 1ms;
  EXPECT_EQ(account.used(), 1U);
  account.now += 1ms;
  EXPECT_EQ(account.used(), 0U);
}

TEST(RollingWindow, CallAtTheEndOfABucketIsHeldForAtLeastTheWholeWindow) {
  Account account(kDay, Milliseconds(28'333'334LL * 60'000 - 1));  // the last millisecond of a bucket
  const Milliseconds called = account.now;
  ASSERT_TRUE(account.charge(1, 1));
  account.now = called + 86'400'000ms;
  EXPECT_EQ(account.used(), 1U);
  account.now = called + 86'400'000ms + 2'000ms;
  EXPECT_EQ(account.used(), 1U) << "guard: store clocks may differ by two seconds";
  account.now = called + 86'400'000ms + 2'001ms;
  EXPECT_EQ(account.used(), 0U);
}

TEST(RollingWindow, GuardIsNeverLongerThanTheBucket) {
  EXPECT_EQ((WindowShape{1'000ms, 100ms}).guard(), 100ms);
  EXPECT_EQ((WindowShape{3'600'000ms, 2'500ms}).guard(), 2'000ms);
}

TEST(RollingWindow, DefaultBucketIsAFractionOfTheWindowWithinBounds) {
  EXPECT_EQ(default_bucket(1'000ms), 100ms);
  EXPECT_EQ(default_bucket(3'600'000ms), 2'500ms);
  EXPECT_EQ(default_bucket(86'400'000ms), 60'000ms);
  EXPECT_EQ(default_bucket(31 * 86'400'000ms), 60'000ms);
}

TEST(RollingWindow, ChargeDatedBeforeTheNewestIsCountedInTheNewest) {
  RollingWindow window(60'000ms);
  EXPECT_EQ(window.add(1'000, 1), 1'000);
  EXPECT_EQ(window.add(990, 2), 1'000);
  EXPECT_EQ(window.buckets(), (std::vector<RollingWindow::Bucket>{{1'000, 3}}));
}

TEST(RollingWindow, GiveBackIsExactInTheTail) {
  RollingWindow window(60'000ms);
  const Milliseconds now(1'019LL * 60'000);
  window.add(1'000, 3);
  window.add(1'005, 4);
  window.add(1'019, 5);
  EXPECT_EQ(window.remove(kDay, now, 1'005, 4), 4U);
  EXPECT_EQ(window.buckets(), (std::vector<RollingWindow::Bucket>{{1'000, 3}, {1'019, 5}}));
  EXPECT_EQ(window.remove(kDay, now, 1'005, 1), 0U) << "a second give-back takes nothing from others";
  EXPECT_EQ(window.remove(kDay, now, 1'000, 99), 3U) << "never more than is there";
  EXPECT_EQ(window.used(), 5U);
}

TEST(RollingWindow, GiveBackIsExactInTheBody) {
  RollingWindow window(60'000ms);
  window.add(1'000, 3);
  window.add(1'001, 7);
  window.add(1'100, 5);
  EXPECT_EQ(window.remove(kDay, Milliseconds(1'100LL * 60'000), 1'000, 2), 2U);
  EXPECT_EQ(window.buckets(), (std::vector<RollingWindow::Bucket>{{1'000, 1}, {1'001, 7}, {1'100, 5}}));
}

TEST(RollingWindow, GiveBackOfABucketThatHasLeftTakesNothing) {
  RollingWindow window(60'000ms);
  window.add(1'000, 3);
  window.add(1'500, 7);
  const Milliseconds now = kDay.leaves_at(1'000);
  window.prune(kDay, now);
  EXPECT_EQ(window.remove(kDay, now, 1'000, 3), 0U);
  EXPECT_EQ(window.used(), 7U);
}

TEST(RollingWindow, GiveBackFindsUnitsThatWereMergedIntoALaterBucket) {
  RollingWindow window(60'000ms);
  std::int64_t number = 1'000;
  for (std::size_t i = 0; i < kBodyMax + kTailBuckets + 40; ++i) window.add(number += 2, i == 3 ? 1 : 2);
  const std::uint64_t before = window.used();
  EXPECT_EQ(window.remove(kDay, Milliseconds(number * 60'000), 1'008, 1), 1U);
  EXPECT_EQ(window.used(), before - 1);
}

TEST(RollingWindow, BodyStaysWithinItsCapAndMergingNeverFreesEarlier) {
  RollingWindow window(60'000ms);
  std::vector<RollingWindow::Bucket> truth;
  Random random(7);
  std::int64_t number = 1'000;
  for (int i = 0; i < 600; ++i) {
    number += 1 + static_cast<std::int64_t>(random.below(3));
    std::uint64_t units = 1 + random.below(9);
    window.add(number, units);
    truth.push_back({number, units});
    ASSERT_LE(window.buckets().size(), kBodyMax + kTailBuckets);
    // At every moment: what the record still holds is at least what the exact list holds.
    std::uint64_t held = 0, exact = 0;
    auto buckets = window.buckets();
    std::size_t at = 0;
    for (const auto& t : truth) {
      exact += t.count;
      while (at < buckets.size() && buckets[at].number <= t.number) held += buckets[at++].count;
      ASSERT_LE(held, exact) << "units up to bucket " << t.number << " would leave too early";
    }
    ASSERT_EQ(window.used(), exact);
  }
}

TEST(RollingWindow, MergeTakesTheCheapestPairAndTheOldestOfEquals) {
  RollingWindow window(60'000ms);
  std::int64_t number = 1'000;
  // 128 closed buckets, 10 apart, 5 units each; one pair is only 10*1.
  for (std::size_t i = 0; i < kBodyMax; ++i) window.add(number += 10, i == 60 ? 1 : 5);
  for (int i = 0; i < 2; ++i) window.add(number += 20, 5);  // pushes the 128th and one more out of the tail
  window.add(number += 20, 5);
  auto buckets = window.buckets();
  const std::int64_t cheap = 1'000 + 61 * 10;
  auto found = std::ranges::find(buckets, cheap, &RollingWindow::Bucket::number);
  EXPECT_EQ(found, buckets.end()) << "the bucket of one unit went into the next";
  found = std::ranges::find(buckets, cheap + 10, &RollingWindow::Bucket::number);
  ASSERT_NE(found, buckets.end());
  EXPECT_EQ(found->count, 6U);
  window.add(number += 20, 5);
  buckets = window.buckets();
  EXPECT_EQ(buckets.front(), (RollingWindow::Bucket{1'020, 10}))
      << "all others cost the same: the oldest pair merges";
}

TEST(RollingWindow, NextFreeAndFitsAfterAreTrueToTheMillisecond) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    Account account(random.one_in(2) ? kDay : WindowShape{1'000ms, 100ms});
    const std::uint64_t limit = 1 + random.below(30);
    for (int i = 0; i < 60; ++i) {
      account.now += Milliseconds(static_cast<std::int64_t>(random.below(account.shape.window.count() / 20)));
      account.charge(limit, 1 + random.below(3));
    }
    account.used();
    const std::uint64_t units = 1 + random.below(limit);
    const Milliseconds wait = account.window.fits_after(account.shape, account.now, limit, units);
    ASSERT_NE(wait, Milliseconds::max());
    if (wait > 0ms) {
      Account early = account;
      early.now += wait - 1ms;
      EXPECT_FALSE(early.charge(limit, units)) << "one millisecond early";
      account.now += wait;
    }
    EXPECT_TRUE(account.charge(limit, units)) << "at the promised moment";
  }
}

TEST(RollingWindow, MoreUnitsThanTheLimitNeverFit) {
  RollingWindow window(60'000ms);
  EXPECT_EQ(window.fits_after(kDay, kStart, 5, 6), Milliseconds::max());
  EXPECT_EQ(window.fits_after(kDay, kStart, 0, 1), Milliseconds::max());
  EXPECT_EQ(window.fits_after(kDay, kStart, 5, 5), 0ms);
}

// The oracle: a plain list of admissions. Two rules bind the window from both sides.
//   safety      in no span of `window` are more than `limit` units admitted
//   liveness    a call is refused only if the units of the last window + bucket + guard leave no room for it
//               (merging may hold units longer; these schedules stay below the cap, `merges` says whether)
void run_oracle(std::uint64_t seed, WindowShape shape, bool merges) {
  Random random(seed);
  Account account(shape, kStart + Milliseconds(static_cast<std::int64_t>(random.below(1'000'000))));
  const std::uint64_t limit = 1 + random.below(60);
  struct Admission {
    Milliseconds at;
    std::uint64_t units;
    std::int64_t bucket;
  };
  std::deque<Admission> admitted;
  const auto scale = static_cast<std::uint64_t>(shape.window.count());
  for (int i = 0; i < 700; ++i) {
    // Bursts, office hours and long pauses.
    const std::uint64_t step = random.one_in(3)    ? random.below(3)
                               : random.one_in(40) ? random.below(scale * 2)
                                                   : random.below(scale / 50 + 1);
    account.now += Milliseconds(static_cast<std::int64_t>(step));
    const std::uint64_t units = 1 + random.below(random.one_in(10) ? limit : 3);
    std::uint64_t surely = 0, perhaps = 0;
    for (const Admission& a : admitted) {
      if (a.at > account.now - shape.window) surely += a.units;
      if (a.at > account.now - shape.window - shape.bucket - shape.guard()) perhaps += a.units;
    }
    ASSERT_LE(surely, limit) << "seed " << seed << " step " << i;
    std::int64_t bucket = 0;
    if (account.charge(limit, units, &bucket)) {
      ASSERT_LE(surely + units, limit) << "seed " << seed << " step " << i << ": one too many in a window";
      admitted.push_back({account.now, units, bucket});
    } else if (!merges) {
      ASSERT_GT(perhaps + units, limit)
          << "seed " << seed << " step " << i << ": refused although there was room";
    }
    if (!admitted.empty() && random.one_in(12) && shape.live(admitted.back().bucket, account.now)) {
      // A call that never arrived: the units come back exactly.
      const Admission back = admitted.back();
      const std::uint64_t used = account.used();
      ASSERT_EQ(account.window.remove(shape, account.now, back.bucket, back.units), back.units)
          << "seed " << seed;
      ASSERT_EQ(account.window.used(), used - back.units) << "seed " << seed;
      admitted.pop_back();
    }
    // What is stored is what is known.
    auto copy = RollingWindow::decode(account.window.encode(), shape.bucket);
    ASSERT_TRUE(copy.has_value()) << "seed " << seed << " step " << i << ": " << copy.error().message;
    ASSERT_EQ(copy->buckets(), account.window.buckets()) << "seed " << seed << " step " << i;
    ASSERT_EQ(copy->encode(), account.window.encode()) << "seed " << seed << " step " << i;
    if (random.one_in(2)) account.window = *copy;
  }
}

TEST(RollingWindowOracle, NoWindowHoldsMoreThanTheLimitAndNoCallIsRefusedWithRoom) {
  const WindowShape shapes[] = {{1'000ms, 100ms},
                                {10'000ms, 100ms},
                                {60'000ms, 100ms},
                                {3'600'000ms, 60'000ms},
                                {86'400'000ms, 900'000ms}};
  for (std::uint64_t seed = 1; seed <= 60; ++seed)
    for (const WindowShape& shape : shapes)
      ASSERT_NO_FATAL_FAILURE(run_oracle(seed, shape, shape.window / shape.bucket > 140));
}

TEST(RollingWindowOracle, LongWindowsWithMergingAreStillSafe) {
  const WindowShape shapes[] = {kDay, {31 * 86'400'000LL * 1ms, 60'000ms}};
  for (std::uint64_t seed = 1; seed <= 60; ++seed)
    for (const WindowShape& shape : shapes) ASSERT_NO_FATAL_FAILURE(run_oracle(seed, shape, true));
}

TEST(Record, LayoutIsTheDocumentedOne) {
  RollingWindow window(60'000ms);
  window.add(900, 5);
  window.add(998, 2);
  window.add(1'000, 3);
  EXPECT_EQ(window.encode(), bytes({1, 0,    3, 0x60, 0xea, 0, 0, 10,   0, 0, 0, 0, 0, 0x84, 3, 0, 0, 0,
                                    0, 0x84, 3, 0,    0,    0, 0, 0xe8, 3, 0, 0, 0, 0, 3,    0, 2, 0, 5}));
}

TEST(Record, AnAccountWithoutUnitsHasNoRecord) {
  RollingWindow window(60'000ms);
  EXPECT_EQ(window.encode(), "");
  window.add(1'000, 3);
  window.remove(kDay, Milliseconds(1'000LL * 60'000), 1'000, 3);
  EXPECT_EQ(window.encode(), "");
  auto empty = RollingWindow::decode("", 60'000ms);
  ASSERT_TRUE(empty.has_value());
  EXPECT_EQ(empty->used(), 0U);
}

TEST(Record, NewestStaysWhenItsUnitsAreGivenBack) {
  RollingWindow window(60'000ms);
  window.add(990, 3);
  window.add(1'000, 1);
  window.remove(kDay, Milliseconds(1'000LL * 60'000), 1'000, 1);
  auto copy = RollingWindow::decode(window.encode(), 60'000ms);
  ASSERT_TRUE(copy.has_value());
  EXPECT_EQ(copy->add(995, 1), 1'000) << "time does not run backwards for an account";
}

TEST(Record, EveryCutAndEveryFlippedBitIsRefusedOrIsOneValidRecord) {
  RollingWindow window(60'000ms);
  Random random(11);
  std::int64_t number = 28'000'000;
  for (int i = 0; i < 60; ++i)
    window.add(number += 1 + static_cast<std::int64_t>(random.below(30)), 1 + random.below(300));
  const std::string good = window.encode();
  for (std::size_t length = 1; length < good.size(); ++length)
    EXPECT_FALSE(RollingWindow::decode(good.substr(0, length), 60'000ms).has_value()) << length;
  EXPECT_FALSE(RollingWindow::decode(good + std::string(1, '\0'), 60'000ms).has_value());
  for (std::size_t i = 0; i < good.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      auto read = RollingWindow::decode(bad, 60'000ms);
      if (!read || bad.substr(3, 4) != good.substr(3, 4))
        continue;  // refused, or renumbered from another bucket size
      EXPECT_EQ(read->encode(), bad) << "byte " << i << " bit " << bit;
    }
}

TEST(Record, HostileBytesNeverDoMoreThanFail) {
  for (std::uint64_t seed = 1; seed <= 20'000; ++seed) {
    Random random(seed);
    std::string noise = bytes({1, 0, static_cast<int>(1 + random.below(20)), 0x60, 0xea, 0, 0});
    const std::uint64_t length = random.below(80);
    for (std::uint64_t i = 0; i < length; ++i)
      noise.push_back(static_cast<char>(random.one_in(2) ? 0 : random.below(256)));
    auto read = RollingWindow::decode(noise, random.one_in(2) ? 60'000ms : 100ms);
    if (read) {
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      WindowShape shape{86'400'000ms, read->bucket()};
      read->prune(shape, kStart);
      (void)read->fits_after(shape, kStart, 10, 1);
      (void)read->remove(shape, kStart, 5, 1);
    }
  }
}

TEST(Record, LongestNumbersSurvive) {
  RollingWindow window(1ms);
  window.add(1LL << 40, kCountMax);
  window.add((1LL << 40) + 1, 5);
  EXPECT_EQ(window.used(), kCountMax) << "the total stops at 48 bits";
  auto copy = RollingWindow::decode(window.encode(), 1ms);
  ASSERT_TRUE(copy.has_value()) << copy.error().message;
  EXPECT_EQ(*copy, window);
}

TEST(Record, AnotherBucketSizeMovesUnitsLaterNeverEarlier) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    const Milliseconds sizes[] = {100ms, 1'000ms, 7'000ms, 60'000ms, 3'600'000ms};
    const Milliseconds from = sizes[random.below(5)], to = sizes[random.below(5)];
    RollingWindow window(from);
    std::int64_t number = kStart / from;
    for (int i = 0; i < 200; ++i)
      window.add(number += static_cast<std::int64_t>(random.below(4)), 1 + random.below(5));
    auto read = RollingWindow::decode(window.encode(), to);
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->used(), window.used());
    // Units that end by the end of any new bucket: no more than ended by then in the old numbering.
    auto before = window.buckets(), after = read->buckets();
    std::size_t at = 0;
    std::uint64_t old_units = 0, new_units = 0;
    for (const auto& bucket : after) {
      const Milliseconds end = (bucket.number + 1) * to;
      while (at < before.size() && (before[at].number + 1) * from <= end) old_units += before[at++].count;
      new_units += bucket.count;
      ASSERT_LE(new_units, old_units);
    }
    ASSERT_TRUE(RollingWindow::decode(read->encode(), to).has_value());
  }
}

// ---- exact counting

TEST(RollingWindow, CountDatesEveryUnitExactlyWhereverItBelongs) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    RollingWindow window(60'000ms);
    std::map<std::int64_t, std::uint64_t> truth;
    const std::int64_t now = kStart / 60'000ms;
    for (int i = 0; i < 100; ++i) {
      // Few enough distinct buckets that none is merged.
      const std::int64_t number =
          now - static_cast<std::int64_t>(random.one_in(2) ? random.below(30) : random.below(80));
      const std::uint64_t units = 1 + random.below(300);
      ASSERT_EQ(window.count(kDay, kStart, number, units), units);
      truth[number] += units;
      auto stored = RollingWindow::decode(window.encode(), 60'000ms);
      ASSERT_TRUE(stored.has_value()) << stored.error().message;
      window = *stored;
    }
    std::vector<RollingWindow::Bucket> expected;
    for (const auto& [number, count] : truth) expected.push_back({number, count});
    EXPECT_EQ(window.buckets(), expected);
  }
}

TEST(RollingWindow, CountOfABucketThatHasLeftIsNothing) {
  RollingWindow window(60'000ms);
  const std::int64_t now = kStart / 60'000ms;
  EXPECT_EQ(window.count(kDay, kStart, now - 1'500, 5), 0U);
  EXPECT_EQ(window.encode(), "");
  window.count(kDay, kStart, now, 1);
  EXPECT_EQ(window.count(kDay, kStart, now - 1'500, 5), 0U);
  EXPECT_EQ(window.used(), 1U);
}

TEST(RollingWindow, LateCountsKeepTheBodyWithinItsCapAndNothingIsFreedEarlier) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    RollingWindow window(60'000ms);
    std::map<std::int64_t, std::uint64_t> truth;
    const std::int64_t now = kStart / 60'000ms;
    for (int i = 0; i < 600; ++i) {
      const std::int64_t number = now - static_cast<std::int64_t>(random.below(1'400));
      const std::uint64_t units = 1 + random.below(9);
      ASSERT_EQ(window.count(kDay, kStart, number, units), units);
      truth[number] += units;
      const auto buckets = window.buckets();
      ASSERT_LE(buckets.size(), kBodyMax + kTailBuckets);
      // Up to every bucket no more units are held than truly belong there: merging only moves them later.
      std::uint64_t held = 0, exact = 0;
      std::size_t at = 0;
      for (const auto& [bucket, count] : truth) {
        exact += count;
        while (at < buckets.size() && buckets[at].number <= bucket) held += buckets[at++].count;
        ASSERT_LE(held, exact);
      }
      ASSERT_EQ(window.used(), exact);
    }
    EXPECT_TRUE(RollingWindow::decode(window.encode(), 60'000ms).has_value());
  }
}

// ---- leases

TEST(Record, LeasesStandBetweenHeaderAndBuckets) {
  AccountRecord record(60'000ms);
  record.window.add(900, 5);
  record.window.add(998, 2);
  record.window.add(1'000, 3);
  ASSERT_TRUE(record.set_lease({7, 25, 1'763'820'900'000ms}));
  EXPECT_EQ(record.encode(),
            bytes({1, 1,    3, 0x60, 0xea, 0,    0,    10,   0,    0,    0, 0, 0, 0x84, 3, 0, 0, 0,
                   0, 0x84, 3, 0,    0,    0,    0,    0xe8, 3,    0,    0, 0, 0, 7,    0, 0, 0, 25,
                   0, 0,    0, 0,    0,    0xa0, 0x0e, 0xeb, 0xab, 0x9a, 1, 3, 0, 2,    0, 5}));
  EXPECT_FALSE(RollingWindow::decode(record.encode(), 60'000ms).has_value())
      << "a plain window is not a lease's";
}

TEST(Record, LeasesAloneAreARecordWithoutNumbers) {
  AccountRecord record(60'000ms);
  record.window.add(900, 5);
  record.set_lease({7, 25, kStart});
  record.window.remove(kDay, Milliseconds(900LL * 60'000), 900, 5);
  AccountRecord never_used(60'000ms);
  never_used.set_lease({7, 25, kStart});
  EXPECT_EQ(record.encode(), never_used.encode()) << "one state, one encoding";
  auto read = AccountRecord::decode(record.encode());
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(read->lent_to(7), 25U);
  EXPECT_EQ(read->window.used(), 0U);
  read->set_lease({7, 0, kStart});
  EXPECT_EQ(read->encode(), "");
}

TEST(Record, LeasesAreKeptInTheOrderOfTheirIncarnations) {
  AccountRecord record(60'000ms);
  for (const Incarnation who : {30U, 4'294'967'295U, 10U, 20U})
    ASSERT_TRUE(record.set_lease({who, who / 10, kStart}));
  EXPECT_EQ(record.lent(), 1U + 2U + 3U + 429'496'729U);
  AccountRecord other(60'000ms);
  for (const Incarnation who : {10U, 20U, 30U, 4'294'967'295U})
    ASSERT_TRUE(other.set_lease({who, who / 10, kStart}));
  EXPECT_EQ(record.encode(), other.encode());
  EXPECT_EQ(record.leases().front().incarnation, 10U);
}

TEST(Record, LeasesBeyondTheirByteAreRefused) {
  AccountRecord record(60'000ms);
  for (Incarnation who = 1; who <= kLeasesMax; ++who) ASSERT_TRUE(record.set_lease({who, 1, kStart}));
  EXPECT_FALSE(record.set_lease({1'000, 1, kStart}));
  EXPECT_TRUE(record.set_lease({1'000, 0, kStart}));
  EXPECT_TRUE(record.set_lease({5, 9, kStart}));
  auto read = AccountRecord::decode(record.encode());
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->lent(), 254U + 9U);
}

TEST(Record, LeaseOutlivesItsSessionByWindowAndGuardAndNoLonger) {
  AccountRecord record(60'000ms);
  record.set_lease({7, 25, kStart});
  auto unknown = [](Incarnation) { return 0ms; };
  record.prune(kDay, kStart + kDay.window + kDay.guard() - 1ms, unknown);
  EXPECT_EQ(record.lent(), 25U);
  AccountRecord renewed = record;
  record.prune(kDay, kStart + kDay.window + kDay.guard(), unknown);
  EXPECT_EQ(record.encode(), "");
  renewed.prune(kDay, kStart + kDay.window + kDay.guard(), [](Incarnation) { return kStart + 1ms; });
  ASSERT_EQ(renewed.lent(), 25U);
  EXPECT_EQ(renewed.leases()[0].expiry, kStart + 1ms) << "the later one is remembered";
}

TEST(Record, EveryCutAndEveryFlippedBitOfOneWithLeasesIsRefusedOrIsOneValidRecord) {
  AccountRecord record(60'000ms);
  Random random(11);
  std::int64_t number = 28'000'000;
  for (int i = 0; i < 40; ++i)
    record.window.add(number += 1 + static_cast<std::int64_t>(random.below(30)), 1 + random.below(300));
  for (const Incarnation who : {30U, 70U, 5'000'000U}) record.set_lease({who, 1 + who / 3, kStart});
  const std::string good = record.encode();
  for (std::size_t length = 1; length < good.size(); ++length)
    EXPECT_FALSE(AccountRecord::decode(good.substr(0, length)).has_value()) << length;
  EXPECT_FALSE(AccountRecord::decode(good + std::string(1, '\0')).has_value());
  std::size_t accepted = 0;
  for (std::size_t i = 0; i < good.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      auto read = AccountRecord::decode(bad);
      if (!read) continue;
      ++accepted;
      EXPECT_EQ(read->encode(), bad) << "byte " << i << " bit " << bit;
    }
  EXPECT_GT(accepted, 0U) << "tokens and expiries have no check of their own";
}

}  // namespace
}  // namespace tollgate::quota
