// One journal over several lives: what is kept, what is ended, what is trusted.
#include "metering/journal/journal.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "metering/journal/open_table.h"
#include "metering/journal/recovery.h"
#include "tests/metering/journal/support/begin_call.h"
#include "tests/metering/journal/support/journal_directory.h"

namespace tollgate::journal {
namespace {

using usage::CallOutcome;

TEST(Journal, WhatWasWrittenIsReadBackInOrderAcrossSegmentsAndStarts) {
  const TempDirectory temp;
  std::uint32_t incarnation = 0;
  for (int life = 0; life < 3; ++life) {
    auto journal = must_open(small_journal(temp.journal()));
    EXPECT_TRUE(incarnation == 0 || journal->incarnation() == incarnation);
    incarnation = journal->incarnation();
    EXPECT_EQ(journal->recovery().first, life == 0);
    EXPECT_EQ(journal->recovery().clean, life > 0);
    for (int i = 0; i < 1'000; ++i) {
      auto begin = call_of("user-" + std::to_string(i));
      auto call = begin_call(journal->stream(0), begin);
      ASSERT_TRUE(call);
      EXPECT_EQ(begin.call, call->call);
      EXPECT_EQ(call->call, static_cast<std::uint64_t>(life * 1'000 + i + 1));
      auto end = done();
      ASSERT_TRUE(journal->stream(0).end_call(*call, end));
      EXPECT_EQ(end.call, call->call);
    }
  }
  const auto entries = entries_of(temp.journal(), "0");
  ASSERT_EQ(entries.size(), 6'000u);
  EXPECT_EQ(entries.front().number, 1u);
  EXPECT_TRUE(without_gaps(entries));
  EXPECT_GT(files_of(temp.journal(), "0").size(), 3u);
  for (const auto& [call, story] : calls_of(temp.journal(), "0")) {
    ASSERT_EQ(story.begins.size(), 1u) << call;
    ASSERT_EQ(story.ends.size(), 1u) << call;
    EXPECT_EQ(story.ends[0].outcome, CallOutcome::done);
    EXPECT_EQ(story.begins[0].user, "user-" + std::to_string((call - 1) % 1'000));
  }
}

TEST(Journal, CleanlyClosedSegmentsTakeNoMoreRoomThanTheirEntries) {
  const TempDirectory temp;
  {
    must_open(small_journal(temp.journal()));
  }
  for (const std::string stream : {"0", "control"})
    for (const std::string& file : files_of(temp.journal(), stream))
      EXPECT_LT(std::filesystem::file_size(file), 1'024u) << file;
}

TEST(Journal, ReadingBeginsBehindTheNumberAskedForAndEndsWhenTheVisitorSaysSo) {
  const TempDirectory temp;
  {
    auto journal = must_open(small_journal(temp.journal()));
    for (int i = 0; i < 2'000; ++i) {
      auto end = done();
      ASSERT_TRUE(journal->stream(0).append(end));
    }
  }
  const Reader reader(temp.journal());
  for (const std::uint64_t after : {0ULL, 1ULL, 999ULL, 1'999ULL, 2'000ULL}) {
    std::vector<std::uint64_t> numbers;
    ASSERT_TRUE(reader.read("0", after, [&](const Reader::Position& at, const usage::EntryView&) {
      numbers.push_back(at.number);
      return numbers.size() < 10;
    }));
    ASSERT_EQ(numbers.size(), std::min<std::uint64_t>(10, 2'000 - after));
    EXPECT_TRUE(numbers.empty() || numbers.front() == after + 1);
  }
  const auto streams = reader.streams();
  ASSERT_TRUE(streams);
  ASSERT_EQ(streams->size(), 2u);
  EXPECT_EQ((*streams)[0].name, "0");
  EXPECT_EQ((*streams)[0].first, 1u);
  EXPECT_EQ((*streams)[0].last, 2'000u);
  EXPECT_EQ((*streams)[0].segments, files_of(temp.journal(), "0").size());
  EXPECT_EQ((*streams)[1].name, "control");
}

TEST(Journal, KilledProcessLeavesEachOpenCallWithOneEnd) {
  const TempDirectory temp;
  ASSERT_TRUE(killed_after([&] {
    Journal* journal = must_open(small_journal(temp.journal())).release();  // never closed
    Stream& stream = journal->stream(0);
    const auto begin = [&](const char* user, std::uint32_t units) {
      auto entry = call_of(user, units);
      return *begin_call(stream, entry);
    };
    begin("begun", 1);
    stream.charged(begin("charged", 2));
    const OpenCall sent = begin("sent", 3);
    stream.charged(sent);
    stream.sent(sent);
    const OpenCall given_back = begin("given back", 4);
    stream.charged(given_back);
    stream.sent(given_back);
    stream.uncharged(given_back);
    const OpenCall ended = begin("ended", 5);
    stream.sent(ended);
    auto end = done(5);
    stream.end_call(ended, end);
  }));
  {
    auto journal = must_open(small_journal(temp.journal()));
    EXPECT_FALSE(journal->recovery().clean);
    EXPECT_TRUE(journal->recovery().same_boot);
    EXPECT_EQ(journal->recovery().interrupted, 1u);
    EXPECT_EQ(journal->recovery().void_charged, 1u);
    EXPECT_EQ(journal->recovery().void_maybe, 2u);
    EXPECT_EQ(journal->recovery().damaged_segments, 0u);
  }
  {
    EXPECT_EQ(must_open(small_journal(temp.journal()))->recovery().interrupted, 0u);
  }
  std::map<std::string, std::pair<CallOutcome, std::uint32_t>> outcomes;
  for (const auto& [call, story] : calls_of(temp.journal(), "0")) {
    ASSERT_EQ(story.begins.size(), 1u);
    ASSERT_EQ(story.ends.size(), 1u);
    outcomes[story.begins[0].user] = {story.ends[0].outcome, story.ends[0].units};
  }
  EXPECT_EQ(outcomes["begun"], std::pair(CallOutcome::void_maybe, 0U));
  EXPECT_EQ(outcomes["charged"], std::pair(CallOutcome::void_charged, 0U));
  EXPECT_EQ(outcomes["sent"], std::pair(CallOutcome::interrupted, 3U));
  EXPECT_EQ(outcomes["given back"], std::pair(CallOutcome::void_maybe, 0U));
  EXPECT_EQ(outcomes["ended"], std::pair(CallOutcome::done, 5U));
  EXPECT_TRUE(without_gaps(entries_of(temp.journal(), "0")));
}

// The two moments at which the table is one step ahead of, or behind, the log.
TEST(Journal, KilledBetweenTableAndEntryNeitherLosesNorRepeatsACall) {
  const TempDirectory temp;
  ASSERT_TRUE(killed_after([&] {
    Journal* journal = must_open(small_journal(temp.journal())).release();  // never closed
    auto begin = call_of("ended");
    const OpenCall call = *begin_call(journal->stream(0), begin);
    journal->stream(0).sent(call);
    auto end = done();
    journal->stream(0).end_call(call, end);
  }));
  {
    auto table = OpenTable::open(temp.journal() + "/open-0", 1, complete({}));
    ASSERT_TRUE(table);
    const std::uint32_t ended = table->begin(1, 1);
    table->set(ended, 1, CallState::sent);  // killed after the end, before the place was freed
    table->begin(2, 1);                     // killed after the place was taken, before the begin
  }
  {
    auto journal = must_open(small_journal(temp.journal()));
    EXPECT_EQ(journal->recovery().interrupted + journal->recovery().void_maybe, 0u);
    auto begin = call_of("next");
    EXPECT_EQ(begin_call(journal->stream(0), begin)->call, 2u);
  }
  EXPECT_EQ(calls_of(temp.journal(), "0").at(1).ends.size(), 1u);
}

TEST(Journal, RecoveryThatIsKilledAtAnyStepEndsEachCallOnceAllTheSame) {
  for (const bool power_loss : {false, true}) {
    bool finished = false;
    int steps = 0;
    for (int step = 1; !finished; ++step) {
      ASSERT_LT(step, 200);
      steps = step;
      const TempDirectory temp;
      ASSERT_TRUE(killed_after([&] {
        Journal* journal = must_open(small_journal(temp.journal())).release();  // never closed
        for (int i = 0; i < 5; ++i) {
          auto begin = call_of("u" + std::to_string(i));
          const OpenCall call = *begin_call(journal->stream(0), begin);
          if (i < 3) journal->stream(0).sent(call);
        }
      }));
      auto options = small_journal(temp.journal());
      if (power_loss) options.boot_id = "boot-2";
      // The n-th look at the clock, allocation or sync of the second life is its last.
      finished = !killed_after([&] {
        int left = step;
        const auto count = [&left] {
          if (--left == 0) ::kill(::getpid(), SIGKILL);
        };
        auto fatal = options;
        const DiskCalls real = complete({});
        fatal.disk.sync = [&](int file) {
          count();
          return real.sync(file);
        };
        fatal.disk.allocate = [&](int file, std::uint64_t bytes) {
          count();
          return real.allocate(file, bytes);
        };
        fatal.disk.unix_ms = [&] {
          count();
          return real.unix_ms();
        };
        must_open(fatal).release();  // never closed
        ::_exit(0);
      });
      {
        must_open(options);
      }
      const auto calls = calls_of(temp.journal(), "0");
      ASSERT_EQ(calls.size(), 5u) << "step " << step;
      for (const auto& [call, story] : calls) {
        ASSERT_EQ(story.begins.size(), 1u);
        ASSERT_EQ(story.ends.size(), 1u) << "step " << step << ", call " << call;
        EXPECT_EQ(story.ends[0].outcome, call <= 3 ? CallOutcome::interrupted : CallOutcome::void_maybe);
      }
    }
    EXPECT_GT(steps, 5);
  }
}

TEST(Journal, AnotherBootIsAnotherIncarnationWithEmptyCellsAndTheSameName) {
  const TempDirectory temp;
  std::uint32_t incarnation = 0;
  const auto name = [&] { return *Reader(temp.journal()).incarnation(); };
  {
    auto journal = must_open(small_journal(temp.journal()));
    incarnation = journal->incarnation();
    journal->cells()[3].set_name("subject\nfield", Milliseconds(1'000), Milliseconds(100), true);
  }
  const std::uint32_t first_name = name();
  {
    auto journal = must_open(small_journal(temp.journal()));
    EXPECT_EQ(journal->incarnation(), incarnation);
    EXPECT_EQ(journal->recovery().cells_in_use, 1u);
    EXPECT_TRUE(journal->cells()[3].in_use());
    EXPECT_EQ(journal->cells()[3].name(), "subject\nfield");
  }
  auto options = small_journal(temp.journal());
  options.boot_id = "boot-2";
  auto journal = must_open(options);
  EXPECT_NE(journal->incarnation(), incarnation);
  EXPECT_FALSE(journal->recovery().same_boot);
  EXPECT_FALSE(journal->cells()[3].in_use());
  EXPECT_EQ(name(), first_name);
}

TEST(Journal, CopyOfADirectoryIsAnotherIncarnation) {
  const TempDirectory temp;
  std::uint32_t incarnation = 0;
  {
    incarnation = must_open(small_journal(temp.journal()))->incarnation();
  }
  std::filesystem::copy(temp.journal(), temp.path() + "/copy", std::filesystem::copy_options::recursive);
  EXPECT_NE(must_open(small_journal(temp.path() + "/copy"))->incarnation(), incarnation);
  EXPECT_EQ(must_open(small_journal(temp.journal()))->incarnation(), incarnation);
}

TEST(Journal, AfterAPowerLossNumbersAreNeverUsedTwice) {
  const TempDirectory temp;
  ASSERT_TRUE(killed_after([&] {
    Journal* journal = must_open(small_journal(temp.journal())).release();  // never closed
    auto begin = call_of("ann");
    begin_call(journal->stream(0), begin);
  }));
  auto options = small_journal(temp.journal());
  options.boot_id = "boot-2";
  auto journal = must_open(options);
  auto begin = call_of("bob");
  EXPECT_GT(begin_call(journal->stream(0), begin)->call, kNumbersSkipped);
  const auto entries = entries_of(temp.journal(), "0");
  ASSERT_EQ(entries.size(), 3u);  // begin, its end by recovery, begin
  EXPECT_EQ(entries[0].number, 1u);
  EXPECT_EQ(entries[1].number, kNumbersSkipped + 2);
  EXPECT_EQ(entries[2].number, kNumbersSkipped + 3);
}

TEST(Journal, SecondProcessIsRefusedAndToldWhoTheFirstIs) {
  const TempDirectory temp;
  auto journal = must_open(small_journal(temp.journal()));
  const auto second = Journal::open(small_journal(temp.journal()));
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("in use by process " + std::to_string(::getpid())), std::string::npos)
      << second.error().message;
}

TEST(Journal, DirectoryMayHaveHadMoreOrFewerStreams) {
  const TempDirectory temp;
  ASSERT_TRUE(killed_after([&] {
    auto options = small_journal(temp.journal());
    options.workers = 4;
    Journal* journal = must_open(options).release();  // never closed
    for (unsigned worker = 0; worker < 4; ++worker) {
      auto begin = call_of("w" + std::to_string(worker));
      journal->stream(worker).sent(*begin_call(journal->stream(worker), begin));
    }
  }));
  {
    EXPECT_EQ(must_open(small_journal(temp.journal()))->recovery().interrupted, 4u);
  }
  {
    EXPECT_EQ(must_open(small_journal(temp.journal()))->recovery().interrupted, 0u);
  }
  EXPECT_FALSE(std::filesystem::exists(temp.journal() + "/open-3"));
  auto options = small_journal(temp.journal());
  options.workers = 6;
  auto journal = must_open(options);
  for (unsigned worker = 0; worker < 6; ++worker) {
    auto begin = call_of("again");
    const auto call = begin_call(journal->stream(worker), begin);
    ASSERT_TRUE(call);
    EXPECT_EQ(call->call, worker < 4 ? 2u : 1u);
    auto end = done();
    journal->stream(worker).end_call(*call, end);
    EXPECT_TRUE(without_gaps(entries_of(temp.journal(), std::to_string(worker))));
  }
  EXPECT_EQ(calls_of(temp.journal(), "3").at(1).ends.at(0).outcome, CallOutcome::interrupted);
}

TEST(Journal, AuditIsDurableWhenItReturns) {
  const TempDirectory temp;
  auto options = small_journal(temp.journal());
  int syncs = 0;
  options.disk.sync = [&](int file) {
    ++syncs;
    return ::fdatasync(file);
  };
  auto journal = must_open(options);
  const int before = syncs;
  ASSERT_TRUE(journal->audit({1, "admin", "quota.grant", "acme/ann daily", "+200", "fair"}));
  EXPECT_EQ(syncs, before + 1);
  EXPECT_EQ(journal->pending_records(), 0u);
  const auto entries = entries_of(temp.journal(), "control");
  ASSERT_EQ(entries.back().kind, usage::EntryKind::audit);
  EXPECT_EQ(usage::decode_audit(entries.back().body)->subject, "acme/ann daily");
}

TEST(Journal, PendingRecordsAreThoseNotYetCommitted) {
  const TempDirectory temp;
  auto journal = must_open(small_journal(temp.journal()));
  EXPECT_EQ(journal->pending_records(), 0u);
  EXPECT_EQ(journal->flush_lag(), Milliseconds(0));
  for (int i = 0; i < 500; ++i) {
    auto end = done();
    ASSERT_TRUE(journal->stream(0).append(end));
  }
  EXPECT_EQ(journal->pending_records(), 500u);
  ASSERT_TRUE(journal->commit());
  EXPECT_EQ(journal->pending_records(), 0u);
  EXPECT_EQ(journal->flush_lag(), Milliseconds(0));
}

TEST(Journal, TableFullOfOpenCallsTakesNoMoreUntilOneEnds) {
  const TempDirectory temp;
  auto options = small_journal(temp.journal());
  options.open_calls = 3;
  auto journal = must_open(options);
  std::vector<OpenCall> calls;
  for (int i = 0; i < 3; ++i) {
    auto begin = call_of("u");
    calls.push_back(*begin_call(journal->stream(0), begin));
  }
  auto begin = call_of("late");
  EXPECT_FALSE(begin_call(journal->stream(0), begin));
  auto end = done();
  ASSERT_TRUE(journal->stream(0).end_call(calls[1], end));
  EXPECT_TRUE(begin_call(journal->stream(0), begin));
}

TEST(Journal, EntryBeyondTheLargestIsRefusedAndChangesNothing) {
  const TempDirectory temp;
  auto journal = must_open(small_journal(temp.journal()));
  auto huge = call_of(std::string(100'000, 'x'));
  EXPECT_FALSE(begin_call(journal->stream(0), huge));
  auto begin = call_of("ann");
  EXPECT_EQ(begin_call(journal->stream(0), begin)->call, 1u);
  EXPECT_EQ(entries_of(temp.journal(), "0").size(), 1u);
}

TEST(Journal, ReaderBesideTheWriterSeesWholeEntriesInOrder) {
  const TempDirectory temp;
  auto journal = must_open(small_journal(temp.journal()));
  constexpr std::uint64_t kEntries = 20'000;
  std::thread writer([&] {
    for (std::uint64_t i = 1; i <= kEntries; ++i) {
      auto end = done(static_cast<std::uint32_t>(i));
      end.reason = std::string(i % 97, 'r');
      if (!journal->stream(0).append(end)) std::abort();
    }
  });
  const Reader reader(temp.journal());
  std::uint64_t seen = 0;
  int reads = 0;
  while (seen < kEntries) {
    ++reads;
    const auto read = reader.read("0", seen, [&](const Reader::Position& at, const usage::EntryView& entry) {
      const auto end = usage::decode_call_end(entry.body);
      EXPECT_TRUE(end);
      EXPECT_EQ(at.number, seen + 1);
      EXPECT_EQ(end->units, at.number);
      EXPECT_EQ(end->reason.size(), at.number % 97);
      seen = at.number;
      return !testing::Test::HasFailure();
    });
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_FALSE(testing::Test::HasFailure());
    std::this_thread::yield();
  }
  writer.join();
  EXPECT_GT(reads, 0);
}

TEST(Journal, SomebodyElsesLogInTheDirectoryIsLeftAlone) {
  const TempDirectory temp;
  {
    must_open(small_journal(temp.journal()));
  }
  write_file(temp.journal() + "/access-2026.log", "127.0.0.1 GET /");
  auto journal = must_open(small_journal(temp.journal()));
  EXPECT_EQ(journal->recovery().damaged_segments, 0u);
  EXPECT_TRUE(std::filesystem::exists(temp.journal() + "/access-2026.log"));
}

TEST(Journal, IdentityThatCannotBeReadIsAnErrorAndNotANewJournal) {
  const TempDirectory temp;
  {
    must_open(small_journal(temp.journal()));
  }
  write_file(temp.journal() + "/identity", "tollgate-journal 9\n");
  const auto journal = Journal::open(small_journal(temp.journal()));
  ASSERT_FALSE(journal);
  EXPECT_NE(journal.error().message.find("identity"), std::string::npos);
}

}  // namespace
}  // namespace tollgate::journal
