// Every interleaving of a world small enough to be walked through: the real StoreModel, two proxies reduced to the rules
// of metering/quota/lease_engine.h, one account with a limit of 2 in a window of 3 ms, a few ms of time; requests and
// replies that are delivered, lost or delivered late, a crash, a failover that forgets the last operation.
//
// Breadth first, so a counterexample is a shortest one. A state is known by 128 bits of its contents.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tollgate::sim {

struct SmallWorld {
  std::int64_t ticks = 8;  // virtual milliseconds
  std::uint64_t limit = 2;
  unsigned crashes = 1, losses = 1, failovers = 0;
  // Rules left out, for negative controls.
  bool charge_at_grant = false;  // uses are dated at the grant
  bool revive_tokens = false;    // tokens of a lapsed session are used in the next one
  bool no_replay = false;        // what a failover forgot is not told again
  bool no_fence = false;         // every run of the server may grant at once
};

struct SmallWorldResult {
  std::size_t states = 0, transitions = 0;
  bool complete = false;  // false: stopped at max_states
  std::optional<std::string> violation;
  std::vector<std::string> path;  // to the violation
};

SmallWorldResult explore(const SmallWorld& world, std::size_t max_states);

}  // namespace tollgate::sim
