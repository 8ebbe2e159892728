// What one seed means: how many proxies, which limits, who calls how often, and which faults with what intensity. Swarm:
// every seed switches a random half of the faults on, so that rare combinations are not drowned by common ones.
//
// Four scales of time, because bugs hide in the ratio of window, session and flush:
//   seconds  windows of 5 s and 20 s, minutes of life      hours  windows of 1 h
//   minutes  windows of 1 and 5 min                        days   windows of 24 h, three virtual days
//
// Left out on purpose, because nothing is promised for them (docs/quotas.md): data of the store and a journal lost at the
// same time; data of the store lost while a proxy that held some of it is dead or cut off for longer than the fence
// waits; a store clock further than the guard from an earlier one (it is tried, but grants must stop until it returns);
// a proxy that forgets its clock during such a step.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/random.h"
#include "metering/base/time.h"
#include "metering/quota/lease_engine.h"
#include "metering/quota/lease_ledger.h"

namespace tollgate::sim {

// Protections that can be switched off; each must then be caught (negative controls).
enum class Control : std::uint8_t {
  none,
  charge_at_grant,     // uses are dated at the grant
  keep_lapsed_tokens,  // tokens outlive their session
  no_replay,           // a gap is answered by going on
  early_stamps,        // uses are stamped early
  no_dedupe,           // the store applies a repeated op again
  no_fence,            // every run of the server may grant at once
  forgotten_journal,   // after a kill the newest part of the journal is not there
  forgotten_cells,     // after a kill the live counters are not there
  no_clock_guard,      // the store does not look at the sender's clock
};
inline constexpr Control kControls[] = {
    Control::charge_at_grant,   Control::keep_lapsed_tokens, Control::no_replay,
    Control::early_stamps,      Control::no_dedupe,          Control::no_fence,
    Control::forgotten_journal, Control::forgotten_cells,    Control::no_clock_guard};
const char* name_of(Control control);

struct Limit {
  std::string field;
  Milliseconds window{0};
  std::uint64_t limit = 0;
  bool organization = false;  // per organization, shared by its users
  bool shadow = false;
};

enum class Profile : std::uint8_t {
  steady,
  office,
  bursts,
  // For measurements (ops_table.h), `load` times the limit a day:
  working_day,  // bursts of 25 calls a second apart, at any time within 8 hours
  storm,        // all within 30 s
  spread,       // evenly over 24 hours
};

struct User {
  std::string name, organization;
  Profile profile = Profile::steady;
  double load = 1;            // calls a window / limit of the first rule
  std::uint32_t batch = 1;    // most units of one call
  std::vector<Limit> limits;  // the first is the one the load is measured by
  bool observed = false;      // also counted in an account without a limit
};

// Events a run unless said otherwise; 0: switched off.
struct Faults {
  unsigned cuts = 0, stalls = 0, halves = 0;
  unsigned kills = 0, inner_kills = 0, losses = 0, pauses = 0, partitions = 0;
  unsigned failovers = 0, restarts = 0, flushes = 0, outages = 0;
  unsigned skews = 0, steps = 0;
  unsigned full = 0, limits = 0, grants = 0, reloads = 0;
  unsigned ghost_percent = 0;       // of cuts, whose messages arrive after all
  unsigned errors_per_million = 0;  // messages answered by an error

  bool operator==(const Faults&) const = default;
};

struct Scenario {
  std::uint64_t seed = 0;
  Control control = Control::none;
  std::string scale;
  unsigned proxies = 1, engines = 1;
  Duration length{0};
  Duration window_max{0};
  Milliseconds guard_min{0};
  quota::LeaseOptions lease;
  quota::LeaseLedgerOptions ledger;
  Duration delay_min{0}, delay_max{0};  // one way
  // How much later than asked a loop wakes up that has nothing to do but keep sessions alive. One whose partition joins or
  // replays is on time, as a real one is: the fence waits for it no longer than `lease.fence_wait`.
  Duration tick_slack{0};
  unsigned sticky_percent = 0;
  bool in_turn = false;  // calls that are not sticky go to the proxies in turn; else to any
  unsigned give_back_percent = 0;
  std::size_t cells = 48;    // of each proxy
  unsigned save_every = 50;  // operations between two copies of the store
  Duration stall_timeout{0};
  std::vector<User> users;
  Faults faults;

  std::string describe() const;
};

// With `days` every seed is of the longest scale.
Scenario make_scenario(std::uint64_t seed, Control control, bool days = false);

// Takes one kind of fault out of a scenario, by the name of its member ("kills"): to reduce a failing seed. False: there
// is no such kind.
bool leave_out(Faults& faults, std::string_view name);

}  // namespace tollgate::sim
