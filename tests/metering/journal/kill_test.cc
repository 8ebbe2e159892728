// A process that writes at full speed, killed again and again at random moments, on one directory. What it had done is counted in
// memory shared with the test; at the end the journal is held against it, call by call.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <deque>

#include "metering/base/random.h"
#include "tests/metering/journal/support/begin_call.h"
#include "tests/metering/journal/support/journal_directory.h"

namespace tollgate::journal {
namespace {

using usage::CallOutcome;

// How far a call is known to have come. The death of the process falls between two of these.
enum Step : std::uint8_t {
  nothing,
  beginning,
  begun,
  charged,
  sending,
  sent,
  ending,
  ended,
};

constexpr std::uint64_t kCallsMax = 1'000'000;
constexpr unsigned kPartitionsUsed = 4;

struct SharedBooks {
  std::atomic<std::uint64_t> calls, progress, forced, trouble;
  std::array<std::atomic<std::uint64_t>, kPartitionsUsed> ops;  // last number known to be in the log
  std::array<std::atomic<std::uint8_t>, kCallsMax> steps;
};

void live(const std::string& directory, SharedBooks& books, std::uint64_t seed) {
  Random random(seed);
  auto options = small_journal(directory);
  options.commit_interval = Milliseconds(1);
  auto opened = Journal::open(options);
  if (!opened) {
    books.trouble = 1;
    ::_exit(1);
  }
  Journal& journal = **opened;
  for (unsigned p = 0; p < kPartitionsUsed; ++p) {
    const std::uint64_t last = journal.op_log(0).last_seq(p), known = books.ops[p];
    if (last != known && last != known + 1) books.trouble = 2;
    books.ops[p] = last;
  }
  quota::LeaseCell& cell = journal.cells()[0];
  if (!cell.in_use()) cell.set_name("s\nf", Milliseconds(86'400'000), Milliseconds(60'000), false);
  const std::uint64_t counted = cell.unsettled();
  if (counted != books.forced && counted != books.forced + 1) books.trouble = 3;
  books.forced = counted;

  Stream& stream = journal.stream(0);
  struct Under {
    OpenCall call;
    std::uint64_t index;
  };
  std::deque<Under> under_way;
  for (;;) {
    books.progress.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t what = random.below(8);
    if (what < 3 && under_way.size() < 20) {
      const std::uint64_t index = books.calls.fetch_add(1);
      if (index >= kCallsMax) ::_exit(2);
      auto begin = call_of(std::to_string(index), 2);
      begin.path = std::string(random.below(300), 'p');
      books.steps[index] = beginning;
      const auto call = begin_call(stream, begin);
      if (!call) {
        books.trouble = 4;
        ::_exit(3);
      }
      books.steps[index] = begun;
      under_way.push_back({*call, index});
    } else if (what < 7 && !under_way.empty()) {
      const std::size_t which = static_cast<std::size_t>(random.below(under_way.size()));
      const Under at = under_way[which];
      auto& step = books.steps[at.index];
      switch (step.load()) {
        case begun:
          stream.charged(at.call);
          step = charged;
          break;
        case charged:
          step = sending;
          stream.sent(at.call);
          step = sent;
          break;
        default: {
          step = ending;
          auto end = done(2);
          if (!stream.end_call(at.call, end)) books.trouble = 5;
          step = ended;
          under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(which));
        }
      }
    } else {
      const auto partition = static_cast<unsigned>(random.below(kPartitionsUsed));
      quota::Op op;
      op.incarnation = journal.incarnation();
      op.partition = partition;
      op.seq = books.ops[partition] + 1;
      op.subject_key = "q:{p000}:acme:u:ann";
      op.accounts.push_back({.field = "daily", .uses = {{1, 1}}});
      if (!journal.op_log(0).append(op)) books.trouble = 6;
      books.ops[partition] = op.seq;
      cell.force(7, 1);
      books.forced.fetch_add(1);
    }
  }
}

TEST(Kill, SixtyKillsAtFullSpeedLoseNoCallAndRepeatNone) {
  std::uint64_t seed = 20'261'122;
  if (const char* wish = std::getenv("TOLLGATE_SEED")) seed = std::strtoull(wish, nullptr, 10);
  SCOPED_TRACE("TOLLGATE_SEED=" + std::to_string(seed));
  Random random(seed);
  const TempDirectory temp;
  void* memory =
      ::mmap(nullptr, sizeof(SharedBooks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto& books = *static_cast<SharedBooks*>(memory);
  std::uint64_t expected_interrupted = 0;
  for (int life = 0; life < 60; ++life) {
    const std::uint64_t until = books.progress + random.below(4'000);
    const std::uint64_t life_seed = random.next();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) live(temp.journal(), books, life_seed);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (books.progress <= until && books.trouble == 0 && std::chrono::steady_clock::now() < deadline)
      ::sched_yield();
    // A little way into whatever it does now.
    for (std::uint64_t spin = random.below(20'000); spin > 0; --spin) asm volatile("" ::: "memory");
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "trouble " << books.trouble;
    ASSERT_EQ(books.trouble, 0u) << "life " << life;
    ASSERT_GT(books.progress, until) << "life " << life << " came to nothing in 20 s";
  }
  {
    auto journal = must_open(small_journal(temp.journal()));
    for (unsigned p = 0; p < kPartitionsUsed; ++p) {
      const std::uint64_t last = journal->op_log(0).last_seq(p);
      EXPECT_TRUE(last == books.ops[p] || last == books.ops[p] + 1);
      std::uint64_t next = 1;
      EXPECT_EQ(journal->op_log(0).read(p, 0, last,
                                        [&](const quota::Op& op) {
                                          EXPECT_EQ(op.seq, next);
                                          next = op.seq + 1;
                                        }),
                1u);
      EXPECT_EQ(next, last + 1);
    }
  }
  EXPECT_TRUE(without_gaps(entries_of(temp.journal(), "0")));
  EXPECT_GT(files_of(temp.journal(), "0").size(), 60u);
  std::map<std::uint64_t, CallStory> stories;  // by index
  for (auto& [call, story] : calls_of(temp.journal(), "0")) {
    ASSERT_EQ(story.begins.size(), 1u) << "call " << call;
    auto& known = stories[std::stoull(story.begins[0].user)];
    ASSERT_TRUE(known.begins.empty()) << "the same call begun twice";
    known = std::move(story);
  }
  std::array<std::uint64_t, ended + 1> cut_at{};
  for (std::uint64_t index = 0; index < books.calls; ++index) {
    const auto step = static_cast<Step>(books.steps[index].load());
    ++cut_at[step];
    const auto found = stories.find(index);
    if (found == stories.end()) {
      ASSERT_LE(step, beginning) << "call " << index << " is lost";
      continue;
    }
    ASSERT_EQ(found->second.ends.size(), 1u) << "call " << index << " at step " << int(step);
    const usage::CallEnd& end = found->second.ends[0];
    const CallOutcome outcome = end.outcome;
    EXPECT_EQ(end.units, outcome == CallOutcome::done || outcome == CallOutcome::interrupted ? 2u : 0u);
    expected_interrupted += step == sent ? 1 : 0;
    switch (step) {
      case nothing:
      case beginning:
        EXPECT_EQ(outcome, CallOutcome::void_maybe);
        break;
      case begun:
        EXPECT_TRUE(outcome == CallOutcome::void_maybe || outcome == CallOutcome::void_charged);
        break;
      case charged:
        EXPECT_EQ(outcome, CallOutcome::void_charged);
        break;
      case sending:
        EXPECT_TRUE(outcome == CallOutcome::void_charged || outcome == CallOutcome::interrupted);
        break;
      case sent:
        EXPECT_EQ(outcome, CallOutcome::interrupted);
        break;
      case ending:
        EXPECT_TRUE(outcome == CallOutcome::done || outcome == CallOutcome::interrupted);
        break;
      case ended:
        EXPECT_EQ(outcome, CallOutcome::done);
        break;
    }
  }
  EXPECT_GT(cut_at[ended], 1'000u);
  EXPECT_GT(expected_interrupted, 10u);
  ::munmap(memory, sizeof(SharedBooks));
}

}  // namespace
}  // namespace tollgate::journal
