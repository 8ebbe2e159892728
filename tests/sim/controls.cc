#include "tests/sim/controls.h"

#include <fmt/format.h>

#include <chrono>

#include "tests/sim/runner.h"
#include "tests/sim/small_world.h"
#include "tests/sim/world.h"

namespace tollgate::sim {
namespace {

constexpr std::uint64_t kWithinSeeds = 60;
constexpr std::size_t kStatesMax = 12'000'000;

}  // namespace

bool check_controls(unsigned jobs) {
  bool all = true;
  for (const Control control : kControls) {
    const Tally tally = run_seeds(1, kWithinSeeds, jobs, true, "", [control](std::uint64_t seed) {
      return World(make_scenario(seed, control), {}).run();
    });
    all = all && tally.failed > 0;
    if (tally.failed > 0)
      fmt::print("control {}: caught at seed {}\n", name_of(control), tally.first_failed);
    else
      fmt::print("control {}: NOT caught in {} seeds\n", name_of(control), kWithinSeeds);
  }
  return all;
}

bool check_small_world() {
  struct Case {
    const char* name;
    SmallWorld world;
    bool holds;
  };
  const Case cases[] = {
      {"one crash, one cut", {.ticks = 3, .crashes = 1, .losses = 1, .failovers = 0}, true},
      {"one failover", {.ticks = 3, .crashes = 0, .losses = 0, .failovers = 1}, true},
      {"nothing goes wrong, longer", {.ticks = 8, .crashes = 0, .losses = 0, .failovers = 0}, true},
      {"charged at the grant",
       {.ticks = 6, .crashes = 0, .losses = 0, .failovers = 0, .charge_at_grant = true},
       false},
      {"failover without replay",
       {.ticks = 3, .crashes = 0, .losses = 0, .failovers = 1, .no_replay = true},
       false},
  };
  bool all = true;
  for (const Case& one : cases) {
    const auto started = std::chrono::steady_clock::now();
    const SmallWorldResult result = explore(one.world, kStatesMax);
    const bool as_expected = one.holds ? result.complete && !result.violation : result.violation.has_value();
    all = all && as_expected;
    fmt::print("small world, {}: {} states, {} transitions, {}{} ({:.1f} s)\n", one.name, result.states,
               result.transitions,
               result.violation  ? *result.violation
               : result.complete ? "complete, holds"
                                 : "not complete",
               as_expected ? "" : ": NOT AS EXPECTED",
               std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
    if (!as_expected)
      for (const std::string& step : result.path) fmt::print("  {}\n", step);
  }
  return all;
}

}  // namespace tollgate::sim
