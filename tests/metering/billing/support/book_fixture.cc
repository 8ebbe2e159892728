#include "tests/metering/billing/support/book_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <sstream>

#include "tests/metering/usage/support/csv.h"

namespace tollgate::billing {

namespace fs = std::filesystem;
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

BookTest::BookTest() {
  std::string pattern = (fs::temp_directory_path() / "tollgate-book-XXXXXX").string();
  folder_ = ::mkdtemp(pattern.data());
}

BookTest::~BookTest() {
  fs::remove_all(folder_);
}

std::string BookTest::directory(const std::string& name) const {
  fs::create_directories(folder_ / name);
  return path(name);
}

std::unique_ptr<Book> BookTest::open(const std::string& name) const {
  auto book = Book::open(path(name));
  EXPECT_TRUE(book) << book.error().message;
  return std::move(*book);
}

Rollup BookTest::all_rows(const Book& book) {
  auto rows = book.rows(0, 1'000'000);
  EXPECT_TRUE(rows) << rows.error().message;
  return *rows;
}

Book::Period BookTest::period(std::string_view text) {
  auto period = Book::parse_period(text);
  EXPECT_TRUE(period) << period.error().message;
  return *period;
}

Book::Exported BookTest::export_to(Book& book, std::string_view name, const std::string& directory,
                                   std::int64_t now, Book::Format format) {
  auto exported = book.export_period(period(name), format, directory, at_hour(now));
  EXPECT_TRUE(exported) << exported.error().message;
  return *exported;
}

std::vector<BookTest::Line> BookTest::lines_of(const std::string& file) {
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

void BookTest::add_file(Rollup& sums, const std::string& file) {
  for (const Line& line : lines_of(file)) {
    auto name = [&](const std::string& column) {
      const std::string& text = line.text.at(column);
      return text.starts_with('\'') ? text.substr(1) : text;
    };
    int year = 0, month = 0, day = 0, hour = 0;
    EXPECT_EQ(std::sscanf(line.text.at("hour").c_str(), "%d-%d-%dT%d:00:00Z", &year, &month, &day, &hour), 4);
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

Rollup BookTest::without_latency(Rollup rollup) {
  for (auto& [key, sums] : rollup) sums.latency = {};
  return rollup;
}

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

}  // namespace tollgate::billing
