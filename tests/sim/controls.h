// Does the oracle see? Every protection of the protocol is switched off in turn, and the simulator must notice within a
// stated number of seeds; the same for the rules of the small world, which also must hold when all rules are in force.
#pragma once

namespace tollgate::sim {

// Prints one line a control. False: one was not caught.
bool check_controls(unsigned jobs);
// Prints one line a world: states, transitions, what came of it. False: not as expected.
bool check_small_world();

}  // namespace tollgate::sim
