#include "proxy/cli/doctor.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/timex.h>

#include <algorithm>

#include "metering/base/json_text.h"
#include "proxy/cli/version.h"

namespace tollgate::cli {
namespace {

using Level = Symptom::Level;

std::vector<Symptom> examine_versions() {
  std::string text = version_line();
  for (const auto& [name, version] : library_versions()) text += fmt::format(", {} {}", name, version);
  return {{Level::ok, "versions", std::move(text), ""}};
}

std::vector<Symptom> examine_clock() {
  timex state{};
  int result = ::adjtimex(&state);
  if (result == -1) return {{Level::ok, "clock", "whether it is synchronised cannot be asked here", ""}};
  if (result == TIME_ERROR || (state.status & STA_UNSYNC) != 0)
    return {{Level::warning, "clock", "this machine's clock is not synchronised",
             "run an NTP client (systemd-timesyncd, chrony): token lifetimes are judged by this clock"}};
  return {{Level::ok, "clock", "synchronised", ""}};
}

std::uint64_t allowed_descriptors() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

std::string_view name(Level level) {
  switch (level) {
    case Level::ok:
      return "ok";
    case Level::warning:
      return "warning";
    case Level::problem:
      return "problem";
  }
  return "";
}

void print_json(const std::vector<Symptom>& symptoms, bool healthy, Console& console) {
  std::string out;
  JsonWriter json(out);
  json.object([&] {
    json.field("healthy", healthy);
    json.field_array("findings", [&] {
      for (const Symptom& symptom : symptoms)
        json.object([&] {
          json.field("level", name(symptom.level));
          json.field("subject", symptom.subject);
          json.field("text", symptom.text);
          json.field("advice", symptom.advice);
        });
    });
  });
  console.out << out << '\n';
}

void print_text(const std::vector<Symptom>& symptoms, Console& console) {
  for (const Symptom& symptom : symptoms) {
    console.out << fmt::format("{:<8} {:<14} {}\n", name(symptom.level), symptom.subject, symptom.text);
    if (!symptom.advice.empty()) console.out << fmt::format("{:<24}-> {}\n", "", symptom.advice);
  }
}

Symptom of_diagnostic(const config::Diagnostic& diagnostic) {
  bool error = diagnostic.severity == config::Severity::error;
  return {error ? Level::problem : Level::warning, "configuration", config::to_string(diagnostic),
          error ? "correct the file; `tollgate check` shows the same list" : ""};
}

}  // namespace

int run_doctor(const DoctorArguments& arguments, Console& console) {
  std::vector<Symptom> symptoms = examine_versions();
  auto add = [&](std::vector<Symptom>&& more) {
    std::move(more.begin(), more.end(), std::back_inserter(symptoms));
  };
  auto loaded = config::load(arguments.config_file, console.environment);
  for (const config::Diagnostic& d : loaded ? loaded->warnings : loaded.error())
    symptoms.push_back(of_diagnostic(d));
  if (loaded) {
    symptoms.push_back({Level::ok, "configuration", arguments.config_file + " is valid", ""});
    const config::Settings& settings = loaded->settings;
    add(examine_descriptors(settings, allowed_descriptors()));
    add(examine_secret_files(settings));
    add(examine_folders(settings));
    add(examine_certificates(*loaded, console.now));
    add(examine_ports(settings));
    add(examine_clock());
    add(examine_store(*loaded));
    add(examine_identity(*loaded));
    add(examine_licences(*loaded));
    add(examine_running_proxy(*loaded));
  }
  bool healthy = std::none_of(symptoms.begin(), symptoms.end(),
                              [](const Symptom& s) { return s.level == Level::problem; });
  if (arguments.format == Format::json)
    print_json(symptoms, healthy, console);
  else
    print_text(symptoms, console);
  return healthy ? kExitOk : kExitFailed;
}

}  // namespace tollgate::cli
