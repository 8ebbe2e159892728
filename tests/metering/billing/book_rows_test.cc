// From journals to the rows of a book: each entry once, whoever reads it and whenever somebody dies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/metering/billing/support/book_fixture.h"
#include "tests/metering/usage/support/call_mix.h"

namespace tollgate::billing {
namespace {

using usage::CallMix;
using usage::EntryList;
using usage::kTestHour;
using usage::Rollup;

TEST_F(BookTest, RowsOfRandomCallsEqualTheNaiveSumsHoweverTheyAreBatched) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    CallMix mix(seed);
    Random random(seed);
    EntryList journal;
    Rollup truth;
    auto book = open("seed-" + std::to_string(seed));
    std::uint64_t entries = 0;
    for (int round = 0; round < 6; ++round) {
      mix.write(journal, random.one_in(2) ? "0" : "1", 1 + random.below(60), truth);
      book->set_batch(1 + random.below(40));
      auto read = book->absorb(journal);
      ASSERT_TRUE(read) << read.error().message;
      entries += *read;
      EXPECT_EQ(all_rows(*book), truth);
      if (random.one_in(2)) book = open("seed-" + std::to_string(seed));  // another process
    }
    std::uint64_t last = 0;
    const auto streams = journal.streams();
    for (const auto& info : *streams) last += info.last;
    EXPECT_EQ(entries, last);
    EXPECT_TRUE(book->missing()->empty());
    EXPECT_EQ(*book->absorb(journal), 0u);
    EXPECT_EQ(all_rows(*book), truth);
  }
}

TEST_F(BookTest, NoEntryIsReadTwiceAlthoughCallsStayOpen) {
  CallMix mix(3);
  EntryList journal;
  Rollup truth;
  usage::CallBegin forever = mix.begin(1'000'000);
  journal.add("0", forever);
  auto book = open();
  for (int round = 0; round < 5; ++round) {
    mix.write(journal, "0", 40, truth);
    journal.visited = 0;
    auto read = book->absorb(journal);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_LE(journal.visited, *read + 1);  // one more: is it still the same journal?
  }
  journal.forget_below("0", journal.streams()->front().last);  // the begin is long gone
  usage::CallEnd end = mix.end(forever);
  journal.add("0", end);
  CallMix::count(truth, forever, end);
  ASSERT_TRUE(book->absorb(journal));
  EXPECT_EQ(all_rows(*book), truth);
  EXPECT_TRUE(book->missing()->empty());
}

TEST_F(BookTest, TwoJournalsAddUpInOneBook) {
  EntryList one(1), other(2);
  Rollup truth;
  CallMix(5).write(one, "0", 80, truth);
  CallMix(6).write(other, "0", 80, truth);
  Rollup of_one;
  EntryList again(1);
  CallMix(5).write(again, "0", 80, of_one);
  auto book = open();
  ASSERT_TRUE(book->absorb(one));
  ASSERT_TRUE(book->absorb(other));
  EXPECT_EQ(all_rows(*book), truth);
  EXPECT_EQ(*book->rows(0, 1'000'000, {journal_name(1)}), of_one);
  EXPECT_EQ(book->watermarks()->size(), 2u);

  Rollup of_file;
  add_file(of_file, export_to(*book, "2025-11-24", directory("out"), kTestHour + 100).file);
  EXPECT_EQ(of_file, without_latency(truth));
}

TEST_F(BookTest, DeathAtAnyStepOfAbsorbingNeitherLosesNorRepeats) {
  EntryList journal;
  Rollup truth;
  CallMix mix(11);
  mix.write(journal, "0", 60, truth);
  mix.write(journal, "1", 60, truth);
  int deaths = 0;
  for (int step = 0;; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const std::string name = "book-" + std::to_string(step);
    const bool died = dies_at(step, [&](const auto& hook) {
      auto book = Book::open(path(name));
      if (!book) ::_exit(1);
      (*book)->set_batch(25);
      (*book)->on_step(hook);
      if (!(*book)->absorb(journal)) ::_exit(1);
    });
    if (died) ++deaths;
    auto book = open(name);
    auto read = book->absorb(journal);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(all_rows(*book), truth);
    if (!died) {
      EXPECT_EQ(*read, 0u);
      break;
    }
  }
  EXPECT_GT(deaths, 30);
}

TEST_F(BookTest, NothingIsReadBeforeItIsDurable) {
  EntryList journal;
  Rollup truth;
  CallMix(121).write(journal, "0", 5, truth);
  auto book = open();
  auto refused = book->absorb(journal, {}, [&]() -> Result<void> {
    EXPECT_EQ(journal.visited, 0u);
    return fail(Origin::self, "disk on fire");
  });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "disk on fire");
  EXPECT_TRUE(all_rows(*book).empty());
  const std::uint64_t before = journal.streams()->front().last;
  // What is written after the promise of durability waits for the next turn.
  auto read = book->absorb(journal, {}, [&]() -> Result<void> {
    Rollup later;
    CallMix(122).write(journal, "0", 5, later);
    return {};
  });
  EXPECT_EQ(*read, before);
}

TEST_F(BookTest, TwoProcessesThatAbsorbAtOnceCountEachEntryOnce) {
  EntryList journal;
  Rollup truth;
  CallMix(131).write(journal, "0", 200, truth);
  auto one = open(), other = open();
  one->set_batch(10);
  other->set_batch(13);
  int turns = 0;
  // The other one takes a turn between any two batches of the first.
  one->on_step([&](std::string_view step) {
    if (step != "committed" || ++turns % 2 == 0) return;
    EXPECT_TRUE(other->absorb(journal));
  });
  ASSERT_TRUE(one->absorb(journal));
  EXPECT_GT(turns, 0);
  EXPECT_EQ(all_rows(*one), truth);
}

TEST_F(BookTest, ProgressEndsAtItsTotal) {
  EntryList journal;
  Rollup truth;
  CallMix(141).write(journal, "0", 50, truth);
  auto book = open();
  book->set_batch(10);
  std::uint64_t last = 0, total = 0;
  ASSERT_TRUE(book->absorb(journal, [&](std::uint64_t done, std::uint64_t all) {
    EXPECT_GE(done, last);
    last = done;
    total = all;
  }));
  EXPECT_EQ(last, journal.streams()->front().last);
  EXPECT_EQ(total, last);
}

}  // namespace
}  // namespace tollgate::billing
