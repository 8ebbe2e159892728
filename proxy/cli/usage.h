// `tollgate usage USER`: what a user has called in the current windows, from a running proxy.
#pragma once
#include "proxy/cli/admin_client.h"

namespace tollgate::cli {

struct UsageArguments {
  AdminArguments admin;
  std::string user, tenant, organization;
  Format format = Format::table;
};

int run_usage(const UsageArguments& arguments, Console& console);

}  // namespace tollgate::cli
