#include "tests/sim/ops_table.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <array>

#include "metering/base/check.h"
#include "tests/sim/runner.h"
#include "tests/sim/world.h"

namespace tollgate::sim {
namespace {

using std::chrono::hours;

constexpr std::uint64_t kLimit = 1'000;
constexpr unsigned kUsers = 30;

struct Placing {
  const char* name;
  unsigned proxies, sticky_percent;
};
constexpr std::array<Placing, 5> kPlacings = {{{"1 proxy", 1, 0},
                                               {"4, in turn", 4, 0},
                                               {"16, in turn", 16, 0},
                                               {"4, 95 % sticky", 4, 95},
                                               {"16, 95 % sticky", 16, 95}}};

using Row = std::array<double, kPlacings.size()>;

// What the design allows. Its 16.6 for 300 a day on 16 sticky proxies are a sample: 45 of a user's 900 calls go to any of the
// 16, meet 14.1 of the 15 others on average, and each first touch waits: 15.1 / 900 = 16.8 are to be expected.
struct Traffic {
  const char* name;
  Profile profile;
  double load;
  Row all, blocking;
};
constexpr std::array<Traffic, 5> kTraffic = {{
    {"300 a day", Profile::working_day, 0.3, {32, 130, 489, 99, 132}, {1.1, 4.4, 17.8, 4.4, 17.0}},
    {"1000 a day, at the limit", Profile::working_day, 1.0, {66, 257, 634, 146, 247}, {10, 63, 226, 39, 86}},
    {"1500 a day, over it", Profile::working_day, 1.5, {69, 272, 643, 141, 217}, {29, 133, 359, 64, 102}},
    {"1500 in 30 s", Profile::storm, 1.5, {4.6, 32, 185, 28, 79}, {0.7, 14, 100, 13, 42}},
    {"1500 spread over 24 h", Profile::spread, 1.5, {389, 668, 1090, 481, 572}, {239, 450, 716, 292, 362}},
}};

Scenario scenario_of(const Traffic& traffic, const Placing& placing) {
  Scenario s;
  s.seed = 1;
  s.scale = "table";
  s.proxies = placing.proxies;
  s.engines = 1;
  s.cells = 2 * kUsers;
  s.length = hours(72);
  s.window_max = hours(24);
  s.guard_min = quota::kGuardMax;
  s.delay_min = std::chrono::microseconds(100);
  s.delay_max = std::chrono::microseconds(300);
  s.stall_timeout = Seconds(2);
  // Neither is counted, and both are most of the work: looks late by seconds, sessions kept alive just in time.
  s.tick_slack = Seconds(5);
  s.lease.ping_interval = Seconds(600);
  s.in_turn = placing.sticky_percent == 0;
  s.sticky_percent = placing.sticky_percent;
  s.save_every = UINT32_MAX;
  for (unsigned u = 0; u < kUsers; ++u) {
    User user;
    user.name = fmt::format("user{}", u);
    user.organization = "org";
    user.profile = traffic.profile;
    user.load = traffic.load;
    user.limits.push_back({"daily", hours(24), kLimit, false, false});
    s.users.push_back(std::move(user));
  }
  return s;
}

// What one cell of the table comes to; in memory shared with the processes that reckon them.
struct Measured {
  std::uint64_t calls, admitted;
  quota::LeaseCounters counters;
  Operations operations;
  std::array<char, 200> violation;
};

constexpr std::size_t kCells = kTraffic.size() * kPlacings.size();
using Board = std::array<Measured, kCells>;

void measure(Measured& cell, std::size_t number) {
  const RunResult result =
      World(scenario_of(kTraffic[number / kPlacings.size()], kPlacings[number % kPlacings.size()]), {})
          .measure();
  cell.calls = result.calls;
  cell.admitted = result.admitted;
  cell.counters = result.counters;
  cell.operations = result.operations;
  if (result.violation) result.violation->copy(cell.violation.data(), cell.violation.size() - 1);
}

bool print(const Measured& cell, std::size_t number) {
  const Traffic& traffic = kTraffic[number / kPlacings.size()];
  const std::size_t i = number % kPlacings.size();
  auto per_thousand = [&](std::uint64_t count) {
    return 1'000 * static_cast<double>(count) / static_cast<double>(std::max<std::uint64_t>(cell.calls, 1));
  };
  const double all = per_thousand(cell.counters.ops), blocking = per_thousand(cell.counters.blocking_ops);
  const Operations& o = cell.operations;
  // As exactly as they are printed.
  auto within = [i](double measured, const Row& design) { return measured < design[i] + 0.05; };
  const bool good = cell.calls > 0 && within(all, traffic.all) && within(blocking, traffic.blocking) &&
                    cell.violation[0] == 0;
  fmt::print("{:26} {:16} {:7.1f} / {:6.1f}   ({:g} / {:g})   {:6.1f} {:6.1f} {:6.1f} {:6.1f}   {} of {}{}\n",
             traffic.name, kPlacings[i].name, all, blocking, traffic.all[i], traffic.blocking[i],
             per_thousand(o.prefetching), per_thousand(o.handing_back), per_thousand(o.settling),
             per_thousand(o.telling), cell.admitted, cell.calls,
             cell.violation[0] != 0 ? std::string("  ") + cell.violation.data()
             : good                 ? ""
                                    : "  ABOVE");
  return good;
}

}  // namespace

bool print_ops_table(unsigned jobs) {
  void* memory = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "memory for the table");
  Board& board = *new (memory) Board{};
  run_seeds(0, kCells, jobs, false, "", [&](std::uint64_t number) {
    measure(board[number], number);
    return RunResult{};
  });
  fmt::print(
      "store operations per 1000 calls, all / blocking (budget); of the others: prefetch, hand back, settle, "
      "tell; admitted of calls\n{} users, limit {}, 3 days\n",
      kUsers, kLimit);
  bool within = true;
  for (std::size_t number = 0; number < kCells; ++number) within = print(board[number], number) && within;
  munmap(memory, sizeof(Board));
  return within;
}

}  // namespace tollgate::sim
