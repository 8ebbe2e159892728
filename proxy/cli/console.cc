#include "proxy/cli/console.h"

#include <fmt/format.h>

#include <algorithm>

namespace tollgate::cli {
namespace {

// Columns of a terminal: letters, not bytes.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

void print_error(Console& console, std::string_view text) {
  console.err << (console.color ? "\x1b[31mtollgate:\x1b[0m " : "tollgate: ") << text << '\n';
}

void print_diagnostics(Console& console, const std::vector<config::Diagnostic>& diagnostics) {
  for (const config::Diagnostic& diagnostic : diagnostics) {
    std::string_view color = diagnostic.severity == config::Severity::error ? "\x1b[31m" : "\x1b[33m";
    if (console.color)
      console.err << color << config::to_string(diagnostic) << "\x1b[0m\n";
    else
      console.err << config::to_string(diagnostic) << '\n';
  }
}

void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], width(row[i]));
    }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - width(row[i]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  }
}

std::optional<config::LoadedConfig> load_config(Console& console, const std::string& file) {
  auto loaded = config::load(file, console.environment);
  if (loaded) return std::move(*loaded);
  print_diagnostics(console, loaded.error());
  return std::nullopt;
}

}  // namespace tollgate::cli
