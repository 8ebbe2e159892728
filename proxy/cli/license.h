// `tollgate license list|seats|release|assign`: products and their seats, in a running proxy. `seats` shows
// who holds them, `release` frees the one of a user, `assign` gives a user a named seat ahead of the first
// call, or all users of a file (seat_import.h). Changes are recorded with --reason in the proxy's journal.
#pragma once
#include "proxy/cli/admin_client.h"

namespace tollgate::cli {

struct LicenseArguments {
  enum class Action : std::uint8_t { list, seats, release, assign } action = Action::list;
  AdminArguments admin;
  // seats, release: "" is every pool. assign: "" is the pool of named seats, if there is just one.
  std::string pool;
  std::string user, tenant, reason;
  std::string file;  // assign: CSV of users in place of `user`; "-" is standard input
  Format format = Format::table;
};

int run_license(const LicenseArguments& arguments, Console& console);

}  // namespace tollgate::cli
