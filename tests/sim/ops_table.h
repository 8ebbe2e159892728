// How often the store is asked: operations per 1000 calls, and how many of these a call waited for. Thirty users,
// three days, no faults; deterministic. What else is counted and what not: docs/quotas.md.
#pragma once

namespace tollgate::sim {

// Prints the figures beside their budgets, reckoned in `jobs` processes. False: one is above its budget.
bool print_ops_table(unsigned jobs);

}  // namespace tollgate::sim
