// kill -9 against a cell in shared memory: at every single instruction of a process that is stepped through (ptrace), and
// at random moments of a process with several threads.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <thread>

#include "metering/base/random.h"
#include "metering/quota/lease_cell.h"

namespace tollgate::quota {
namespace {

using namespace std::chrono_literals;

constexpr std::int64_t kFirst = 29'400'000;
constexpr std::size_t kBuckets = 64;
constexpr std::size_t kThreads = 3;

// What really happened, written by the process that is killed.
struct Truth {
  struct alignas(64) Caller {
    std::atomic<std::int64_t> doing{0};  // units of the step under way; negative: put back
    std::array<std::atomic<std::int64_t>, kBuckets> admitted{};  // net
  };
  std::array<Caller, kThreads> callers;
  std::atomic<std::uint64_t> bucket{0};  // the present one, from kFirst
  // The journal: ops as they were written, before they were sent. One word says which number is the last.
  std::atomic<std::uint64_t> journaled{0};
  std::array<std::array<std::atomic<std::int64_t>, kBuckets>, 2>
      ops{};                          // sums of all ops up to journaled, [journaled % 2]
  std::atomic<std::int64_t> lent{0};  // the store's books
  std::atomic<std::uint64_t> steps{0};
};

struct Shared {
  LeaseCell cell;
  Truth truth;
};

struct Mapping {
  Shared* shared;
  Mapping() {
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared = new (memory) Shared;
    shared->cell.set_name("q:{p017}:acme:u:ann\ndaily", 86'400s, 60s, true);
  }
  ~Mapping() { munmap(shared, sizeof(Shared)); }
};

std::int64_t now_bucket(const Truth& truth) {
  return kFirst + static_cast<std::int64_t>(truth.bucket.load());
}

void call(Shared& shared, std::size_t thread, Random& random, std::int64_t& held_bucket,
          std::uint32_t& held) {
  Truth::Caller& me = shared.truth.callers[thread];
  const auto put_back = [&](bool forced) {
    me.doing.store(-std::int64_t{held});
    if (shared.cell.put_back(held_bucket, held, forced))
      me.admitted[static_cast<std::size_t>(held_bucket - kFirst)].fetch_sub(held);
    me.doing.store(0);
    held = 0;
  };
  if (held > 0 && random.one_in(2)) return put_back(false);
  const auto units = static_cast<std::uint32_t>(1 + random.below(3));
  const bool forced = random.one_in(16);
  std::int64_t counted = 0;
  me.doing.store(units);
  const bool admitted = forced ? shared.cell.force(now_bucket(shared.truth), units, &counted)
                               : shared.cell.take(now_bucket(shared.truth), units, &counted);
  if (admitted) {
    me.admitted[static_cast<std::size_t>(counted - kFirst)].fetch_add(units);
    held = units;
    held_bucket = counted;
  }
  me.doing.store(0);
  if (forced && held > 0 && admitted) {
    if (random.one_in(2)) put_back(true);
    held = 0;
  }
}

// The owner: makes an op, journals it, has it applied. `lapse` of tokens, undone ones, more lent.
void settle(Shared& shared, Random& random) {
  Truth& truth = shared.truth;
  const std::uint64_t seq = truth.journaled.load() + 1;
  shared.cell.snapshot(seq, now_bucket(truth), random.one_in(3));
  if (random.one_in(4)) return shared.cell.undo_snapshot(now_bucket(truth));
  std::int64_t uses = 0;
  for (std::size_t b = 0; b < kBuckets; ++b) truth.ops[seq % 2][b].store(truth.ops[(seq - 1) % 2][b].load());
  for (const BucketUse& use : shared.cell.pending_uses(now_bucket(truth))) {
    truth.ops[seq % 2][static_cast<std::size_t>(use.bucket - kFirst)].fetch_add(use.units);
    uses += use.units;
  }
  const auto back = static_cast<std::int64_t>(shared.cell.pending_returned());
  truth.journaled.store(seq);
  const std::int64_t lent = std::max<std::int64_t>(0, truth.lent.load() - uses - back) +
                            static_cast<std::int64_t>(random.below(12));
  truth.lent.store(lent);
  shared.cell.acknowledge(static_cast<std::uint64_t>(lent));
}

// What the next process does first: then the first op with `forget`.
std::vector<BucketUse> restart(LeaseCell& cell, std::uint64_t journaled, std::int64_t bucket) {
  cell.reopen();
  if (cell.pending_seq() > journaled) cell.undo_snapshot(bucket);
  return cell.recover(bucket, true);
}

void check(const std::vector<BucketUse>& uses, const Truth& truth, bool quiet) {
  std::int64_t used = 0, admitted = 0, doing_more = 0, doing_less = 0;
  for (const auto& caller : truth.callers) {
    const std::int64_t doing = caller.doing.load();
    (doing > 0 ? doing_more : doing_less) += doing;
  }
  ASSERT_TRUE(!quiet || doing_more == doing_less);
  const auto& ops = truth.ops[truth.journaled.load() % 2];
  std::size_t next = 0;
  for (std::size_t b = 0; b < kBuckets; ++b) {
    for (const auto& caller : truth.callers) admitted += caller.admitted[b].load();
    admitted -= ops[b].load();
    for (; next < uses.size() && uses[next].bucket <= kFirst + static_cast<std::int64_t>(b); ++next)
      used += uses[next].units;
    // Never dated earlier than it was.
    ASSERT_LE(used, admitted + doing_more - doing_less) << "bucket " << b;
  }
  ASSERT_EQ(next, uses.size());
  ASSERT_GE(used, admitted + doing_less) << "calls were admitted that are counted nowhere";
  ASSERT_LE(used, admitted + doing_more - doing_less) << "calls are counted that never were";
}

// Runs `steps` in a child that is stepped through, and looks at the memory after every instruction.
template <class Steps, class Look>
bool step_through(Steps steps, Look look, std::uint64_t instructions_max) {
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(3);
    raise(SIGSTOP);
    steps();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (!WIFSTOPPED(status)) return false;
  for (std::uint64_t i = 0; i < instructions_max && !testing::Test::HasFatalFailure(); ++i) {
    if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) break;
    waitpid(child, &status, 0);
    if (!WIFSTOPPED(status)) return WIFEXITED(status) && WEXITSTATUS(status) == 0;
    look();
  }
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  return true;
}

TEST(LeaseCell, KilledAtAnyInstructionRecoversExactlyWhatWasAdmitted) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "nearly every step would be one of the sanitizer's own; there are no threads here";
#endif
  Mapping mapping;
  Shared& shared = *mapping.shared;
  alignas(LeaseCell) std::byte copy[sizeof(LeaseCell)];
  alignas(LeaseCell) std::byte last[sizeof(LeaseCell)] = {};
  std::int64_t doing = 0;
  std::uint64_t journaled = 0, looks = 0;
  constexpr std::uint64_t kSeed = 20251122;
  const bool stepped = step_through(
      [&] {
        Random random(kSeed);
        std::int64_t held_bucket = 0;
        std::uint32_t held = 0;
        for (int i = 0; i < 200; ++i) {
          if (random.one_in(8) && shared.truth.bucket.load() + 2 < kBuckets) shared.truth.bucket.fetch_add(1);
          call(shared, 0, random, held_bucket, held);
          if (random.one_in(4)) settle(shared, random);
          if (random.one_in(16))
            restart(shared.cell, shared.truth.journaled.load(), now_bucket(shared.truth));
        }
      },
      [&] {
        std::memcpy(copy, static_cast<const void*>(&shared.cell), sizeof copy);
        const Truth& truth = shared.truth;
        if (std::memcmp(copy, last, sizeof copy) == 0 && truth.callers[0].doing.load() == doing &&
            truth.journaled.load() == journaled)
          return;
        std::memcpy(last, copy, sizeof copy);
        doing = truth.callers[0].doing.load();
        journaled = truth.journaled.load();
        ++looks;
        auto& cell = *reinterpret_cast<LeaseCell*>(copy);
        const auto uses = restart(cell, journaled, now_bucket(truth));
        check(uses, truth, doing == 0);
        ASSERT_EQ(restart(cell, journaled, now_bucket(truth)), uses);
        ASSERT_EQ(cell.available(), 0U);
      },
      300'000);
  if (looks == 0) GTEST_SKIP() << "a process may not trace its child here";
  EXPECT_TRUE(stepped);
  EXPECT_GT(looks, 25U) << "seed " << kSeed;
}

TEST(LeaseCell, KilledInTheMiddleOfARecoveryRecoversTheSame) {
  // One process after another on the same memory, each killed after a random number of instructions.
  Mapping mapping;
  Shared& shared = *mapping.shared;
  constexpr std::uint64_t kSeed = 4711;
  Random random(kSeed);
  bool traced = false;
  for (int life = 0; life < 60 && !testing::Test::HasFatalFailure(); ++life) {
    const std::uint64_t seed = random.next();
    const std::uint64_t instructions = random.below(life % 2 == 0 ? 700 : 9'000);
    step_through(
        [&] {
          Random own(seed);
          restart(shared.cell, shared.truth.journaled.load(), now_bucket(shared.truth));
          std::int64_t held_bucket = 0;
          std::uint32_t held = 0;
          while (true) {
            settle(shared, own);
            for (int i = 0; i < 4; ++i) call(shared, 0, own, held_bucket, held);
            if (own.one_in(4) && shared.truth.bucket.load() + 2 < kBuckets) shared.truth.bucket.fetch_add(1);
          }
        },
        [&] { traced = true; }, instructions);
    // The dead one's step may or may not have been done. What is counted is the truth for the next one, as long as
    // it is one of the two.
    alignas(LeaseCell) std::byte copy[sizeof(LeaseCell)];
    std::memcpy(copy, static_cast<const void*>(&shared.cell), sizeof copy);
    const auto uses =
        restart(*reinterpret_cast<LeaseCell*>(copy), shared.truth.journaled.load(), now_bucket(shared.truth));
    check(uses, shared.truth, false);
    std::int64_t counted = 0, admitted = 0;
    for (const BucketUse& use : uses) counted += use.units;
    for (std::size_t b = 0; b < kBuckets; ++b)
      admitted += shared.truth.callers[0].admitted[b].load() -
                  shared.truth.ops[shared.truth.journaled.load() % 2][b].load();
    // In the present bucket, which is the earliest date that a put back may have left and the latest of a take.
    shared.truth.callers[0].admitted[admitted < counted ? 0 : shared.truth.bucket.load()].fetch_add(counted -
                                                                                                    admitted);
    shared.truth.callers[0].doing.store(0);
    shared.truth.lent.store(0);  // `forget`
  }
  if (!traced) GTEST_SKIP() << "a process may not trace its child here";
}

TEST(LeaseCell, KilledUnderThreadsLosesNoUnit) {
  constexpr std::uint64_t kSeed = 99;
  Random random(kSeed);
  for (int run = 0; run < 50; ++run) {
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << " run " << run);
    Mapping mapping;
    Shared& shared = *mapping.shared;
    const std::uint64_t seed = random.next();
    const std::uint64_t until = 200 + random.below(3'000);
    const pid_t child = fork();
    if (child == 0) {
      std::vector<std::thread> threads;
      for (std::size_t t = 0; t < kThreads; ++t)
        threads.emplace_back([&, t] {
          Random own(seed + t);
          std::int64_t held_bucket = 0;
          std::uint32_t held = 0;
          while (true) {
            if (own.one_in(300) && shared.truth.bucket.load() + 2 + kThreads < kBuckets)
              shared.truth.bucket.fetch_add(1);
            call(shared, t, own, held_bucket, held);
            shared.truth.steps.fetch_add(1);
          }
        });
      Random own(seed + 17);
      while (true) settle(shared, own);
    }
    while (shared.truth.steps.load() < until) std::this_thread::yield();
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    const auto uses = restart(shared.cell, shared.truth.journaled.load(), now_bucket(shared.truth));
    check(uses, shared.truth, false);
    if (HasFatalFailure()) return;
    EXPECT_EQ(restart(shared.cell, shared.truth.journaled.load(), now_bucket(shared.truth)), uses);
  }
}

}  // namespace
}  // namespace tollgate::quota
