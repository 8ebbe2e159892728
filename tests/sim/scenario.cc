#include "tests/sim/scenario.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "metering/quota/record.h"

namespace tollgate::sim {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::minutes;

struct Scale {
  const char* name;
  Milliseconds window;
  Duration length;
  std::uint64_t limit_max;
  Duration tick_slack;
};
constexpr std::array<Scale, 4> kScales = {{
    {"seconds", Milliseconds(5'000), Seconds(150), 60, Duration(0)},
    {"minutes", Milliseconds(60'000), minutes(12), 150, Duration(0)},
    {"hours", hours(1), hours(5), 200, Seconds(1)},
    {"days", hours(24), hours(72), 250, Seconds(9)},
}};

template <class T, std::size_t N>
T pick(Random& random, const std::array<T, N>& of) {
  return of[random.below(N)];
}

void choose_times(Scenario& s, Random& random, const Scale& scale) {
  const bool is_long = scale.window >= hours(1);
  s.lease.session_ttl =
      is_long ? pick<Milliseconds>(random, std::array{Milliseconds(120'000), Milliseconds(900'000)})
              : pick<Milliseconds>(
                    random, std::array{Milliseconds(6'000), Milliseconds(20'000), Milliseconds(900'000)});
  s.lease.ping_interval = s.lease.session_ttl / (random.one_in(3) ? 4 : 15);
  s.lease.flush_interval =
      is_long ? pick<Milliseconds>(random, std::array{Milliseconds(120'000), Milliseconds(900'000)})
              : pick<Milliseconds>(random, std::array{Milliseconds(2'000), Milliseconds(30'000)});
  s.lease.lease_horizon = random.one_in(2) ? Milliseconds(120'000) : Milliseconds(scale.window / 20);
  s.lease.lease_max = random.one_in(3) ? 8 : 400;
  s.lease.fence_wait = random.one_in(2) ? Milliseconds(10'000) : Milliseconds(5'000);
  s.lease.denial_max = random.one_in(2) ? Milliseconds(90'000'000) : Milliseconds(5'000);
  s.lease.max_unacknowledged = random.one_in(5) ? 2 : 4'096;
  s.ledger.timeout = random.one_in(2) ? Milliseconds(50) : Milliseconds(250);
  s.ledger.cache_entries = random.one_in(4) ? 2 : 65'536;
  s.delay_min = pick<Duration>(
      random, std::array{Duration(microseconds(30)), Duration(microseconds(200)), Duration(Milliseconds(2))});
  s.delay_max = s.delay_min * static_cast<int>(1 + random.below(8));
  s.stall_timeout = random.one_in(2) ? Milliseconds(500) : Milliseconds(2'000);
  s.save_every = static_cast<unsigned>(1 + random.below(60));
}

void choose_users(Scenario& s, Random& random, const Scale& scale) {
  const unsigned count = static_cast<unsigned>(1 + random.below(4));
  const bool burst = random.one_in(3), organization = random.one_in(3), shadow = random.one_in(4);
  const Milliseconds second_window = scale.window * (random.one_in(2) ? 4 : 1);
  const std::uint64_t organization_limit = 2 + random.below(scale.limit_max * 2);
  for (unsigned i = 0; i < count; ++i) {
    User user;
    user.name = fmt::format("user{}", i);
    user.organization = "org";
    user.profile = static_cast<Profile>(random.below(3));
    user.load = pick<double>(random, std::array{0.4, 1.0, 1.5, 4.0});
    user.batch = random.one_in(3) ? static_cast<std::uint32_t>(1 + random.below(6)) : 1;
    user.observed = random.one_in(3);
    const std::uint64_t limit = random.one_in(4) ? 1 + random.below(4) : 2 + random.below(scale.limit_max);
    user.limits.push_back({"daily", scale.window, limit, false, false});
    if (burst) user.limits.push_back({"burst", Milliseconds(1'000), 1 + random.below(10), false, false});
    if (organization) user.limits.push_back({"shared", second_window, organization_limit, true, false});
    if (shadow) user.limits.push_back({"candidate", scale.window, 1 + limit / 2, false, true});
    s.users.push_back(std::move(user));
  }
  for (const User& user : s.users)
    for (const Limit& limit : user.limits) {
      const quota::WindowShape shape{limit.window, quota::default_bucket(limit.window)};
      s.window_max = std::max<Duration>(s.window_max, limit.window);
      s.guard_min = s.guard_min.count() == 0 ? shape.guard() : std::min(s.guard_min, shape.guard());
    }
}

void choose_faults(Faults& f, Random& random) {
  auto some = [&](std::uint64_t most) {
    return random.one_in(2) ? 0U : static_cast<unsigned>(1 + random.below(most));
  };
  f.cuts = some(20);
  f.stalls = some(10);
  f.halves = some(10);
  f.kills = some(8);
  f.inner_kills = some(8);
  f.losses = random.one_in(3) ? some(3) : 0;
  f.pauses = some(8);
  f.partitions = some(4);
  f.failovers = some(8);
  f.restarts = some(4);
  f.flushes = random.one_in(2) ? some(4) : 0;
  f.outages = some(4);
  f.skews = some(8);
  f.steps = random.one_in(2) ? some(3) : 0;
  f.full = some(4);
  f.limits = some(6);
  f.grants = some(3);
  f.reloads = some(4);
  f.ghost_percent = random.one_in(2) ? 0 : static_cast<unsigned>(20 + random.below(80));
  f.errors_per_million = random.one_in(2) ? 0 : static_cast<unsigned>(random.below(20'000));
  if (random.one_in(8)) f = Faults{};  // some runs without any: what holds in peace must hold exactly
}

// A control is tried where its protection matters: the fault it protects from is on, the load is at the limit.
void aim(Scenario& s, Random& random) {
  if (s.control == Control::none) return;
  for (User& user : s.users) user.load = std::max(user.load, 1.5);
  Faults& f = s.faults;
  f.limits = f.grants = f.reloads = 0;
  switch (s.control) {
    case Control::none:
    case Control::charge_at_grant:
    case Control::early_stamps:
      break;
    case Control::keep_lapsed_tokens:
      s.lease.session_ttl = std::min(s.lease.session_ttl, Milliseconds(20'000));
      s.lease.ping_interval = s.lease.session_ttl / 4;
      f.partitions = 6;
      f.outages = 6;
      break;
    case Control::no_replay:
    case Control::no_fence:
      s.proxies = std::max(s.proxies, 2U);
      f.failovers = 8;
      f.flushes = 4;
      f.losses = 0;
      break;
    case Control::no_dedupe:
      f.cuts = 20;
      f.halves = 10;
      f.ghost_percent = 80;
      f.failovers = f.flushes = f.losses = 0;  // its numbers are the control's own: they do not survive these
      break;
    case Control::forgotten_journal:
    case Control::forgotten_cells:
      f.kills = 8;
      f.inner_kills = 4;
      break;
    case Control::no_clock_guard:
      f.steps = 6;
      break;
  }
  (void)random;
}

}  // namespace

const char* name_of(Control control) {
  switch (control) {
    case Control::none:
      return "none";
    case Control::charge_at_grant:
      return "charge-at-grant";
    case Control::keep_lapsed_tokens:
      return "keep-lapsed-tokens";
    case Control::no_replay:
      return "no-replay";
    case Control::early_stamps:
      return "early-stamps";
    case Control::no_dedupe:
      return "no-dedupe";
    case Control::no_fence:
      return "no-fence";
    case Control::forgotten_journal:
      return "forgotten-journal";
    case Control::forgotten_cells:
      return "forgotten-cells";
    case Control::no_clock_guard:
      return "no-clock-guard";
  }
  return "?";
}

Scenario make_scenario(std::uint64_t seed, Control control, bool days) {
  Random random(Random(seed).next());  // seeds side by side must not share a stream
  Scenario s;
  s.seed = seed;
  s.control = control;
  // Long scales cost more: they get fewer of the seeds.
  const std::size_t scale_of_seed = std::array{0, 0, 0, 1, 1, 1, 1, 2, 2, 3}[random.below(10)];
  const Scale& scale = kScales[days ? 3 : scale_of_seed];
  s.scale = scale.name;
  s.length = scale.length;
  s.tick_slack = scale.tick_slack;
  s.proxies = static_cast<unsigned>(1 + random.below(5));
  s.engines = static_cast<unsigned>(1 + random.below(3));
  s.sticky_percent = pick<unsigned>(random, std::array{0U, 50U, 95U, 100U});
  s.give_back_percent = random.one_in(2) ? 0 : static_cast<unsigned>(random.below(30));
  choose_times(s, random, scale);
  choose_users(s, random, scale);
  choose_faults(s.faults, random);
  const std::uint64_t policy = random.below(8);
  s.ledger.on_outage = policy == 0   ? quota::OutagePolicy::allow
                       : policy == 1 ? quota::OutagePolicy::deny
                                     : quota::OutagePolicy::lease;
  aim(s, random);
  s.lease.unsafe.charge_at_grant = control == Control::charge_at_grant;
  s.lease.unsafe.keep_lapsed_tokens = control == Control::keep_lapsed_tokens;
  s.lease.unsafe.no_replay = control == Control::no_replay;
  s.lease.unsafe.wall_clock = control == Control::early_stamps;
  return s;
}

bool leave_out(Faults& f, std::string_view name) {
  const std::pair<std::string_view, unsigned*> kinds[] = {{"cuts", &f.cuts},
                                                          {"stalls", &f.stalls},
                                                          {"halves", &f.halves},
                                                          {"kills", &f.kills},
                                                          {"inner_kills", &f.inner_kills},
                                                          {"losses", &f.losses},
                                                          {"pauses", &f.pauses},
                                                          {"partitions", &f.partitions},
                                                          {"failovers", &f.failovers},
                                                          {"restarts", &f.restarts},
                                                          {"flushes", &f.flushes},
                                                          {"outages", &f.outages},
                                                          {"skews", &f.skews},
                                                          {"steps", &f.steps},
                                                          {"full", &f.full},
                                                          {"limits", &f.limits},
                                                          {"grants", &f.grants},
                                                          {"reloads", &f.reloads},
                                                          {"ghosts", &f.ghost_percent},
                                                          {"errors", &f.errors_per_million}};
  for (auto [kind, count] : kinds) {
    if (kind != name) continue;
    *count = 0;
    return true;
  }
  return false;
}

std::string Scenario::describe() const {
  std::string text = fmt::format(
      "seed {}: {}, {} proxies x {} engines, session {} s, flush {} s, lease max {}, delay {}..{} us, sticky "
      "{} %, "
      "given back {} %, on outage {}\n",
      seed, scale, proxies, engines, lease.session_ttl.count() / 1000, lease.flush_interval.count() / 1000,
      lease.lease_max, delay_min.count() / 1000, delay_max.count() / 1000, sticky_percent, give_back_percent,
      static_cast<int>(ledger.on_outage));
  for (const User& user : users) {
    text += fmt::format("  {} profile {} load {} batch {}{}:", user.name, static_cast<int>(user.profile),
                        user.load, user.batch, user.observed ? " observed" : "");
    for (const Limit& limit : user.limits)
      text += fmt::format(" {}={}/{} ms", limit.field, limit.limit, limit.window.count());
    text += "\n";
  }
  const Faults& f = faults;
  text += fmt::format(
      "  faults: cuts {} stalls {} halves {} kills {} inner kills {} losses {} pauses {} partitions {} "
      "failovers {} "
      "restarts {} flushes {} outages {} skews {} steps {} full {} limits {} grants {} reloads {} ghosts {} "
      "% "
      "errors {} ppm",
      f.cuts, f.stalls, f.halves, f.kills, f.inner_kills, f.losses, f.pauses, f.partitions, f.failovers,
      f.restarts, f.flushes, f.outages, f.skews, f.steps, f.full, f.limits, f.grants, f.reloads,
      f.ghost_percent, f.errors_per_million);
  return text;
}

}  // namespace tollgate::sim
