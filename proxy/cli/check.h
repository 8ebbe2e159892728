// `tollgate check -c FILE`: every mistake of a configuration at once, with file:line:column and the nearest
// known name.
// `--dump` prints every key with its value, where it comes from, and passwords replaced by ***.
#pragma once
#include "proxy/cli/console.h"

namespace tollgate::cli {

struct CheckArguments {
  std::string config_file = "tollgate.yaml";
  bool dump = false;
  Format format = Format::table;
};

// 0, or 78 when there are errors (warnings alone do not count).
int run_check(const CheckArguments& arguments, Console& console);

}  // namespace tollgate::cli
