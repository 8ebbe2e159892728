// What it costs to take calls into the book: 10 000 calls (20 000 entries) of 1 000 users, and the file made of them.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "metering/base/check.h"
#include "metering/base/random.h"
#include "metering/billing/billing.h"
#include "tests/metering/usage/support/entry_list.h"

namespace {

using namespace tollgate;

constexpr std::uint64_t kCalls = 10'000;
constexpr std::int64_t kHour = 490'000;  // 2025-11-24T16:00Z

usage::EntryList make_journal() {
  usage::EntryList journal;
  Random random(1);
  for (std::uint64_t call = 1; call <= kCalls; ++call) {
    usage::CallBegin begin;
    begin.call = call;
    begin.time_ms = kHour * 3'600'000 + static_cast<std::int64_t>(call);
    begin.request_id = "0123456789abcdef";
    begin.user = "user" + std::to_string(random.below(1'000));
    begin.tenant = "acme";
    begin.operations.push_back({"Case", "read", "", "customer", 1});
    begin.charged.push_back({"q:{p017}:acme:u:" + begin.user, "daily", 1});
    journal.add("0", begin);
    usage::CallEnd end;
    end.call = call;
    end.reason = "ok";
    end.status = 200;
    end.units = 1;
    end.upstream_us = 1 + random.below(100'000);
    end.buckets = {1};
    journal.add("0", end);
  }
  return journal;
}

struct Folder {
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tollgate-bench-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

void absorb_entries(benchmark::State& state) {
  const usage::EntryList journal = make_journal();
  Folder folder;
  std::int64_t entries = 0;
  for (auto _ : state) {
    auto book = billing::Book::open(folder.path + "/" + std::to_string(entries));
    CHECK(book.has_value(), "a book can be made");
    auto read = (*book)->absorb(journal);
    CHECK(read.has_value(), "the journal is whole");
    entries += static_cast<std::int64_t>(*read);
  }
  state.SetItemsProcessed(entries);
}
BENCHMARK(absorb_entries)->Unit(benchmark::kMillisecond);

void export_rows(benchmark::State& state) {
  const usage::EntryList journal = make_journal();
  Folder folder;
  auto book = billing::Book::open(folder.path + "/book");
  CHECK(book.has_value() && (*book)->absorb(journal).has_value(), "a book can be made");
  const auto period = billing::Book::parse_period("2025-11-24");
  std::int64_t rows = 0;
  for (auto _ : state) {
    auto exported = (*book)->export_period(*period, billing::Book::Format::csv, folder.path,
                                           UnixTime(std::chrono::hours(kHour + 100)));
    CHECK(exported.has_value(), "a file can be written");
    rows += static_cast<std::int64_t>(exported->rows);
  }
  state.SetItemsProcessed(rows);
}
BENCHMARK(export_rows)->Unit(benchmark::kMillisecond);

}  // namespace
