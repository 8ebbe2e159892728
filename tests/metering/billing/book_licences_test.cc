// Licences in an export: who held which, and what it costs by the prices of the first export.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>

#include "tests/metering/billing/support/book_fixture.h"
#include "tests/metering/usage/support/call_mix.h"

namespace tollgate::billing {
namespace {

using testing::HasSubstr;
using usage::EntryList;
using usage::kTestHour;

constexpr std::int64_t kHourMs = 3'600'000;

// Two organizations, three users and a release: the journal of the golden files.
void write_licences(EntryList& journal) {
  std::uint64_t call = 0;
  auto make = [&](const std::string& user, const std::string& organization, const std::string& product,
                  std::int64_t hour, std::uint32_t count = 1) {
    usage::CallBegin begin{.call = ++call,
                           .time_ms = hour * kHourMs + 60'000,
                           .user = user,
                           .tenant = "acme",
                           .organization = organization};
    begin.operations.push_back({"Case", "read", "cases", product, count});
    journal.add("0", begin);
    journal.add("0", usage::CallEnd{.call = call, .reason = "ok", .status = 200, .units = count});
  };
  auto seat = [&](const std::string& user, bool named, std::int64_t from_ms, std::int64_t until_ms,
                  std::uint64_t used) {
    journal.add("0", usage::EntryKind::seat,
                usage::SeatEntry{.time_ms = from_ms,
                                 .pool = named ? "self_service" : "concurrent",
                                 .named = named,
                                 .tenant = "acme",
                                 .user = user,
                                 .until_ms = until_ms,
                                 .used = used});
  };
  const std::int64_t start = kTestHour * kHourMs;
  seat("ann", true, start + 1'000, usage::SeatEntry::kNoEnd, 1);
  make("ann", "north", "self_service", kTestHour, 3);
  seat("bob", true, start + 2'000, usage::SeatEntry::kNoEnd, 2);
  make("bob", "south", "self_service", kTestHour);
  seat("bob", true, start + 3'000, start + 3'000, 0);
  make("eve", "north", "customer", kTestHour + 1, 5);
  make("eve", "north", "customer", kTestHour + 1);
  make("dan", "=south", "customer", kTestHour + 1);
  seat("ann", false, start + 5'000, start + 65'000, 1);
  seat("eve", false, start + 64'000, start + 90'000, 2);
  seat("dan", false, start + 89'000, start + 99'000, 2);
}

std::vector<licence::Price> test_prices(std::uint64_t customer = 7'000) {
  using licence::Price;
  return {
      {.product = "self_service", .currency = "USD", .source = "sheet", .as_of = "2017"},
      {.product = "customer", .minor_units = customer, .currency = "USD", .source = "sheet", .as_of = "2017"},
      {.product = "concurrent",
       .minor_units = 2'500,
       .currency = "EUR",
       .per = Price::Per::concurrent_seat,
       .every = Price::Every::month,
       .source = "contract 12",
       .as_of = "2025-01-01"}};
}

std::string golden(const std::string& name) {
  return read_file(TOLLGATE_SOURCE_DIR "/tests/metering/billing/golden/" + name);
}

TEST_F(BookTest, LicencesOfAMonthAreTheGoldenFiles) {
  EntryList journal;
  write_licences(journal);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  for (Book::Format format : {Book::Format::csv, Book::Format::ndjson}) {
    auto exported = book->export_period(period("2025-11"), format, directory("out"),
                                        at_hour(kTestHour + 1'000), test_prices());
    ASSERT_TRUE(exported) << exported.error().message;
    EXPECT_EQ(read_file(exported->licences), golden("2025-11.licences." + std::string(name(format))));
    const std::string manifest = read_file(exported->manifest);
    EXPECT_THAT(manifest,
                HasSubstr("\"licences\":{\"file\":\"2025-11.licences." + std::string(name(format))));
    EXPECT_THAT(manifest, HasSubstr("\"rows\":9}"));
  }
}

TEST_F(BookTest, LicencesOfAClosedPeriodKeepTheirPricesAndNumbersWhateverComesLater) {
  EntryList journal;
  write_licences(journal);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  const auto out = directory("out");
  const auto day = period("2025-11-24");
  auto first = book->export_period(day, Book::Format::csv, out, at_hour(kTestHour + 100), test_prices());
  ASSERT_TRUE(first);
  const std::string bytes = read_file(first->licences);
  EXPECT_THAT(bytes, HasSubstr("7000"));

  journal.add("1", usage::EntryKind::seat,
              usage::SeatEntry{.time_ms = kTestHour * kHourMs,
                               .pool = "self_service",
                               .named = true,
                               .tenant = "acme",
                               .user = "late",
                               .until_ms = usage::SeatEntry::kNoEnd});
  ASSERT_TRUE(book->absorb(journal));
  auto again = book->export_period(day, Book::Format::csv, out, at_hour(kTestHour + 101), test_prices(9'999));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(read_file(again->licences), bytes);
  EXPECT_TRUE(book->check_exports(out)->empty());
  std::ofstream(first->licences, std::ios::app) << "x";
  const auto differences = book->check_exports(out);
  ASSERT_EQ(differences->size(), 1U);
  EXPECT_THAT(differences->front(), HasSubstr("2025-11-24.licences.csv: is not the file that was exported"));

  // The next day has the prices of its own first export, and whoever holds a seat by now.
  auto next = book->export_period(period("2025-11-25"), Book::Format::csv, out, at_hour(kTestHour + 101),
                                  test_prices(9'999));
  ASSERT_TRUE(next);
  const auto lines = lines_of(next->licences);
  ASSERT_FALSE(lines.empty());
  for (const Line& line : lines)
    if (line.text.at("scope") == "total" && line.text.at("product") == "self_service") {
      EXPECT_EQ(line.number("named_seats_max"), 2U);
    }
}

TEST_F(BookTest, APreviewCountsLicencesAndKeepsNone) {
  EntryList journal;
  write_licences(journal);
  auto book = open();
  ASSERT_TRUE(book->absorb(journal));
  auto preview = book->export_period(period("2025-11"), Book::Format::csv, directory("out"),
                                     at_hour(kTestHour + 2), test_prices());
  ASSERT_TRUE(preview);
  EXPECT_FALSE(preview->final_period);
  EXPECT_EQ(read_file(preview->licences), golden("2025-11.licences.csv"));
  auto later = book->export_period(period("2025-11"), Book::Format::csv, directory("out"),
                                   at_hour(kTestHour + 1'000), test_prices(1));
  ASSERT_TRUE(later);
  EXPECT_THAT(read_file(later->licences), testing::Not(HasSubstr("7000")));
}

TEST_F(BookTest, ABookOfTheFirstLayoutLearnsItsUsers) {
  EntryList journal;
  write_licences(journal);
  {
    auto book = open();
    ASSERT_TRUE(book->absorb(journal));
  }
  sqlite3* handle = nullptr;
  ASSERT_EQ(sqlite3_open(path("usage.sqlite").c_str(), &handle), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(handle,
                         "CREATE TABLE kept AS SELECT * FROM seats; DROP TABLE seats; DROP TABLE users; DROP "
                         "TABLE licences; DROP TABLE licence_closings; PRAGMA user_version = 1",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(handle);
  open();
  ASSERT_EQ(sqlite3_open(path("usage.sqlite").c_str(), &handle), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(handle, "INSERT INTO seats SELECT * FROM kept; DROP TABLE kept", nullptr, nullptr,
                         nullptr),
            SQLITE_OK);
  sqlite3_close(handle);
  auto book = open();
  auto exported = book->export_period(period("2025-11"), Book::Format::csv, directory("out"),
                                      at_hour(kTestHour + 1'000), test_prices());
  ASSERT_TRUE(exported) << exported.error().message;
  EXPECT_EQ(read_file(exported->licences), golden("2025-11.licences.csv"));
}

}  // namespace
}  // namespace tollgate::billing
