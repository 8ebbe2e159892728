#include "metering/usage/reconcile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "metering/base/random.h"

namespace tollgate::usage {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kBucket = 60'000, kWindow = 86'400'000;
constexpr std::int64_t kNow = 490'000LL * 3'600'000;  // the middle of nothing in particular
constexpr std::int64_t kLast = kNow / kBucket - 1;    // the bucket before now
const AccountName kAnn{"q:{p017}:acme:u:ann", "daily"};

// A small proxy: calls and ops of one stream, and a store that is told of them.
struct World {
  JournalTally tally;
  std::map<AccountName, UnitsByBucket> store;
  std::uint64_t call = 0, seq = 0;

  World() { tally.begin_stream("00c0ffee", "0", true); }

  CallBegin begin(std::int64_t bucket, std::uint32_t units = 1, const AccountName& account = kAnn) {
    CallBegin begin{.call = ++call, .time_ms = bucket * kBucket + 500, .user = "ann", .tenant = "acme"};
    begin.operations.push_back({"Case", "read", "", "customer", units});
    begin.charged.push_back({account.subject_key, account.field, units});
    tally.add(begin);
    return begin;
  }
  void end(const CallBegin& begin, std::int64_t bucket, bool given_back = false) {
    CallEnd end{.call = begin.call,
                .reason = "ok",
                .status = 200,
                .units = begin.charged[0].units,
                .given_back = given_back};
    end.buckets = {bucket};
    tally.add(end);
  }
  std::uint64_t called(std::int64_t bucket, std::uint32_t units = 1, const AccountName& account = kAnn) {
    const CallBegin begin = this->begin(bucket, units, account);
    end(begin, bucket);
    return begin.call;
  }
  void cut_off(const CallBegin& begin, CallOutcome outcome) {
    tally.add(CallEnd{.call = begin.call, .outcome = outcome, .units = begin.charged[0].units});
  }
  OpEntry op(std::vector<std::pair<std::int64_t, std::int64_t>> uses, const AccountName& account = kAnn) {
    OpEntry op{.incarnation = 7, .partition = 17, .seq = ++seq, .subject_key = account.subject_key};
    op.accounts.push_back({.field = account.field,
                           .window_ms = kWindow,
                           .bucket_ms = kBucket,
                           .limit = 1000,
                           .uses = std::move(uses)});
    return op;
  }
  void settled(std::vector<std::pair<std::int64_t, std::int64_t>> uses, const AccountName& account = kAnn) {
    for (const auto& [bucket, units] : uses) store[account][bucket] += units;
    tally.add(op(std::move(uses), account));
  }

  StoredState stored() const {
    StoredState state{.now = Milliseconds(kNow)};
    for (const auto& [name, units] : store) {
      StoredAccount account{name, Milliseconds(kBucket)};
      for (const auto& [bucket, count] : units)
        if (count > 0) account.buckets.push_back({bucket, static_cast<std::uint64_t>(count)});
      state.accounts.push_back(std::move(account));
    }
    return state;
  }
  Reconciliation compare(std::optional<Milliseconds> settled = std::nullopt) {
    JournalTally all = tally;
    all.end_stream();
    const StoredState state = stored();
    Reconciliation result;
    reconcile_accounts({.journal = all, .store = &state, .settled = settled}, result);
    return result;
  }
};

std::int64_t units(const Difference& difference, const std::string& side) {
  for (const Difference::Side& found : difference.sides)
    if (found.name == side) return found.units;
  ADD_FAILURE() << "no side " << side;
  return -1;
}

TEST(Reconcile, ThreeCountsThatAgreeHaveNoDifference) {
  World world;
  world.called(kLast - 5, 2);
  world.called(kLast);
  world.settled({{kLast - 5, 2}, {kLast, 1}});
  const Reconciliation result = world.compare();
  EXPECT_TRUE(result.differences.empty());
  EXPECT_EQ(result.accounts, 1u);
  EXPECT_EQ(result.units, 3);
  EXPECT_EQ(result.uncertain_units, 0u);
  EXPECT_EQ(result.edge_units, 0u);
}

TEST(Reconcile, AUnitMissingInTheStoreNamesTheAccountAndTheNumbers) {
  World world;
  world.called(kLast - 5, 2);
  world.settled({{kLast - 5, 2}});
  world.store[kAnn][kLast - 5] = 1;
  const Reconciliation result = world.compare();
  ASSERT_EQ(result.differences.size(), 1u);
  const Difference& difference = result.differences[0];
  EXPECT_EQ(difference.account, "q:{p017}:acme:u:ann daily");
  EXPECT_EQ(units(difference, "facts"), 2);
  EXPECT_EQ(units(difference, "ledger"), 2);
  EXPECT_EQ(units(difference, "store"), 1);
  EXPECT_EQ(difference.what, "1 units are missing in the store");
}

TEST(Reconcile, AUnitTooManyInTheStoreIsFoundWhereverItIs) {
  for (std::int64_t bucket : {kLast - 800, kLast - 700, kLast - 5, kLast}) {
    World world;
    for (std::int64_t at : {kLast - 800, kLast - 5, kLast}) {
      world.called(at);
      world.settled({{at, 1}});
    }
    world.store[kAnn][bucket] += 1;
    const Reconciliation result = world.compare();
    ASSERT_EQ(result.differences.size(), 1u);
    EXPECT_EQ(result.differences[0].what, "the store holds 1 units too many");
  }
}

TEST(Reconcile, ACallThatNoOpReportedNamesTheCall) {
  World world;
  world.called(kLast - 50);
  world.settled({{kLast - 50, 1}});
  const std::uint64_t lost = world.called(kLast - 20, 3);
  world.called(kLast - 5);
  world.settled({{kLast - 5, 1}});
  const Reconciliation result = world.compare();
  ASSERT_EQ(result.differences.size(), 1u);
  EXPECT_EQ(result.differences[0].what, "3 units of calls were never counted for the store");
  EXPECT_EQ(result.differences[0].calls, (std::vector<CallRange>{{"00c0ffee", "0", lost, lost}}));
}

TEST(Reconcile, AUseThatNoCallAccountsForIsFound) {
  World world;
  world.called(kLast - 5);
  world.settled({{kLast - 5, 2}});
  const Reconciliation result = world.compare();
  ASSERT_EQ(result.differences.size(), 1u);
  EXPECT_EQ(result.differences[0].what, "1 units were counted for the store that no call accounts for");
}

TEST(Reconcile, LiveCellsCountForTheJournalAndNotForTheStore) {
  World world;
  world.called(kLast - 5);
  world.settled({{kLast - 5, 1}});
  world.called(kLast, 4);
  EXPECT_EQ(world.compare().differences.size(), 1u);
  world.tally.add_live(kAnn, {Milliseconds(kWindow), Milliseconds(kBucket)}, 4);
  EXPECT_TRUE(world.compare().differences.empty());
}

TEST(Reconcile, CallsOfWhichTheJournalIsNotCertainMayBeThereOrNot) {
  for (CallOutcome outcome : {CallOutcome::void_maybe, CallOutcome::done}) {  // done: begun, not ended
    for (std::int64_t counted : {0, 1, 3, 4}) {
      World world;
      world.called(kLast - 5);
      const CallBegin begin = world.begin(kLast - 5, 3);
      if (outcome != CallOutcome::done) world.cut_off(begin, outcome);
      world.settled({{kLast - 5, 1 + counted}});
      const Reconciliation result = world.compare();
      EXPECT_EQ(result.uncertain_units, 3u);
      EXPECT_EQ(result.differences.empty(), counted <= 3) << counted;
    }
  }
}

TEST(Reconcile, CallsThatRecoveryEndedAreCountedWithoutTheirBucket) {
  for (CallOutcome outcome : {CallOutcome::interrupted, CallOutcome::void_charged}) {
    World world;
    world.cut_off(world.begin(kLast - 40, 2), outcome);
    world.settled({{kLast - 10, 2}});  // dated at the restart
    EXPECT_TRUE(world.compare().differences.empty());
    EXPECT_EQ(world.compare().uncertain_units, 0u);
    world.settled({{kLast - 10, 1}});
    EXPECT_EQ(world.compare().differences.size(), 1u);
  }
}

TEST(Reconcile, GivenBackCallsCountForNobody) {
  World world;
  world.end(world.begin(kLast - 5, 2), kLast - 5, true);
  world.settled({{kLast - 5, 2}});
  world.settled({{kLast - 5, -2}});
  EXPECT_TRUE(world.compare().differences.empty());
}

TEST(Reconcile, AnOpReadTwiceCountsOnce) {
  World world;
  world.called(kLast - 5);
  world.settled({{kLast - 5, 1}});
  --world.seq;
  world.tally.add(world.op({{kLast - 5, 1}}));
  EXPECT_TRUE(world.compare().differences.empty());
}

TEST(Reconcile, WhatHasLeftTheWindowIsNotCompared) {
  World world;
  const std::int64_t first_live = (kNow - kWindow - 2'000) / kBucket;
  world.called(first_live - 1, 9);
  world.settled({{first_live - 1, 9}});
  world.called(first_live);
  world.settled({{first_live, 1}});
  world.store[kAnn].erase(first_live - 1);  // pruned
  EXPECT_TRUE(world.compare().differences.empty());
  world.store[kAnn].erase(first_live);
  EXPECT_EQ(world.compare().differences.size(), 1u);
}

TEST(Reconcile, UnitsMergedIntoTheOldestLiveBucketAreAcceptedToTheUnit) {
  World world;
  const std::int64_t first_live = (kNow - kWindow - 2'000) / kBucket;
  for (std::int64_t bucket : {first_live - 3, first_live - 1, first_live + 2, kLast}) {
    world.called(bucket, 2);
    world.settled({{bucket, 2}});
  }
  // The store has merged the two that left into the first that lives, as its record does.
  world.store[kAnn] = {{first_live + 2, 6}, {kLast, 2}};
  Reconciliation result = world.compare();
  EXPECT_TRUE(result.differences.empty());
  EXPECT_EQ(result.edge_units, 4u);
  world.store[kAnn][first_live + 2] = 7;
  result = world.compare();
  ASSERT_EQ(result.differences.size(), 1u);
  EXPECT_EQ(result.differences[0].what, "the store holds 1 units too many");
  // None of it excuses a later bucket, or one unit less than what lives.
  world.store[kAnn] = {{first_live + 2, 2}, {kLast, 4}};
  EXPECT_EQ(world.compare().differences.size(), 1u);
  world.store[kAnn] = {{first_live + 2, 5}, {kLast, 1}};
  EXPECT_EQ(world.compare().differences.size(), 1u);
  world.store[kAnn] = {{first_live + 2, 1}, {kLast, 2}};
  EXPECT_EQ(world.compare().differences.size(), 1u);
}

TEST(Reconcile, WhileProxiesServeOnlyBucketsThatEndedBeforeTheySettledAreCompared) {
  World world;
  world.called(kLast - 1);
  world.settled({{kLast - 1, 1}});
  world.called(kLast, 3);  // after the proxies settled
  EXPECT_EQ(world.compare().differences.size(), 1u);
  EXPECT_TRUE(world.compare(Milliseconds(kLast * kBucket + 100)).differences.empty());
  EXPECT_EQ(world.compare(Milliseconds((kLast + 1) * kBucket)).differences.size(), 1u);
}

TEST(Reconcile, JournalsThatNoLongerReachBackAreComparedFromWhereTheyDo) {
  World world;
  world.tally.begin_stream("00c0ffee", "1", false);  // its older segments are gone
  world.tally.add(CallEnd{.call = 5, .units = 1});   // of a call nobody knows
  world.store[kAnn][kLast - 500] = 7;                // settled in ops that are gone, too
  world.called(kLast - 100);
  world.called(kLast - 50, 2);
  world.settled({{kLast - 50, 2}});
  EXPECT_EQ(world.tally.complete_from_ms(), (kLast - 100) * kBucket + 500);
  EXPECT_TRUE(world.compare().differences.empty());
  EXPECT_EQ(first_whole_hour(world.tally), hour_of((kLast - 100) * kBucket) + 1);
  world.store[kAnn][kLast - 40] = 1;
  EXPECT_EQ(world.compare().differences.size(), 1u);
}

TEST(Reconcile, UnitsACellDatedLaterAcrossTheBeginningOfTheJournalsAreAccepted) {
  World world;
  world.tally.begin_stream("00c0ffee", "1", false);
  const std::int64_t begin = kLast - 1'000;
  for (std::int64_t i = 0; i < 12; ++i) world.called(begin + i);
  world.settled({{begin + 4, 5}, {begin + 11, 7}});  // begin and begin + 1 are not compared
  world.called(begin + 300, 3);
  world.settled({{begin + 300, 3}});
  EXPECT_TRUE(world.compare().differences.empty());
  World less = world, more = world;
  less.called(begin + 400);
  EXPECT_EQ(less.compare().differences.size(), 1u);
  more.settled({{begin + 400, 1}});
  EXPECT_EQ(more.compare().differences.size(), 1u);
}

TEST(Reconcile, AnAccountOnlyTheStoreKnowsIsADifference) {
  World world;
  const AccountName other{"q:{p200}:acme:u:zed", "daily"};
  world.store[other][kLast - 3] = 4;
  const Reconciliation result = world.compare();
  ASSERT_EQ(result.differences.size(), 1u);
  EXPECT_EQ(result.differences[0].account, "q:{p200}:acme:u:zed daily");
  EXPECT_EQ(result.differences[0].what, "the store holds 4 units too many");
}

TEST(Reconcile, CallsOfAnAccountThatNoOpNamesAreADifference) {
  World world;
  const std::uint64_t call = world.called(kLast - 3);
  const Reconciliation result = world.compare();
  ASSERT_EQ(result.differences.size(), 1u);
  EXPECT_THAT(result.differences[0].what, HasSubstr("1 units of calls were never counted"));
  EXPECT_EQ(result.differences[0].calls, (std::vector<CallRange>{{"00c0ffee", "0", call, call}}));
}

TEST(Reconcile, ObservationsAreComparedWithTheStoreAlone) {
  World world;
  const AccountName object{"q:{p017}:acme:u:ann", "#|Case|read"};
  world.settled({{kLast - 3, 5}}, object);
  EXPECT_TRUE(world.compare().differences.empty());
  world.store[object][kLast - 3] = 4;
  EXPECT_EQ(world.compare().differences.size(), 1u);
}

TEST(Reconcile, ARuleWhoseWindowChangedIsSkippedAndNamed) {
  World world;
  world.called(kLast - 3);
  world.settled({{kLast - 3, 1}});
  OpEntry op = world.op({{(kLast - 3) * 24, 1}});
  op.accounts[0].bucket_ms = 2'500;
  op.accounts[0].window_ms = 3'600'000;
  world.tally.add(op);
  const Reconciliation result = world.compare();
  EXPECT_TRUE(result.differences.empty());
  ASSERT_EQ(result.skipped.size(), 1u);
  EXPECT_THAT(result.skipped[0], HasSubstr("q:{p017}:acme:u:ann daily"));
}

TEST(Reconcile, RandomHistoriesAgreeAndEverySingleChangeIsFound) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    World world;
    std::map<std::int64_t, std::int64_t> unsettled;
    for (std::int64_t bucket = kLast - 2'000; bucket <= kLast;
         bucket += static_cast<std::int64_t>(random.below(40))) {
      const auto units = static_cast<std::uint32_t>(1 + random.below(4));
      if (random.one_in(12)) {
        world.end(world.begin(bucket, units), bucket, true);
      } else {
        world.called(bucket, units);
        unsettled[bucket] += units;
      }
      if (random.one_in(4)) world.settled({unsettled.begin(), unsettled.end()}), unsettled.clear();
    }
    world.settled({unsettled.begin(), unsettled.end()});
    // The store merges old neighbours, the earlier one into the later one.
    UnitsByBucket& buckets = world.store[kAnn];
    for (int merges = 0; merges < 20; ++merges) {
      auto at = std::next(buckets.begin(), static_cast<std::ptrdiff_t>(random.below(buckets.size() / 2)));
      std::next(at)->second += at->second;
      buckets.erase(at);
    }
    EXPECT_TRUE(world.compare().differences.empty());

    World changed = world;
    auto& late = changed.store[kAnn].rbegin()->second;
    late += random.one_in(2) ? 1 : -1;
    EXPECT_EQ(changed.compare().differences.size(), 1u);
    changed = world;
    changed.called(kLast - static_cast<std::int64_t>(random.below(1'000)));
    EXPECT_EQ(changed.compare().differences.size(), 1u);
    changed = world;
    changed.tally.add(changed.op({{kLast - static_cast<std::int64_t>(random.below(1'000)), 1}}));
    EXPECT_EQ(changed.compare().differences.size(), 1u);
  }
}

TEST(Reconcile, RowsThatAreNotTheRollUpOfTheJournalAreNamed) {
  World world;
  const std::uint64_t first = world.called(kLast - 5, 2), last = world.called(kLast - 4);
  const Rollup& read = world.tally.rollup();
  const std::int64_t hour = hour_of((kLast - 5) * kBucket);
  Reconciliation result;
  reconcile_rows(world.tally, read, 0, hour + 1, result);
  EXPECT_TRUE(result.differences.empty());
  EXPECT_EQ(result.rows, 1u);

  Rollup billed = read;
  billed.begin()->second.calls += 2;
  reconcile_rows(world.tally, billed, 0, hour + 1, result);
  ASSERT_EQ(result.differences.size(), 1u);
  EXPECT_EQ(result.differences[0].account, "acme/-/ann/customer/Case/read");
  EXPECT_EQ(units(result.differences[0], "journal"), 3);
  EXPECT_EQ(units(result.differences[0], "book"), 5);
  EXPECT_EQ(result.differences[0].what, "2 billable calls too many in the book");
  EXPECT_EQ(result.differences[0].calls, (std::vector<CallRange>{{"00c0ffee", "0", first, last}}));

  billed = read;
  billed.begin()->second.bytes_out += 1;
  Reconciliation again;
  reconcile_rows(world.tally, billed, 0, hour + 1, again);
  EXPECT_EQ(again.differences.size(), 1u);
  Reconciliation missing;
  reconcile_rows(world.tally, {}, 0, hour + 1, missing);
  ASSERT_EQ(missing.differences.size(), 1u);
  EXPECT_EQ(missing.differences[0].what, "3 billable calls are missing in the book");
  Reconciliation outside;
  reconcile_rows(world.tally, {}, hour + 1, hour + 2, outside);
  EXPECT_TRUE(outside.differences.empty());
}

}  // namespace
}  // namespace tollgate::usage
