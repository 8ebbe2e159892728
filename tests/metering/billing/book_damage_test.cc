// Journals that are damaged, cut, older or not understood, and files that are no book.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/metering/billing/support/book_fixture.h"
#include "tests/metering/usage/support/call_mix.h"

namespace tollgate::billing {
namespace {

using testing::HasSubstr;
using usage::CallMix;
using usage::EntryList;
using usage::kTestHour;
using usage::Rollup;

TEST_F(BookTest, DamageIsNamedTheRestIsAbsorbedAndAMendedJournalIsTakenInLater) {
  EntryList journal;
  Rollup truth;
  CallMix mix(81);
  mix.write(journal, "0", 50, truth);
  mix.write(journal, "1", 50, truth);
  auto book = open();
  journal.damage("0", 31);
  auto read = book->absorb(journal);
  ASSERT_FALSE(read);
  const std::string last = std::to_string(journal.streams()->front().last);
  EXPECT_EQ(read.error().message, "0-0000000001.log, offset 4711: checksum differs; entries 31 to " + last +
                                      " of stream 0 are left out");
  auto missing = book->missing();
  ASSERT_EQ(missing->size(), 1u);
  EXPECT_EQ(missing->front().first, 31u);
  EXPECT_EQ(std::to_string(missing->front().last), last);
  EXPECT_EQ(book->watermarks()->at(0).entry, 30u);
  EXPECT_EQ(book->watermarks()->at(1).entry, (*journal.streams())[1].last);
  EXPECT_THAT(read_file(export_to(*book, "2025-11-24T16", directory("out"), kTestHour + 9).manifest),
              HasSubstr("\"missing\":[{\"journal\":\"00c0ffee\",\"stream\":\"0\",\"first\":31,"));

  journal.mend();
  ASSERT_TRUE(book->absorb(journal));
  EXPECT_EQ(all_rows(*book), truth);
  EXPECT_TRUE(book->missing()->empty());
}

TEST_F(BookTest, EntriesDeletedBeforeTheyWereAbsorbedAreNamed) {
  EntryList journal;
  Rollup truth;
  CallMix mix(91);
  mix.write(journal, "0", 50, truth);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  const std::uint64_t absorbed = journal.streams()->front().last;
  mix.write(journal, "0", 50, truth);
  journal.forget_below("0", absorbed + 11);
  ASSERT_TRUE(book->absorb(journal));
  const auto missing = *book->missing();
  ASSERT_FALSE(missing.empty());
  EXPECT_EQ(missing[0].first, absorbed + 1);
  EXPECT_EQ(missing[0].last, absorbed + 10);
  for (std::size_t i = 1; i < missing.size(); ++i)  // ends whose begins were among them
    EXPECT_THAT(missing[i].why, HasSubstr("whose begin was never read"));
}

TEST_F(BookTest, AnEntryThatIsNotUnderstoodIsNamedAndPassedOver) {
  EntryList journal;
  Rollup truth;
  CallMix mix(101);
  mix.write(journal, "0", 10, truth);
  const std::uint64_t bad = journal.add_bytes("0", usage::EntryKind::call_end, "\xff");
  journal.add_bytes("0", static_cast<usage::EntryKind>(900), "of a later version");
  mix.write(journal, "0", 10, truth);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  EXPECT_EQ(all_rows(*book), truth);
  const auto missing = *book->missing();
  ASSERT_EQ(missing.size(), 1u);
  EXPECT_EQ(missing[0].first, bad);
  EXPECT_EQ(missing[0].last, bad);
}

TEST_F(BookTest, AnOlderCopyOfAJournalIsRefused) {
  EntryList journal;
  Rollup truth;
  CallMix mix(111);
  mix.write(journal, "0", 50, truth);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  const std::uint64_t last = journal.streams()->front().last;
  EntryList shorter = journal, forked = journal;
  shorter.cut("0", last - 5);
  auto read = book->absorb(shorter);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message, HasSubstr("ends at entry " + std::to_string(last - 5)));

  std::string body;
  encode(usage::MarkEntry{.what = "start"}, body);
  forked.replace("0", last, usage::EntryKind::mark, body);
  Rollup ignored;
  CallMix(112).write(forked, "0", 5, ignored);
  read = book->absorb(forked);
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message, HasSubstr("entry " + std::to_string(last) + " is not what it was"));
  EXPECT_EQ(all_rows(*book), truth);
}

TEST_F(BookTest, FilesThatAreNoBookAreRefused) {
  std::ofstream(path("text")) << "this is no database, and long enough to be looked at as one by somebody";
  EXPECT_FALSE(Book::open(path("text")));
  auto nowhere = Book::open(path("no/such/directory/usage.sqlite"));
  ASSERT_FALSE(nowhere);
  EXPECT_THAT(nowhere.error().message, HasSubstr("no/such/directory/usage.sqlite"));
}

}  // namespace
}  // namespace tollgate::billing
