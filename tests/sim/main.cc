// tollgate_sim: runs of the simulated world (world.h), one a seed; its negative controls; the small world.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/sim/controls.h"
#include "tests/sim/ops_table.h"
#include "tests/sim/redis_backend.h"
#include "tests/sim/runner.h"
#include "tests/sim/world.h"

namespace {

using namespace tollgate::sim;
using tollgate::Milliseconds;

struct Arguments {
  std::uint64_t seed = 1, runs = 1;
  unsigned jobs = std::max(1U, std::thread::hardware_concurrency());
  bool trace = false, verbose = false, controls = false, small_world = false, ops_table = false,
       redis = false;
  Control control = Control::none;
  std::vector<std::string> without;
};

int usage() {
  fmt::print(
      stderr, "{}",
      "tollgate_sim --seed 7 --trace     one run, with its event log\n"
      "tollgate_sim --runs 10000         seeds 1..10000\n"
      "  --seed N        first seed (1)\n"
      "  --runs M        how many (1)\n"
      "  --jobs J        processes (one a core)\n"
      "  --trace         the event log; one run\n"
      "  --verbose       what a seed means and what came of it; one run\n"
      "  --without F     leaves a kind of fault out (cuts, kills, failovers, ...): to reduce a failing seed\n"
      "  --control C     with that protection switched off\n"
      "  --controls      every protection switched off in turn: each must be caught\n"
      "  --small-world   every interleaving of a world of two proxies\n"
      "  --ops-table     store operations per 1000 calls\n"
      "  --redis         the scripts on a real Redis instead of the model\n");
  return 2;
}

bool parse(int argc, char** argv, Arguments& a) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const bool last = i + 1 == argc;
    auto number = [&] { return std::strtoull(argv[++i], nullptr, 10); };
    if (word == "--seed" && !last) {
      a.seed = number();
    } else if (word == "--runs" && !last) {
      a.runs = number();
    } else if (word == "--jobs" && !last) {
      a.jobs = static_cast<unsigned>(number());
    } else if (word == "--without" && !last) {
      Faults faults;
      if (!leave_out(faults, argv[++i])) return false;
      a.without.emplace_back(argv[i]);
    } else if (word == "--control" && !last) {
      const std::string_view wanted = argv[++i];
      auto found = std::find_if(std::begin(kControls), std::end(kControls),
                                [&](Control c) { return wanted == name_of(c); });
      if (found == std::end(kControls)) return false;
      a.control = *found;
    } else if (word == "--trace") {
      a.trace = true;
    } else if (word == "--verbose") {
      a.verbose = true;
    } else if (word == "--controls") {
      a.controls = true;
    } else if (word == "--small-world") {
      a.small_world = true;
    } else if (word == "--ops-table") {
      a.ops_table = true;
    } else if (word == "--redis") {
      a.redis = true;
    } else {
      return false;
    }
  }
  return a.runs > 0;
}

RunResult run_seed(std::uint64_t seed, const Arguments& arguments) {
  // Each process has a server of its own.
  static std::unique_ptr<RedisBackends> servers;
  if (arguments.redis && !servers) servers = std::make_unique<RedisBackends>();
  RunOptions options{.trace = arguments.trace, .backend = nullptr};
  if (arguments.redis)
    options.backend = [](std::function<Milliseconds()> clock) { return servers->make(std::move(clock)); };
  Scenario scenario = make_scenario(seed, arguments.control, arguments.redis);
  for (const std::string& kind : arguments.without) leave_out(scenario.faults, kind);
  if (arguments.verbose || arguments.trace) fmt::print("{}\n", scenario.describe());
  RunResult result = World(scenario, options).run();
  if (arguments.verbose || arguments.trace)
    fmt::print(
        "  {} events, {} calls: {} admitted, {} exceeded, {} unavailable; {} store operations, {} deaths, {} "
        "losses of data, "
        "fingerprint {:016x}\n",
        result.events, result.calls, result.admitted, result.exceeded, result.unavailable,
        result.store_operations, result.deaths, result.data_losses, result.fingerprint);
  return result;
}

int run_many(const Arguments& arguments) {
  std::string replay = arguments.redis ? "./dev sim --redis" : "./dev sim";
  if (arguments.control != Control::none) replay += fmt::format(" --control {}", name_of(arguments.control));
  for (const std::string& kind : arguments.without) replay += " --without " + kind;
  const auto started = std::chrono::steady_clock::now();
  const Tally tally = run_seeds(arguments.seed, arguments.runs, arguments.trace ? 1 : arguments.jobs, false,
                                replay, [&](std::uint64_t seed) { return run_seed(seed, arguments); });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  fmt::print(
      "{} calls, {} admitted, {} store operations, {} deaths, {} losses of data, limits reached {} times, "
      "{:.1f} s\n",
      tally.calls, tally.admitted, tally.store_operations, tally.deaths, tally.data_losses,
      tally.limits_reached, seconds);
  fmt::print("{} runs, {} failed\n", tally.runs, tally.failed);
  return tally.failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) return usage();
  if (arguments.ops_table) return print_ops_table(arguments.jobs) ? 0 : 1;
  if (arguments.controls) return check_controls(arguments.jobs) ? 0 : 1;
  if (arguments.small_world) return check_small_world() ? 0 : 1;
  return run_many(arguments);
}
