#include "config/diagnostic.h"

#include <fmt/format.h>

#include <algorithm>

namespace tollgate::config {

std::string to_string(const Diagnostic& d) {
  std::string_view severity = d.severity == Severity::error ? "error" : "warning";
  if (d.line == 0) return fmt::format("{}: {}: {}", d.file, severity, d.message);
  return fmt::format("{}:{}:{}: {}: {}", d.file, d.line, d.column, severity, d.message);
}

bool has_errors(const std::vector<Diagnostic>& diagnostics) {
  return std::any_of(diagnostics.begin(), diagnostics.end(),
                     [](const Diagnostic& d) { return d.severity == Severity::error; });
}

}  // namespace tollgate::config
