// `tollgate directory show|sync`: who the users are in a running proxy, as licensing.directory_file and the
// CRM (identity.directory.sync) list them, and what counts of one; `sync` asks the CRM now, recorded with
// --reason in the audit.
#pragma once
#include "proxy/cli/admin_client.h"

namespace tollgate::cli {

struct DirectoryArguments {
  enum class Action : std::uint8_t { show, sync } action = Action::show;
  AdminArguments admin;
  std::string user;  // show: "" is how many there are, and how the last sync went
  std::string reason;
  Format format = Format::table;
};

int run_directory(const DirectoryArguments& arguments, Console& console);

}  // namespace tollgate::cli
