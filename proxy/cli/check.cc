#include "proxy/cli/check.h"

#include <fmt/format.h>

#include "config/dump.h"
#include "metering/base/json_text.h"
#include "metering/licence/rulebook.h"
#include "proxy/cli/assembly.h"
#include "proxy/cli/certificates.h"

namespace tollgate::cli {
namespace {

std::string diagnostics_json(const std::vector<config::Diagnostic>& diagnostics) {
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("ok", !config::has_errors(diagnostics));
    json.field_array("diagnostics", [&] {
      for (const config::Diagnostic& d : diagnostics)
        json.object([&] {
          json.field("file", d.file);
          json.field("line", d.line);
          json.field("column", d.column);
          json.field("severity", d.severity == config::Severity::error ? "error" : "warning");
          json.field("message", d.message);
        });
    });
  });
  out.push_back('\n');
  return out;
}

std::string count(std::size_t n, std::string_view what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

void tell_what_is_left_to_crm(const config::LoadedConfig& loaded, Console& console) {
  const auto rulebook = load_rulebook(loaded);
  if (!rulebook) return;
  for (const std::string_view section : licence::sections_left_to_crm(*rulebook))
    console.err << fmt::format(
        "note: {}: that portal users reach the records of their own organization only is left to the CRM "
        "(licensing.creatio.lookup has no url)\n",
        section);
}

}  // namespace

int run_check(const CheckArguments& arguments, Console& console) {
  auto loaded = config::load(arguments.config_file, console.environment);
  std::vector<config::Diagnostic> diagnostics = loaded ? loaded->warnings : loaded.error();
  if (loaded)
    for (config::Diagnostic& d : check_certificates(*loaded, console.now))
      diagnostics.push_back(std::move(d));
  bool failed = config::has_errors(diagnostics);
  bool dump = arguments.dump && !failed;
  if (arguments.format == Format::json && !dump)
    console.out << diagnostics_json(diagnostics);
  else
    print_diagnostics(console, diagnostics);
  auto errors =
      static_cast<std::size_t>(std::count_if(diagnostics.begin(), diagnostics.end(), [](const auto& d) {
        return d.severity == config::Severity::error;
      }));
  if (failed) {
    print_error(console, fmt::format("{}: {}", arguments.config_file, count(errors, "error")));
    return kExitConfig;
  }
  if (dump && arguments.format == Format::json)
    console.out << config::effective_json(loaded->settings);
  else if (dump)
    console.out << config::effective_yaml(loaded->settings, loaded->positions);
  if (!dump && arguments.format == Format::table) {
    console.err << fmt::format("{}: ok, {}\n", arguments.config_file, count(diagnostics.size(), "warning"));
    tell_what_is_left_to_crm(*loaded, console);
  }
  return kExitOk;
}

}  // namespace tollgate::cli
