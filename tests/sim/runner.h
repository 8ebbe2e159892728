// Many seeds on several cores: child processes that take seeds in turn. A child that dies (a CHECK failed, a signal) is
// one failed seed, and another child goes on behind it.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "tests/sim/world.h"

namespace tollgate::sim {

struct Tally {
  std::uint64_t runs = 0, failed = 0;
  std::uint64_t calls = 0, admitted = 0, store_operations = 0, deaths = 0, data_losses = 0,
                limits_reached = 0;
  std::uint64_t first_failed = 0;  // seed; 0: none
};

// Runs `run(seed)` for count seeds from first. Prints every failure with the command that repeats it: `replay` and the seed.
// Stops at the first failure if so wished.
Tally run_seeds(std::uint64_t first, std::uint64_t count, unsigned jobs, bool stop_at_failure,
                const std::string& replay, const std::function<RunResult(std::uint64_t seed)>& run);

}  // namespace tollgate::sim
