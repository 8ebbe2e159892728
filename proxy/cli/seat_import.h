// `tollgate license assign --file users.csv`: named seats for many users at once, such as the portal users
// that were there before Tollgate. Each row is one change of the admin API, with its entry in the audit,
// under the exact cap of the pool.
//
//   user,tenant,pool               the first row names the columns, in any order; only `user` is required
//   ann@acme.example,acme,
//
// A row that is wrong, or that finds no seat free, is said in one line with its number, and the next one
// follows. Where the proxy or its store is away, nothing follows. Who has a seat keeps it: the same file may
// be given again.
#pragma once
#include <string>

#include "proxy/cli/license.h"

namespace tollgate::cli {

// 0; 1 when a row was not done; kExitUnavailable when it was given up.
// default_pool: for rows that name none; "": those are wrong.
int assign_from_file(const LicenseArguments& arguments, const std::string& default_pool, Console& console);

// PUT and DELETE free and give the seat of one user there.
std::string user_seat_path(std::string_view tenant, std::string_view user, std::string_view pool);
// {"reason": ...}, or {}.
std::string seat_change_body(const LicenseArguments& arguments);

}  // namespace tollgate::cli
