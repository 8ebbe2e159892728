// `tollgate quota get|set|grant|reset USER`: a user's limits in a running proxy. `set` overrides the configured limit from
// the next call on, in every proxy on the same store; `grant` adds calls until a moment, on top of whatever the limit is;
// `reset` goes back to the configured limit, `--grants` takes the grants away and `--counted` forgets what was counted.
// Every change is recorded with --reason in the proxy's journal; a grant needs one.
#pragma once
#include <optional>

#include "proxy/cli/admin_client.h"

namespace tollgate::cli {

struct QuotaArguments {
  enum class Action : std::uint8_t { get, set, grant, reset } action = Action::get;
  AdminArguments admin;
  std::string user, tenant, organization;
  std::string rule;                    // get: "" is every rule
  std::optional<std::uint64_t> limit;  // set: this, or
  bool unlimited = false;              //      no limit at all
  std::optional<std::uint64_t> extra;  // grant
  std::string duration, until;         // grant: exactly one; "24h", "2026-11-23T18:00:00Z"
  std::string reason;
  bool counted = false, grants = false;  // reset: at most one
  Format format = Format::table;
};

int run_quota(const QuotaArguments& arguments, Console& console);

}  // namespace tollgate::cli
