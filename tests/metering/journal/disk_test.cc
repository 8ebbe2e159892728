// Disks that are full or fail: known before anything is lost, and over by itself when the disk is well again.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <mutex>

#include "metering/journal/disk.h"
#include "tests/metering/journal/support/begin_call.h"
#include "tests/metering/journal/support/journal_directory.h"

namespace tollgate::journal {
namespace {

// Waits for rounds of the commit thread instead of for time.
class Rounds {
 public:
  std::function<void()> count() {
    return [this] {
      const std::lock_guard guard(mutex_);
      ++ended_;
      changed_.notify_all();
    };
  }
  // Two more: the first may have been under way.
  void wait() {
    std::unique_lock guard(mutex_);
    const std::uint64_t target = ended_ + 2;
    ASSERT_TRUE(changed_.wait_for(guard, std::chrono::seconds(30), [&] { return ended_ >= target; }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t ended_ = 0;
};

struct FullDisk {
  std::atomic<bool> full{false};
  std::function<int(int, std::uint64_t)> allocate() {
    return
        [this](int file, std::uint64_t bytes) { return full ? ENOSPC : complete({}).allocate(file, bytes); };
  }
};

TEST(Disk, FullDiskStopsNewCallsWhileThereIsRoomForTheEndsOfThoseUnderWay) {
  const TempDirectory temp;
  Rounds rounds;
  FullDisk disk;
  auto options = small_journal(temp.journal());
  options.commit_interval = Milliseconds(1);
  options.open_calls = 1'000;
  options.disk.allocate = disk.allocate();
  options.disk.round_ended = rounds.count();
  auto journal = must_open(options);
  Stream& stream = journal->stream(0);
  disk.full = true;
  std::vector<OpenCall> calls;
  for (;;) {
    auto begin = call_of("ann");
    const auto call = begin_call(stream, begin);
    if (!call) break;
    if (begin.call % 10 == 0) {  // one in ten stays open
      calls.push_back(*call);
      continue;
    }
    auto end = done();
    ASSERT_TRUE(stream.end_call(*call, end));
    ASSERT_LT(begin.call, 10'000u);
  }
  EXPECT_FALSE(journal->writable());
  EXPECT_NE(journal->trouble().find("No space left"), std::string::npos) << journal->trouble();
  usage::OpEntry op;
  EXPECT_FALSE(stream.append(op));
  auto alone = done();
  EXPECT_FALSE(stream.append(alone));
  ASSERT_GT(calls.size(), 10u);
  for (const OpenCall& call : calls) {
    auto end = done();
    ASSERT_TRUE(stream.end_call(call, end)) << "no room for the end of a call under way";
  }
  ASSERT_NO_FATAL_FAILURE(rounds.wait());
  EXPECT_FALSE(journal->writable());
  disk.full = false;
  ASSERT_NO_FATAL_FAILURE(rounds.wait());
  EXPECT_TRUE(journal->writable());
  EXPECT_EQ(journal->trouble(), "");
  auto begin = call_of("bob");
  EXPECT_TRUE(begin_call(stream, begin));
  EXPECT_TRUE(without_gaps(entries_of(temp.journal(), "0")));
  for (const auto& [call, story] : calls_of(temp.journal(), "0"))
    EXPECT_TRUE(story.begins.at(0).user == "bob" || story.ends.size() == 1) << call;
}

// Which pages of a file the kernel holds, by number.
std::vector<bool> pages_held(const std::string& name) {
  const auto file = open_file(name, O_RDONLY);
  const auto size = file_size(*file, name);
  const auto mapping = Mapping::map(*file, *size, false, name);
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> held((*size + page - 1) / page);
  EXPECT_EQ(::mincore(mapping->data(), *size, held.data()), 0) << std::strerror(errno);
  std::vector<bool> result;
  for (const unsigned char one : held) result.push_back((one & 1) != 0);
  return result;
}

// The first store into a page can wait for the disk; whoever commits sees to the pages that come next.
TEST(Disk, CommitPreparesThePagesThatAreWrittenToNext) {
  const TempDirectory temp;
  Rounds rounds;
  auto options = small_journal(temp.journal());
  options.segment_bytes = 1 << 20;
  options.commit_interval = Milliseconds(10);
  options.disk.round_ended = rounds.count();
  auto journal = must_open(options);
  for (int i = 0; i < 400; ++i) {
    auto begin = call_of("ann");
    const auto call = begin_call(journal->stream(0), begin);
    auto end = done();
    ASSERT_TRUE(call && journal->stream(0).end_call(*call, end));
  }
  ASSERT_NO_FATAL_FAILURE(rounds.wait());
  const std::string segment = files_of(temp.journal(), "0").at(0);
  const std::vector<bool> held = pages_held(segment);
  const auto bytes = bytes_of_file(segment);
  const std::size_t last = bytes.find_last_not_of('\0') / (bytes.size() / held.size());
  ASSERT_LT(last + 3, held.size());
  EXPECT_TRUE(held[last] && held[last + 1] && held[last + 2] && held[last + 3]);
}

// The system's own refusal: files may not grow beyond what the segment needs.
TEST(Disk, SystemThatRefusesSpaceIsAnErrorAtTheStartAndNotASignal) {
  const TempDirectory temp;
  EXPECT_TRUE(killed_after([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit{.rlim_cur = 32 << 10, .rlim_max = 32 << 10};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(1);
    const auto journal = Journal::open(small_journal(temp.journal()));
    if (journal || journal.error().message.find("allocate") == std::string::npos ||
        !journal.error().may_retry)
      ::_exit(2);
  }));
  EXPECT_TRUE(must_open(small_journal(temp.journal()))->writable());
}

TEST(Disk, FailedSyncStopsGrantsUntilEverythingNotDurableIsWrittenAnew) {
  const TempDirectory temp;
  Rounds rounds;
  std::atomic<bool> failing{false};
  auto options = small_journal(temp.journal());
  options.commit_interval = Milliseconds(1);
  options.disk.round_ended = rounds.count();
  options.disk.sync = [&](int file) {
    if (!failing) return ::fdatasync(file);
    errno = EIO;
    return -1;
  };
  std::mutex texts_mutex;
  std::vector<std::string> errors;
  options.log = [&](std::string_view level, std::string_view text) {
    const std::lock_guard guard(texts_mutex);
    if (level == "error") errors.emplace_back(text);
  };
  auto journal = must_open(options);
  std::uint64_t written = 0;
  const auto write = [&](int count) {
    for (int i = 0; i < count; ++i) {
      auto end = done(static_cast<std::uint32_t>(++written));
      ASSERT_TRUE(journal->stream(0).append(end));
    }
  };
  write(10);
  ASSERT_TRUE(journal->commit());
  const std::string file = files_of(temp.journal(), "0").back();
  struct stat before{}, after{};
  ASSERT_EQ(::stat(file.c_str(), &before), 0);
  failing = true;
  write(1'500);  // beyond the segment: one that was closed meanwhile has the same trouble
  EXPECT_FALSE(journal->commit());
  ASSERT_NO_FATAL_FAILURE(rounds.wait());
  EXPECT_FALSE(journal->writable());
  EXPECT_NE(journal->trouble().find("Input/output error"), std::string::npos) << journal->trouble();
  EXPECT_GT(journal->pending_records(), 0u);
  write(5);
  failing = false;
  write(5);
  ASSERT_NO_FATAL_FAILURE(rounds.wait());
  EXPECT_TRUE(journal->writable()) << journal->trouble();
  ASSERT_TRUE(journal->commit());
  EXPECT_EQ(journal->pending_records(), 0u);
  // The failed file is no more: its pages were never synced a second time.
  ASSERT_EQ(::stat(file.c_str(), &after), 0);
  EXPECT_NE(before.st_ino, after.st_ino);
  write(5);
  const auto entries = entries_of(temp.journal(), "0");
  ASSERT_EQ(entries.size(), written);
  for (const Entry& entry : entries) EXPECT_EQ(usage::decode_call_end(entry.body)->units, entry.number);
  {
    const std::lock_guard guard(texts_mutex);
    EXPECT_GE(errors.size(), 1u);
    EXPECT_LE(errors.size(), 3u) << "one line for the trouble, not one a round";
  }
  journal.reset();
  EXPECT_TRUE(must_open(small_journal(temp.journal()))->recovery().clean);
}

TEST(Disk, AuditThatCannotBeMadeDurableIsAnError) {
  const TempDirectory temp;
  std::atomic<bool> failing{false};
  auto options = small_journal(temp.journal());
  options.disk.sync = [&](int file) {
    if (!failing) return ::fdatasync(file);
    errno = EIO;
    return -1;
  };
  auto journal = must_open(options);
  EXPECT_TRUE(journal->audit({}));
  failing = true;
  EXPECT_FALSE(journal->audit({}));
  failing = false;
  EXPECT_TRUE(journal->audit({}));
}

}  // namespace
}  // namespace tollgate::journal
