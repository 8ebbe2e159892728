// tollgate_sim: runs of the simulated world (world.h), one a seed.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "tests/sim/world.h"

namespace {

using namespace tollgate;
using namespace tollgate::sim;

struct Arguments {
  std::uint64_t seed = 1;
  std::uint64_t runs = 1;
  bool seed_given = false, trace = false, verbose = false;
  Control control = Control::none;
  std::vector<std::string> without;
};

char replay_command[160];

// A CHECK that fails ends the program: the seed must be known then.
void on_abort(int) {
  [[maybe_unused]] auto written = write(STDERR_FILENO, replay_command, std::strlen(replay_command));
}

void usage() {
  fmt::print(
      "tollgate_sim --seed 7 --trace      one run, with its event log\n"
      "tollgate_sim --runs 1000           runs with seeds 1..1000\n"
      "  --seed N      first seed (1)\n"
      "  --runs M      how many seeds (1)\n"
      "  --without F   leaves a kind of fault out (kills, cuts, ...); may be repeated\n"
      "  --verbose     what each seed means and did\n");
}

RunResult run_seed(std::uint64_t seed, const Arguments& arguments) {
  std::snprintf(replay_command, sizeof replay_command, "\nreplay: ./dev sim --seed %llu --trace\n",
                static_cast<unsigned long long>(seed));
  Scenario scenario = make_scenario(seed, arguments.control);
  for (const std::string& kind : arguments.without) leave_out(scenario.faults, kind);
  if (arguments.verbose || arguments.trace) fmt::print("{}\n", scenario.describe());
  World world(scenario, {.trace = arguments.trace, .backend = nullptr});
  return world.run();
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    auto number = [&]() -> std::uint64_t { return ++i < argc ? std::strtoull(argv[i], nullptr, 10) : 0; };
    if (word == "--seed")
      arguments.seed = number();
    else if (word == "--runs")
      arguments.runs = number();
    else if (word == "--without" && i + 1 < argc)
      arguments.without.push_back(argv[++i]);
    else if (word == "--trace")
      arguments.trace = true;
    else if (word == "--verbose")
      arguments.verbose = true;
    else if (word == "--control") {
      const std::string_view wanted = argv[++i];
      for (Control c : kControls)
        if (wanted == name_of(c)) arguments.control = c;
    } else {
      usage();
      return 2;
    }
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  std::signal(SIGABRT, on_abort);
  std::uint64_t failed = 0;
  for (std::uint64_t seed = arguments.seed; seed < arguments.seed + arguments.runs; ++seed) {
    const RunResult result = run_seed(seed, arguments);
    if (arguments.verbose)
      fmt::print(
          "  {} events, {} calls: {} admitted {} exceeded {} unavailable; {} store operations, {} deaths, {} "
          "data losses\n",
          result.events, result.calls, result.admitted, result.exceeded, result.unavailable,
          result.store_operations, result.deaths, result.data_losses);
    if (!result.violation) continue;
    ++failed;
    fmt::print("seed {} at {:.6f} s: {}\n  replay: ./dev sim --seed {} --trace\n", seed,
               std::chrono::duration<double>(result.at).count(), *result.violation, seed);
  }
  fmt::print("{} runs, {} failed\n", arguments.runs, failed);
  return failed == 0 ? 0 : 1;
}
