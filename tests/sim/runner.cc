#include "tests/sim/runner.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <vector>

#include "metering/base/check.h"

namespace tollgate::sim {
namespace {

// In memory shared with the children.
struct Board {
  std::atomic<std::uint64_t> next, calls, admitted, store_operations, deaths, data_losses, limits_reached,
      runs, failed, first_failed;
  std::atomic<bool> stop;
  std::atomic<std::uint64_t> at[64];  // the seed each child works on
};

void fail(Board& board, std::uint64_t seed, const std::string& what, const std::string& replay) {
  ++board.failed;
  std::uint64_t first = board.first_failed;
  while ((first == 0 || seed < first) && !board.first_failed.compare_exchange_weak(first, seed)) {
  }
  if (!replay.empty()) fmt::print("seed {}: {}\n  replay: {} --seed {} --trace\n", seed, what, replay, seed);
  std::fflush(stdout);
}

void work(Board& board, unsigned job, std::uint64_t end, bool stop_at_failure, const std::string& replay,
          const std::function<RunResult(std::uint64_t)>& run) {
  while (!board.stop) {
    const std::uint64_t seed = board.next++;
    if (seed >= end) return;
    board.at[job] = seed;
    const RunResult result = run(seed);
    ++board.runs;
    board.calls += result.calls;
    board.admitted += result.admitted;
    board.store_operations += result.store_operations;
    board.deaths += result.deaths;
    board.data_losses += result.data_losses;
    board.limits_reached += result.limits_reached;
    if (!result.violation) continue;
    fail(board, seed,
         fmt::format("at {:.6f} s: {}", std::chrono::duration<double>(result.at).count(), *result.violation),
         replay);
    if (stop_at_failure) board.stop = true;
  }
}

}  // namespace

Tally run_seeds(std::uint64_t first, std::uint64_t count, unsigned jobs, bool stop_at_failure,
                const std::string& replay, const std::function<RunResult(std::uint64_t seed)>& run) {
  jobs = std::clamp(jobs, 1U, 64U);
  void* memory = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "memory for the tally");
  Board& board = *new (memory) Board{};
  board.next = first;
  std::vector<pid_t> children(jobs, 0);
  auto start = [&](unsigned job) {
    std::fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0, "a child process");
    if (child == 0) {
      work(board, job, first + count, stop_at_failure, replay, run);
      std::fflush(stdout);
      _exit(0);
    }
    children[job] = child;
  };
  for (unsigned job = 0; job < jobs; ++job) start(job);
  for (unsigned left = jobs; left > 0;) {
    int status = 0;
    const pid_t ended = wait(&status);
    const auto job =
        static_cast<unsigned>(std::find(children.begin(), children.end(), ended) - children.begin());
    if (job >= jobs) continue;
    --left;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    ++board.runs;
    fail(board, board.at[job], fmt::format("the process died, wait status {}", status), replay);
    if (stop_at_failure) board.stop = true;
    if (board.stop) continue;
    start(job);
    ++left;
  }
  const Tally tally{board.runs,        board.failed,           board.calls,
                    board.admitted,    board.store_operations, board.deaths,
                    board.data_losses, board.limits_reached,   board.first_failed};
  munmap(memory, sizeof(Board));
  return tally;
}

}  // namespace tollgate::sim
