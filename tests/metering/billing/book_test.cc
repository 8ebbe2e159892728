#include "metering/billing/billing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/metering/usage/support/call_mix.h"
#include "tests/metering/usage/support/csv.h"

namespace tollgate::billing {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using usage::CallMix;
using usage::EntryList;
using usage::kTestHour;
using usage::Rollup;
using usage::RollupKey;

UnixTime at_hour(std::int64_t hour) {
  return UnixTime(std::chrono::hours(hour));
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class BookTest : public testing::Test {
 protected:
  BookTest() {
    std::string pattern = (fs::temp_directory_path() / "tollgate-book-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~BookTest() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string directory(const std::string& name) const {
    fs::create_directories(folder_ / name);
    return path(name);
  }
  std::unique_ptr<Book> open(const std::string& name = "usage.sqlite") const {
    auto book = Book::open(path(name));
    EXPECT_TRUE(book) << book.error().message;
    return std::move(*book);
  }
  static Rollup all_rows(const Book& book) {
    auto rows = book.rows(0, 1'000'000);
    EXPECT_TRUE(rows) << rows.error().message;
    return *rows;
  }
  static Book::Period period(std::string_view text) {
    auto period = Book::parse_period(text);
    EXPECT_TRUE(period) << period.error().message;
    return *period;
  }
  // The hours of CallMix: 2025-11-24T16 .. 21, and days and months around them.
  static Book::Exported export_to(Book& book, std::string_view name, const std::string& directory,
                                  std::int64_t now, Book::Format format = Book::Format::csv) {
    auto exported = book.export_period(period(name), format, directory, at_hour(now));
    EXPECT_TRUE(exported) << exported.error().message;
    return *exported;
  }

  // What the files say, added up by key: the columns that are whole numbers, and seconds.
  struct Line {
    std::map<std::string, std::string> text;
    std::uint64_t number(const std::string& column) const { return std::stoull(text.at(column)); }
  };
  static std::vector<Line> lines_of(const std::string& file) {
    const auto records = usage::parse_csv(read_file(file));
    std::vector<Line> lines;
    for (std::size_t i = 1; i < records.size(); ++i) {
      Line line;
      for (std::size_t column = 0; column < records[0].size(); ++column)
        line.text[records[0][column]] = records[i][column];
      lines.push_back(std::move(line));
    }
    return lines;
  }
  static void add_file(Rollup& sums, const std::string& file) {
    for (const Line& line : lines_of(file)) {
      auto name = [&](const std::string& column) {
        const std::string& text = line.text.at(column);
        return text.starts_with('\'') ? text.substr(1) : text;
      };
      int year = 0, month = 0, day = 0, hour = 0;
      EXPECT_EQ(std::sscanf(line.text.at("hour").c_str(), "%d-%d-%dT%d:00:00Z", &year, &month, &day, &hour),
                4);
      const auto days = std::chrono::sys_days(std::chrono::year(year) / month / day).time_since_epoch();
      RollupKey key{std::chrono::duration_cast<std::chrono::hours>(days).count() + hour,
                    name("tenant"),
                    name("organization"),
                    name("user"),
                    name("product"),
                    name("object"),
                    name("operation")};
      usage::RollupSums& row = sums[key];
      usage::RollupSums part;
      part.calls = line.number("calls"), part.interrupted = line.number("interrupted");
      part.degraded = line.number("degraded"), part.errors = line.number("errors"),
      part.free = line.number("free");
      part.given_back = line.number("given_back"), part.void_charged = line.number("void_charged");
      part.void_maybe = line.number("void_maybe"),
      part.denied = usage::parse_denied(line.text.at("denied_by_reason"));
      part.bytes_in = line.number("bytes_in"), part.bytes_out = line.number("bytes_out");
      std::string seconds = line.text.at("backend_seconds");
      part.backend_us = std::stoull(seconds.erase(seconds.size() - 7, 1));
      row.merge(part);
    }
  }
  static Rollup without_latency(Rollup rollup) {
    for (auto& [key, sums] : rollup) sums.latency = {};
    return rollup;
  }

  fs::path folder_;
};

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

// Runs `work` in a process of its own that dies, without any clean-up, at its step number `step`. True when it died.
bool dies_at(int step, const std::function<void(const std::function<void(std::string_view)>& hook)>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    int passed = 0;
    work([&](std::string_view) {
      if (passed++ == step) ::_exit(77);
    });
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  return WEXITSTATUS(status) == 77;
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

// ---- licences

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

TEST_F(BookTest, FilesThatAreNoBookAreRefused) {
  std::ofstream(path("text")) << "this is no database, and long enough to be looked at as one by somebody";
  EXPECT_FALSE(Book::open(path("text")));
  auto nowhere = Book::open(path("no/such/directory/usage.sqlite"));
  ASSERT_FALSE(nowhere);
  EXPECT_THAT(nowhere.error().message, HasSubstr("no/such/directory/usage.sqlite"));
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
