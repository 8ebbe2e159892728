// What tests of the book stand on: a folder of their own, books in it, exports of the hours of CallMix (2025-11-24T16 .. 21),
// and what the exported files say.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "metering/billing/billing.h"

namespace tollgate::billing {

UnixTime at_hour(std::int64_t hour);
std::string read_file(const std::string& path);

class BookTest : public testing::Test {
 protected:
  BookTest();
  ~BookTest() override;

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string directory(const std::string& name) const;  // made
  std::unique_ptr<Book> open(const std::string& name = "usage.sqlite") const;
  static usage::Rollup all_rows(const Book& book);
  static Book::Period period(std::string_view text);
  static Book::Exported export_to(Book& book, std::string_view name, const std::string& directory,
                                  std::int64_t now, Book::Format format = Book::Format::csv);

  // A line of a file, by the names of its columns.
  struct Line {
    std::map<std::string, std::string> text;
    std::uint64_t number(const std::string& column) const { return std::stoull(text.at(column)); }
  };
  static std::vector<Line> lines_of(const std::string& file);
  // Adds up what the lines say: the columns that are whole numbers, and seconds.
  static void add_file(usage::Rollup& sums, const std::string& file);
  static usage::Rollup without_latency(usage::Rollup rollup);

  std::filesystem::path folder_;
};

// Runs `work` in a process of its own that dies, without any clean-up, at its step number `step`. True when it died.
bool dies_at(int step, const std::function<void(const std::function<void(std::string_view)>& hook)>& work);

}  // namespace tollgate::billing
