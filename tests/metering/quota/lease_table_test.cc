#include "metering/quota/lease_table.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "metering/base/random.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;

constexpr WindowShape kDay{86'400'000ms, 60'000ms};

AccountKey ann(std::string field = "daily") {
  return {subject_key({"acme", std::nullopt, "ann"}), std::move(field)};
}

struct LeaseTableTest : testing::Test {
  std::vector<LeaseCell> cells{4};
  std::unique_ptr<LeaseTable> table = std::make_unique<LeaseTable>(TableOptions{cells, 2});

  AccountRef account(const AccountKey& key, const WindowShape& shape = kDay, bool limited = true) {
    auto made = table->find_or_create(key, shape, limited);
    EXPECT_TRUE(made.has_value()) << made.error().message;
    return *made;
  }
  void lend(Account& account, std::uint64_t tokens) {
    account.cell->snapshot(1, 0, false);
    account.cell->acknowledge(account.cell->outstanding() + tokens);
  }
  void all_announce() {
    table->announce(0);
    table->announce(1);
  }
  void restart() {
    table = nullptr;
    table = std::make_unique<LeaseTable>(TableOptions{cells, 2});
  }
};

TEST_F(LeaseTableTest, OneNameIsOneAccountForAllWorkers) {
  const AccountRef daily = account(ann());
  EXPECT_EQ(account(ann()), daily);
  EXPECT_EQ(table->find(ann()), daily);
  EXPECT_NE(account(ann("burst")), daily);
  EXPECT_EQ(table->find(ann("none")), nullptr);
  EXPECT_EQ(table->accounts(), 2U);
  EXPECT_EQ(daily->subject->key, ann().subject_key);
  EXPECT_EQ(daily->subject->accounts.size(), 2U);
  const auto listed = table->of_subject(ann().subject_key);
  ASSERT_EQ(listed.size(), 2U);
  EXPECT_EQ(listed[0]->field, "burst");
  EXPECT_TRUE(table->of_subject(subject_key({"acme", std::nullopt, "bob"})).empty());
}

TEST_F(LeaseTableTest, AFullTableSaysSoAndEvictsNothing) {
  for (const char* field : {"a", "b", "c", "d"}) account(ann(field));
  const auto refused = table->find_or_create(ann("e"), kDay, true);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().origin, Origin::self);
  EXPECT_NE(refused.error().message.find('4'), std::string::npos);
  EXPECT_EQ(table->accounts(), 4U);
}

TEST_F(LeaseTableTest, ANameThatIsTooLongIsAnErrorAndTakesNoCell) {
  EXPECT_FALSE(table->find_or_create(ann(std::string(kNameBytes, 'x')), kDay, true).has_value());
  EXPECT_EQ(table->accounts(), 0U);
  for (const char* field : {"a", "b", "c", "d"}) account(ann(field));
}

TEST_F(LeaseTableTest, ARetiredCellIsFreeOnceEveryWorkerHasAnnounced) {
  for (const char* field : {"a", "b", "c", "d"}) account(ann(field));
  const AccountRef a = table->find(ann("a"));
  table->retire(a);
  EXPECT_TRUE(a->retired);
  EXPECT_EQ(table->find(ann("a")), nullptr);
  EXPECT_FALSE(table->find_or_create(ann("e"), kDay, true).has_value());
  table->announce(0);
  EXPECT_FALSE(table->find_or_create(ann("e"), kDay, true).has_value());
  table->announce(1);
  const AccountRef e = account(ann("e"));
  EXPECT_EQ(e->cell, a->cell);
  EXPECT_TRUE(a->retired);
}

TEST_F(LeaseTableTest, AWorkerThatLeftHoldsNothingUp) {
  const AccountRef a = account(ann("a"));
  table->leave(1);
  table->retire(a);
  table->announce(0);
  EXPECT_FALSE(a->cell->in_use());
}

TEST_F(LeaseTableTest, ARetiredAccountThatIsNamedAgainComesBackWithItsCell) {
  const AccountRef a = account(ann());
  table->retire(a);
  EXPECT_EQ(account(ann()), a);
  EXPECT_FALSE(a->retired);
  all_announce();
  all_announce();
  EXPECT_TRUE(a->cell->in_use());
  EXPECT_EQ(table->accounts(), 1U);
  table->retire(a);
  all_announce();
  EXPECT_FALSE(a->cell->in_use());
}

TEST_F(LeaseTableTest, ACallCountedInTheMomentOfRetiringIsNotLost) {
  const AccountRef seen = account(ann("#|Case|read"), kDay, false);
  table->retire(seen);
  seen->cell->force(29'400'000, 1);  // by a worker that had just found it not retired
  all_announce();
  EXPECT_FALSE(seen->retired);
  EXPECT_EQ(table->find(ann("#|Case|read")), seen);
  EXPECT_EQ(seen->cell->unsettled(), 1U);
}

TEST_F(LeaseTableTest, AnotherShapeWaitsUntilTheOldAccountIsRetired) {
  constexpr WindowShape kHour{3'600'000ms, 2'500ms};
  const AccountRef day = account(ann());
  EXPECT_FALSE(day->outdated);
  EXPECT_EQ(account(ann(), kHour), day);
  EXPECT_TRUE(day->outdated);
  EXPECT_EQ(account(ann()), day) << "and back again";
  EXPECT_FALSE(day->outdated);
  account(ann(), kHour);
  table->retire(day);
  const AccountRef hour = account(ann(), kHour);
  EXPECT_NE(hour, day);
  EXPECT_EQ(hour->shape.window, kHour.window);
  EXPECT_EQ(account(ann(), kHour, false), hour) << "the kind is part of the shape";
  EXPECT_TRUE(hour->outdated);
}

TEST_F(LeaseTableTest, ARestartFindsWhatWasLeftAndForgetsWhatWasEmpty) {
  const AccountRef used = account(ann("daily"));
  lend(*used, 5);
  used->cell->take(29'400'000, 2);
  account(ann("burst"));
  account(ann("#|Case|read"), kDay, false)->cell->force(29'400'000, 7);
  restart();
  EXPECT_EQ(table->accounts(), 2U);
  EXPECT_EQ(table->find(ann("burst")), nullptr);
  const AccountRef daily = table->find(ann("daily"));
  ASSERT_NE(daily, nullptr);
  EXPECT_TRUE(daily->forget);
  EXPECT_TRUE(daily->limited);
  EXPECT_EQ(daily->shape.window, kDay.window);
  EXPECT_EQ(daily->cell->recover(29'400'001, true), (std::vector<BucketUse>{{29'400'000, 2}}));
  EXPECT_FALSE(table->find(ann("#|Case|read"))->limited);
  // Old tokens are of no session, not even of the first.
  std::int64_t bucket = 0;
  PartitionState& partition = table->partition(daily->subject->partition);
  partition.clock.observe(29'400'001 * 60'000ms, MonotonicTime(1s), MonotonicTime(1s));
  partition.session_expiry_ms = INT64_MAX;
  EXPECT_EQ(admit(*daily, partition, 1, MonotonicTime(1s), bucket), Admission::lacking);
}

TEST_F(LeaseTableTest, ACellWithoutAProperNameIsSetFree) {
  cells[2].set_name("no newline", 1s, 1s, true);
  cells[2].force(1, 1);
  cells[3].set_name("q:{p000}:not:its:partition\nx", 1s, 1s, true);
  cells[3].force(1, 1);
  restart();
  EXPECT_EQ(table->accounts(), 0U);
  for (const char* field : {"a", "b", "c", "d"}) account(ann(field));
}

TEST_F(LeaseTableTest, ASubjectIsForgottenWhenNobodyHoldsAnAccountOfIt) {
  AccountRef held = account(ann());
  const unsigned p = held->subject->partition;
  const auto subjects = [&] {
    std::size_t count = 0;
    table->each_subject(p, [&](LeaseSubject&) { ++count; });
    return count;
  };
  EXPECT_EQ(subjects(), 1U);
  table->retire(held);
  all_announce();
  EXPECT_EQ(subjects(), 1U) << "somebody may still post it to the owner";
  EXPECT_EQ(held->subject->key, ann().subject_key);
  held = nullptr;
  EXPECT_EQ(subjects(), 0U);
}

TEST_F(LeaseTableTest, AdmitsOnlyWithClockSessionAndTokensOfIt) {
  const AccountRef daily = account(ann());
  PartitionState& partition = table->partition(daily->subject->partition);
  const MonotonicTime now(10s);
  std::int64_t bucket = 0;
  lend(*daily, 5);
  EXPECT_EQ(admit(*daily, partition, 1, now, bucket), Admission::lacking) << "no clock";
  partition.clock.observe(1'764'000'030'000ms, now, now);
  EXPECT_EQ(admit(*daily, partition, 1, now, bucket), Admission::lacking) << "no session";
  partition.session_expiry_ms = 1'764'000'031'000;
  EXPECT_EQ(admit(*daily, partition, 1, now, bucket), Admission::lacking) << "tokens of no session";
  EXPECT_EQ(tokens_valid(*daily, partition, now), 0U);
  daily->session = partition.session.load();
  EXPECT_EQ(tokens_valid(*daily, partition, now), 5U);
  EXPECT_EQ(admit(*daily, partition, 2, now, bucket), Admission::admitted);
  EXPECT_EQ(bucket, 29'400'000);
  EXPECT_EQ(daily->last_used_ms, 1'764'000'030'002);
  EXPECT_EQ(admit(*daily, partition, 4, now, bucket), Admission::lacking) << "three are left";
  EXPECT_EQ(admit(*daily, partition, 1, now + 998ms, bucket), Admission::lacking)
      << "hi(now) is past the session";
  EXPECT_EQ(admit(*daily, partition, 1, now + 990ms, bucket), Admission::admitted);
  partition.session.fetch_add(1);
  EXPECT_EQ(admit(*daily, partition, 1, now, bucket), Admission::lacking) << "the session lapsed";
  table->retire(daily);
  EXPECT_EQ(admit(*daily, partition, 1, now, bucket), Admission::retired);
  const AccountRef seen = account(ann("#|Case|read"), kDay, false);
  EXPECT_EQ(admit(*seen, partition, 1, now, bucket), Admission::admitted);
  partition.clock.reset();
  EXPECT_EQ(admit(*seen, partition, 1, now, bucket), Admission::lacking);
}

TEST(LeaseTable, WorkersMakingUsingAndRetiringAtOnceLoseNoUnit) {
  // Each worker counts on accounts of a small set of names, the owner settles and retires them all the time.
  constexpr unsigned kWorkers = 3;
  std::vector<LeaseCell> cells(64);
  // On the heap: GCC 12's address sanitizer puts no local variable at a boundary of 64 bytes.
  const auto placed = std::make_unique<LeaseTable>(TableOptions{cells, kWorkers + 1});
  LeaseTable& table = *placed;
  for (unsigned p = 0; p < kPartitions; ++p)
    table.partition(p).clock.observe(1'764'000'000'000ms, MonotonicTime(1s), MonotonicTime(1s));
  std::array<std::atomic<std::int64_t>, 8> counted{};
  std::atomic<unsigned> running{kWorkers};
  std::vector<std::thread> workers;
  for (unsigned w = 0; w < kWorkers; ++w)
    workers.emplace_back([&, w] {
      Random random(w + 1);
      std::array<AccountRef, 8> handles;
      for (int call = 0; call < 20'000; ++call) {
        const std::size_t n = random.below(8);
        AccountRef& handle = handles[n];
        std::int64_t bucket = 0;
        if (!handle || handle->retired.load()) {
          auto made = table.find_or_create(ann("#|" + std::to_string(n)), kDay, false);
          if (!made) continue;
          handle = *made;
        }
        if (admit(*handle, table.partition(handle->subject->partition), 1, MonotonicTime(1s), bucket) ==
            Admission::admitted)
          ++counted[n];
        if (random.one_in(20)) table.announce(w);
      }
      table.leave(w);
      --running;
    });
  std::array<std::int64_t, 8> settled{};
  const unsigned p = partition_of(ann().subject_key);
  std::uint64_t seq = 0;
  const auto round = [&] {
    std::vector<AccountRef> accounts;
    table.each_subject(p, [&](LeaseSubject& subject) {
      accounts.insert(accounts.end(), subject.accounts.begin(), subject.accounts.end());
    });
    for (const AccountRef& account : accounts) {
      account->cell->snapshot(++seq, 29'400'000, false);
      for (const BucketUse& use : account->cell->pending_uses(29'400'000))
        settled[static_cast<std::size_t>(account->field.back() - '0')] += use.units;
      account->cell->acknowledge(0);
      if (account->cell->unsettled() == 0) table.retire(account);
    }
    table.announce(kWorkers);
  };
  while (running > 0) round();
  for (std::thread& worker : workers) worker.join();
  for (int i = 0; i < 3; ++i) round();
  for (std::size_t n = 0; n < 8; ++n) EXPECT_EQ(settled[n], counted[n]) << n;
  EXPECT_EQ(table.accounts(), 0U);
  for (const LeaseCell& cell : cells) EXPECT_FALSE(cell.in_use());
}

}  // namespace
}  // namespace tollgate::quota
