// Where a command writes and what surrounds it. Data goes to `out`, messages to `err`, so that output can be piped.
// Tests pass string streams.
#pragma once
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>

#include "config/parse.h"

namespace tollgate::cli {

// sysexits.h where it has a number.
inline constexpr int kExitOk = 0, kExitFailed = 1, kExitUsage = 2, kExitUnavailable = 69, kExitConfig = 78;

enum class Format : std::uint8_t { table, json };

struct Console {
  std::ostream& out;
  std::ostream& err;
  config::Environment environment;
  bool color = false;  // terminal on standard error and NO_COLOR not set
};

// "tollgate: text" on err; errors in red where color is on.
void print_error(Console& console, std::string_view text);

}  // namespace tollgate::cli
