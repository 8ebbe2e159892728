#include "metering/journal/retention.h"

#include <gtest/gtest.h>

#include "tests/metering/journal/support/journal_directory.h"

namespace tollgate::journal {
namespace {

constexpr std::int64_t kHour = 3'600'000;
constexpr Milliseconds kKept{48 * kHour};

// Segments of 100 entries and 1 000 bytes, closed hour by hour from `first_hour`; the last one is being written.
KeptStream stream_of(const std::string& name, int segments, std::int64_t first_hour = 1) {
  KeptStream stream;
  stream.name = name;
  for (int i = 0; i < segments; ++i) {
    SegmentRecord record;
    record.number = static_cast<std::uint64_t>(i + 1);
    record.path = name + "-" + std::to_string(i + 1);
    record.first = static_cast<std::uint64_t>(i) * 100 + 1;
    record.last = record.first + 99;
    record.bytes = 1'000;
    record.closed_ms = i + 1 == segments ? 0 : (first_hour + i) * kHour;
    stream.records.push_back(record);
  }
  return stream;
}

std::vector<std::string> paths(const std::vector<Deletion>& deletions) {
  std::vector<std::string> paths;
  for (const Deletion& deletion : deletions) paths.push_back(deletion.path);
  return paths;
}

TEST(Retention, WhatWasNeverRolledUpIsKeptHoweverOld) {
  EXPECT_TRUE(choose_deletions({stream_of("0", 5)}, 10'000 * kHour, kKept, 0).empty());
}

TEST(Retention, RolledUpSegmentsGoWhenTheyAreOldEnough) {
  auto stream = stream_of("0", 6);
  stream.released_below = 301;  // the first three segments
  EXPECT_TRUE(choose_deletions({stream}, 49 * kHour, kKept, 0).empty());
  EXPECT_EQ(paths(choose_deletions({stream}, 49 * kHour + 1, kKept, 0)), std::vector<std::string>{"0-1"});
  EXPECT_EQ(paths(choose_deletions({stream}, 500 * kHour, kKept, 0)),
            (std::vector<std::string>{"0-1", "0-2", "0-3"}));
  stream.released_below = 300;  // entry 300 itself is not rolled up
  EXPECT_EQ(paths(choose_deletions({stream}, 500 * kHour, kKept, 0)),
            (std::vector<std::string>{"0-1", "0-2"}));
}

TEST(Retention, NewestSegmentStaysBecauseItCarriesTheNumbersOn) {
  auto stream = stream_of("0", 3);
  for (SegmentRecord& record : stream.records) record.closed_ms = kHour;
  stream.released_below = 10'000;
  EXPECT_EQ(paths(choose_deletions({stream}, 500 * kHour, kKept, 0)),
            (std::vector<std::string>{"0-1", "0-2"}));
  EXPECT_EQ(paths(choose_deletions({stream}, 500 * kHour, kKept, 1)),
            (std::vector<std::string>{"0-1", "0-2"}));
}

TEST(Retention, WhatIsNotDurableIsNotDeleted) {
  auto stream = stream_of("0", 4);
  stream.released_below = 10'000;
  stream.durable = 150;
  EXPECT_EQ(paths(choose_deletions({stream}, 500 * kHour, kKept, 1)), std::vector<std::string>{"0-1"});
}

TEST(Retention, CapTakesRolledUpSegmentsFirstAndSaysWhatElseIsLost) {
  auto old = stream_of("0", 4, 1), young = stream_of("1", 4, 10);
  young.released_below = 201;
  const auto some = choose_deletions({old, young}, 20 * kHour, kKept, 6'000);
  EXPECT_EQ(paths(some), (std::vector<std::string>{"1-1", "1-2"}));
  EXPECT_FALSE(some[0].unreleased);
  const auto more = choose_deletions({old, young}, 20 * kHour, kKept, 4'500);
  EXPECT_EQ(paths(more), (std::vector<std::string>{"1-1", "1-2", "0-1", "0-2"}));
  EXPECT_TRUE(more[2].unreleased);
  EXPECT_EQ(more[2].first, 1u);
  EXPECT_EQ(more[2].last, 100u);
}

// The cap, in a real directory: the loss is logged, counted and written down; what is kept reads without holes.
TEST(Retention, JournalBeyondItsCapLosesTheOldestAloud) {
  const TempDirectory temp;
  auto options = small_journal(temp.journal());
  options.max_bytes = 512 << 10;
  options.commit_interval = Milliseconds(1);
  std::atomic<int> rounds{0};
  options.disk.round_ended = [&] {
    ++rounds;
    rounds.notify_all();
  };
  std::mutex mutex;
  std::string log;
  options.log = [&](std::string_view, std::string_view text) {
    const std::lock_guard guard(mutex);
    log += text;
  };
  auto journal = must_open(options);
  for (int i = 0; i < 15'000; ++i) {
    auto end = done();
    ASSERT_TRUE(journal->stream(0).append(end));
  }
  const int until = rounds + 2;
  for (int now = rounds; now < until; now = rounds) rounds.wait(now);
  EXPECT_LE(journal->bytes_on_disk(), options.max_bytes + options.segment_bytes);
  const auto entries = entries_of(temp.journal(), "0");
  ASSERT_FALSE(entries.empty());
  EXPECT_GT(entries.front().number, 1u);
  EXPECT_EQ(entries.back().number, 15'000u);
  EXPECT_TRUE(without_gaps(entries));
  EXPECT_EQ(journal->lost_entries(), entries.front().number - 1);
  {
    const std::lock_guard guard(mutex);
    EXPECT_NE(log.find("before they were rolled up"), std::string::npos);
  }
  bool marked = false;
  for (const Entry& entry : entries_of(temp.journal(), "control"))
    marked |= entry.kind == usage::EntryKind::mark && usage::decode_mark(entry.body)->what == "lost";
  EXPECT_TRUE(marked);
}

TEST(Retention, ReleasedSegmentsLeaveTheDiskOnceTheyAreOld) {
  const TempDirectory temp;
  auto options = small_journal(temp.journal());
  std::atomic<std::int64_t> now{1'000'000'000};
  std::atomic<int> rounds{0};
  options.commit_interval = Milliseconds(1);
  options.disk.unix_ms = [&] { return now.load(); };
  options.disk.round_ended = [&] {
    ++rounds;
    rounds.notify_all();
  };
  auto journal = must_open(options);
  for (int i = 0; i < 5'000; ++i) {
    auto end = done();
    ASSERT_TRUE(journal->stream(0).append(end));
  }
  const auto wait = [&] {
    const int until = rounds + 2;
    for (int seen = rounds; seen < until; seen = rounds) rounds.wait(seen);
  };
  const auto files = files_of(temp.journal(), "0").size();
  now += 49 * kHour;
  wait();
  EXPECT_EQ(files_of(temp.journal(), "0").size(), files);
  journal->release_below("0", 5'001);
  wait();
  EXPECT_LE(files_of(temp.journal(), "0").size(), 2u);
  EXPECT_EQ(journal->lost_entries(), 0u);
}

}  // namespace
}  // namespace tollgate::journal
