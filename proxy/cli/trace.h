// `tollgate trace`: follows requests of a running proxy in its log, for a while (flow::Trail).
#pragma once
#include <optional>
#include <string>

#include "proxy/cli/admin_client.h"

namespace tollgate::cli {

struct TraceArguments {
  AdminArguments admin;
  std::string request_id, user, tenant;
  std::string duration;  // "60s"; "": the proxy's default
  std::optional<std::uint32_t> lines;
  bool stop = false;  // follow nothing more; with none of these: what is followed
  Format format = Format::table;
};

int run_trace(const TraceArguments& arguments, Console& console);

}  // namespace tollgate::cli
