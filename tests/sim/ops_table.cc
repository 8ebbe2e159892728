#include "tests/sim/ops_table.h"

#include <fmt/format.h>

#include <array>

#include "tests/sim/world.h"

namespace tollgate::sim {
namespace {

using std::chrono::hours;

constexpr std::uint64_t kLimit = 1'000;
constexpr unsigned kUsers = 60;

struct Placing {
  const char* name;
  unsigned proxies, sticky_percent;
};
constexpr std::array<Placing, 5> kPlacings = {{{"1 proxy", 1, 0},
                                               {"4, any", 4, 0},
                                               {"16, any", 16, 0},
                                               {"4, 95 % sticky", 4, 95},
                                               {"16, 95 % sticky", 16, 95}}};

// What the design allows: all operations and blocking ones, by placing.
struct Traffic {
  const char* name;
  Profile profile;
  double load;
  std::array<double, 5> all, blocking;
};
constexpr std::array<Traffic, 5> kTraffic = {{
    {"300 a day", Profile::working_day, 0.3, {32, 130, 489, 99, 132}, {1.1, 4.4, 17.8, 4.4, 16.6}},
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
  s.tick_slack = Duration(0);
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

}  // namespace

bool print_ops_table() {
  bool within = true;
  fmt::print("store operations per 1000 calls, all / blocking (budget); {} users, limit {}, 3 days\n", kUsers,
             kLimit);
  for (const Traffic& traffic : kTraffic)
    for (std::size_t i = 0; i < kPlacings.size(); ++i) {
      const Placing& placing = kPlacings[i];
      const RunResult result = World(scenario_of(traffic, placing), {}).measure();
      const double thousands = static_cast<double>(result.calls) / 1'000;
      const double all = static_cast<double>(result.counters.ops) / thousands;
      const double blocking = static_cast<double>(result.counters.blocking_ops) / thousands;
      const bool good = all <= traffic.all[i] && blocking <= traffic.blocking[i] && !result.violation;
      within = within && good;
      fmt::print("{:26} {:16} {:7.1f} / {:6.1f}   ({:g} / {:g})   {} admitted of {}{}\n", traffic.name,
                 placing.name, all, blocking, traffic.all[i], traffic.blocking[i], result.admitted,
                 result.calls,
                 result.violation ? "  " + *result.violation
                 : good           ? ""
                                  : "  ABOVE");
      std::fflush(stdout);
    }
  return within;
}

}  // namespace tollgate::sim
