// Where a command writes and what surrounds it. Data goes to `out`, messages to `err`, so that output can be
// piped. Tests pass string streams, an environment and a moment of their own.
#pragma once
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "config/load/load.h"
#include "metering/base/time.h"

namespace tollgate::cli {

// sysexits.h where it has a number.
inline constexpr int kExitOk = 0, kExitFailed = 1, kExitUsage = 2, kExitUnavailable = 69, kExitConfig = 78;

enum class Format : std::uint8_t { table, json };

struct Console {
  std::ostream& out;
  std::ostream& err;
  config::Environment environment{};
  UnixTime now{};      // when the command began
  bool color = false;  // standard error is a terminal and NO_COLOR is not set
};

// "tollgate: text" on err; in red where color is on.
void print_error(Console& console, std::string_view text);
// One line each on err.
void print_diagnostics(Console& console, const std::vector<config::Diagnostic>& diagnostics);
// Columns as wide as their widest cell, two spaces between them, nothing after the last.
void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows);

// The configuration, or nothing after its mistakes were printed. Warnings are not printed.
std::optional<config::LoadedConfig> load_config(Console& console, const std::string& file);

}  // namespace tollgate::cli
