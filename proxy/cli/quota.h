// `tollgate quota get|set|reset USER`: a user's limits in a running proxy. `set` overrides the configured
// limit from the next call on, in every proxy on the same store; `reset` removes the override; `reset
// --counted` forgets what was counted instead, so that the window starts empty.
#pragma once
#include <optional>

#include "proxy/cli/admin_client.h"

namespace tollgate::cli {

struct QuotaArguments {
  enum class Action : std::uint8_t { get, set, reset } action = Action::get;
  AdminArguments admin;
  std::string user, tenant, organization;
  std::string rule;                    // get: "" is every rule
  std::optional<std::uint64_t> limit;  // set
  bool counted = false;                // reset
  Format format = Format::table;
};

int run_quota(const QuotaArguments& arguments, Console& console);

}  // namespace tollgate::cli
