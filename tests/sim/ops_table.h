// How often the store is asked: operations per 1000 calls, and how many of these a call waited for. Sixty users, three
// days, no faults; deterministic.
#pragma once

namespace tollgate::sim {

// Prints the figures beside their budgets. False: one is above its budget.
bool print_ops_table();

}  // namespace tollgate::sim
