// Exports of periods: the same bytes for ever, corrections for what comes later, and a manifest to check them by.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "tests/metering/billing/support/book_fixture.h"
#include "tests/metering/usage/support/call_mix.h"

namespace tollgate::billing {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using usage::CallMix;
using usage::EntryList;
using usage::kTestHour;
using usage::Rollup;

TEST_F(BookTest, DeathAtAnyStepOfAnExportChangesNothing) {
  EntryList journal;
  Rollup truth;
  CallMix mix(12);
  mix.write(journal, "0", 60, truth);
  // The same history without a death: two hours closed, late calls, then the day.
  auto history = [&](Book& book, const std::string& to) {
    (void)book.export_period(period("2025-11-24T16"), Book::Format::csv, to, at_hour(kTestHour + 30));
    EntryList late(9);
    Rollup ignored;
    CallMix(13).write(late, "0", 40, ignored);
    (void)book.absorb(late);
    (void)book.export_period(period("2025-11-24"), Book::Format::csv, to, at_hour(kTestHour + 30));
  };
  auto calm = open("calm");
  ASSERT_TRUE(calm->absorb(journal));
  history(*calm, directory("calm-out"));
  ASSERT_EQ(lines_of(path("calm-out/2025-11-24.csv")).empty(), false);
  for (int step = 0;; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const std::string name = "book-" + std::to_string(step), to = directory(name + "-out");
    const bool died = dies_at(step, [&](const auto& hook) {
      auto book = Book::open(path(name));
      if (!book || !(*book)->absorb(journal)) ::_exit(1);
      (*book)->on_step(hook);
      history(**book, to);
    });
    auto book = open(name);
    ASSERT_TRUE(book->absorb(journal));
    history(*book, to);
    for (const char* file : {"2025-11-24T16.csv", "2025-11-24T16.csv.manifest.json", "2025-11-24.csv",
                             "2025-11-24.csv.manifest.json"})
      EXPECT_EQ(read_file(to + "/" + file), read_file(path("calm-out/") + file)) << file;
    EXPECT_TRUE(book->check_exports(to)->empty());
    if (!died) break;
    ASSERT_LT(step, 100);
  }
}

TEST_F(BookTest, RepeatedExportWritesTheSameBytesWhateverCameLater) {
  for (Book::Format format : {Book::Format::csv, Book::Format::ndjson}) {
    const std::string suffix(name(format));
    EntryList journal;
    Rollup truth;
    CallMix mix(21);
    mix.write(journal, "0", 120, truth);
    auto book = open("book-" + suffix);
    ASSERT_TRUE(book->absorb(journal));
    const std::string to = directory("out-" + suffix);
    const auto first = export_to(*book, "2025-11-24T18", to, kTestHour + 3, format);
    const std::string bytes = read_file(first.file), manifest = read_file(first.manifest);
    EXPECT_TRUE(first.final_period);
    EXPECT_GT(first.rows, 0u);
    EXPECT_GT(bytes.size(), 100u);

    mix.write(journal, "0", 120, truth);  // late calls of the same hours
    ASSERT_TRUE(book->absorb(journal));
    const auto again = export_to(*book, "2025-11-24T18", to, kTestHour + 400, format);
    EXPECT_EQ(read_file(again.file), bytes);
    EXPECT_EQ(read_file(again.manifest), manifest);
    EXPECT_EQ(again.sha256, first.sha256);
    EXPECT_TRUE(book->check_exports(to)->empty());
  }
}

TEST_F(BookTest, LateCallsAreCorrectionsAndAllFilesTogetherAreTheTruth) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    EntryList journal;
    Rollup truth;
    CallMix mix(seed);
    auto book = open("book-" + std::to_string(seed));
    const std::string to = directory("out-" + std::to_string(seed));
    std::vector<std::string> hours{"2025-11-24T16", "2025-11-24T17", "2025-11-24T18",
                                   "2025-11-24T19", "2025-11-24T20", "2025-11-24T21"};
    Rollup of_files;
    std::set<std::string> ids;
    std::uint64_t corrections = 0;
    auto take_file = [&](const Book::Exported& exported) {
      EXPECT_TRUE(exported.final_period);
      add_file(of_files, exported.file);
      corrections += exported.corrections;
      for (const Line& line : lines_of(exported.file)) {
        EXPECT_TRUE(ids.insert(line.text.at("id")).second) << "an id stands for two rows";
        EXPECT_EQ(line.text.at("kind"),
                  line.text.at("hour") == line.text.at("filed_hour") ? "usage" : "correction");
      }
    };
    while (!hours.empty()) {  // in any order
      mix.write(journal, "0", 20 + random.below(40), truth);
      ASSERT_TRUE(book->absorb(journal));
      const std::size_t which = random.below(hours.size());
      take_file(export_to(*book, hours[which], to, kTestHour + 500));
      hours.erase(hours.begin() + static_cast<std::ptrdiff_t>(which));
    }
    mix.write(journal, "0", 30, truth);
    ASSERT_TRUE(book->absorb(journal));
    take_file(export_to(*book, "2025-11-25", to, kTestHour + 500));  // a day without calls of its own
    EXPECT_GT(corrections, 0u);
    EXPECT_EQ(of_files, without_latency(truth));
    EXPECT_TRUE(book->check_exports(to)->empty());
  }
}

TEST_F(BookTest, AMonthAfterItsDaysHasTheSameRowsUnderTheSameIds) {
  EntryList journal;
  Rollup truth;
  CallMix mix(31);
  mix.write(journal, "0", 100, truth);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  const std::string to = directory("out");
  export_to(*book, "2025-11-24T16", to, kTestHour + 30);
  mix.write(journal, "0", 100, truth);
  ASSERT_TRUE(book->absorb(journal));
  const auto day = export_to(*book, "2025-11-24", to, kTestHour + 30);
  const auto month = export_to(*book, "2025-11", to, kTestHour + 1'000);
  EXPECT_GT(day.corrections, 0u);
  EXPECT_EQ(read_file(month.file), read_file(day.file));
  Rollup of_month;
  add_file(of_month, month.file);
  EXPECT_EQ(of_month, without_latency(truth));
}

TEST_F(BookTest, APeriodThatIsNotOverIsNotFinalAndClosesNothing) {
  EntryList journal;
  Rollup truth;
  CallMix mix(41);
  mix.write(journal, "0", 100, truth);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  const std::string to = directory("out");
  export_to(*book, "2025-11-24T16", to, kTestHour + 2);
  mix.write(journal, "0", 100, truth);
  ASSERT_TRUE(book->absorb(journal));
  const auto before = export_to(*book, "2025-11-24", to, kTestHour + 6);
  EXPECT_FALSE(before.final_period);
  EXPECT_GT(before.corrections, 0u);
  EXPECT_THAT(read_file(before.manifest), HasSubstr("\"final\":false"));
  std::set<std::string> ids;
  for (const Line& line : lines_of(before.file)) ids.insert(line.text.at("id"));
  const std::string bytes = read_file(before.file);

  const auto after = export_to(*book, "2025-11-24", to, kTestHour + 8);
  EXPECT_TRUE(after.final_period);
  std::set<std::string> final_ids;
  for (const Line& line : lines_of(after.file)) final_ids.insert(line.text.at("id"));
  EXPECT_EQ(final_ids, ids);
  EXPECT_EQ(read_file(after.file), bytes);  // nothing came in between
}

TEST_F(BookTest, APeriodInTheFutureIsAnError) {
  auto book = open();
  auto exported =
      book->export_period(period("2025-12"), Book::Format::csv, directory("out"), at_hour(kTestHour));
  ASSERT_FALSE(exported);
  EXPECT_THAT(exported.error().message, HasSubstr("2025-12 begins in the future"));
  EXPECT_TRUE(fs::is_empty(folder_ / "out"));
}

TEST_F(BookTest, ManifestHoldsTheHashOfTheFileTheWatermarksAndTheSums) {
  EntryList journal;
  Rollup truth;
  CallMix(51).write(journal, "0", 50, truth);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  const auto exported = export_to(*book, "2025-11-24", directory("out"), kTestHour + 100);
  const std::string manifest = read_file(exported.manifest);
  std::uint64_t calls = 0;
  for (const auto& [key, sums] : truth) calls += sums.calls;
  EXPECT_EQ(exported.calls, calls);
  EXPECT_THAT(manifest, HasSubstr("\"sums\":{\"calls\":" + std::to_string(calls) + ","));
  EXPECT_THAT(manifest, HasSubstr("\"rows\":" + std::to_string(truth.size()) + ","));
  EXPECT_THAT(manifest, HasSubstr("\"sha256\":\"" + exported.sha256 + "\""));
  EXPECT_THAT(manifest, HasSubstr("{\"journal\":\"00c0ffee\",\"stream\":\"0\",\"entry\":" +
                                  std::to_string(journal.streams()->front().last) + ",\"open_calls\":2}"));
  // The hash by another program.
  const std::string command = "sha256sum '" + exported.file + "' > '" + path("sum") + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(read_file(path("sum")).substr(0, 64), exported.sha256);
}

TEST_F(BookTest, TwoBooksOfTheSameJournalsExportTheSameBytes) {
  EntryList journal;
  Rollup truth;
  CallMix(61).write(journal, "0", 150, truth);
  auto one = open("one"), other = open("other");
  one->set_batch(7);
  ASSERT_TRUE(one->absorb(journal));
  ASSERT_TRUE(other->absorb(journal));
  const auto first = export_to(*one, "2025-11", directory("a"), kTestHour + 1'000);
  const auto second = export_to(*other, "2025-11", directory("b"), kTestHour + 2'000);
  EXPECT_EQ(read_file(first.file), read_file(second.file));
}

TEST_F(BookTest, TwoProxiesExportedByThemselvesHaveNoIdInCommon) {
  EntryList one(1), other(2);
  Rollup truth;
  CallMix(71).write(one, "0", 60, truth);
  CallMix(71).write(other, "0", 60, truth);  // the same users in the same hours
  std::set<std::string> ids;
  std::size_t rows = 0;
  for (EntryList* journal : {&one, &other}) {
    auto book = open("book-" + journal_name(*journal->incarnation()));
    ASSERT_TRUE(book->absorb(*journal));
    const auto exported =
        export_to(*book, "2025-11", directory(journal_name(*journal->incarnation())), kTestHour + 1'000);
    for (const Line& line : lines_of(exported.file)) ids.insert(line.text.at("id"));
    rows += exported.rows;
  }
  EXPECT_EQ(ids.size(), rows);
}

TEST_F(BookTest, AChangedFileOrBookIsNoticed) {
  EntryList journal;
  Rollup truth;
  CallMix(151).write(journal, "0", 50, truth);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  const std::string to = directory("out");
  const auto exported = export_to(*book, "2025-11-24", to, kTestHour + 100);
  EXPECT_TRUE(book->check_exports(to)->empty());
  std::ofstream(exported.file, std::ios::app) << "x";
  EXPECT_THAT(*book->check_exports(to), testing::ElementsAre(HasSubstr("is not the file that was exported")));
  fs::remove(exported.file);
  EXPECT_TRUE(book->check_exports(to)->empty());  // moved to where it is used
}

TEST_F(BookTest, AnEditedBookDoesNotExportAnotherTruth) {
  EntryList journal;
  Rollup truth;
  CallMix(161).write(journal, "0", 50, truth);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  const auto exported = export_to(*book, "2025-11-24", directory("out"), kTestHour + 100);
  const std::string bytes = read_file(exported.file);
  sqlite3* handle = nullptr;
  ASSERT_EQ(sqlite3_open(path("usage.sqlite").c_str(), &handle), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(handle, "UPDATE rows SET calls = calls + 1", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(handle);
  EXPECT_THAT(*book->check_exports(""), testing::ElementsAre(HasSubstr("2025-11-24.csv: the book's rows")));
  auto again =
      book->export_period(period("2025-11-24"), Book::Format::csv, path("out"), at_hour(kTestHour + 200));
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().message, HasSubstr("Was the book edited?"));
  EXPECT_EQ(read_file(exported.file), bytes);
}

TEST(Period, MonthsDaysAndHours) {
  auto month = Book::parse_period("2026-02");
  ASSERT_TRUE(month);
  EXPECT_EQ(month->end_hour - month->first_hour, 28 * 24);
  EXPECT_EQ(usage::hour_text(month->first_hour), "2026-02-01T00:00:00Z");
  EXPECT_EQ(Book::parse_period("2028-02")->end_hour - Book::parse_period("2028-02")->first_hour, 29 * 24);
  EXPECT_EQ(usage::hour_text(Book::parse_period("2026-12")->end_hour), "2027-01-01T00:00:00Z");
  EXPECT_EQ(usage::hour_text(Book::parse_period("2026-11-22")->first_hour), "2026-11-22T00:00:00Z");
  EXPECT_EQ(Book::parse_period("2026-11-22T08")->first_hour - Book::parse_period("2026-11-22")->first_hour,
            8);
  EXPECT_EQ(Book::parse_period("2026-11-22T08")->name, "2026-11-22T08");
  for (const char* wrong :
       {"",          "2026",        "2026-",         "2026-13",      "2026-00",          "2026-11-31",
        "2026-11-2", "2026-11-22T", "2026-11-22T24", "2026-11-22T8", "2026-11-22T08:00", "2026-11-22 08",
        "26-11",     "2026-1a",     "-026-11",       "2026-+1",      "2026-11x",         "2026-11-22x",
        "2026/11",   "1969-12"})
    EXPECT_FALSE(Book::parse_period(wrong)) << wrong;
}

}  // namespace
}  // namespace tollgate::billing
