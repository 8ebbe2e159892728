// `tollgate doctor -c FILE`: is everything around the proxy as it has to be, and what to do where it is not.
//
//   versions       of this program and its libraries
//   configuration  errors and warnings of `check`
//   files          descriptors allowed against connections configured; secrets that others can read; folders
//   writable certificates   expired, or within 30 days ports          free, or taken (perhaps by a running
//   proxy) clock          synchronised, and against the store's store          reachable, version, settings
//   on which the promises rest (metering/redis/probe.h)
//   identity       whoever is asked who calls (introspection, current user, sessions, users of the CRM) answers
//   licences       the CRM says whose a record is (licensing.creatio.lookup, licensing.cherwell.lookup)
//   upstreams      health and connections of every server, as the running proxy sees them
#pragma once
#include <string>
#include <vector>

#include "proxy/cli/console.h"

namespace tollgate::cli {

struct DoctorArguments {
  std::string config_file = "tollgate.yaml";
  Format format = Format::table;
};

struct Symptom {
  enum class Level : std::uint8_t { ok, warning, problem } level = Level::ok;
  std::string subject, text, advice;  // advice: "" when ok
};

// 0, or 1 when there is a problem (warnings alone do not count).
int run_doctor(const DoctorArguments& arguments, Console& console);

// The examinations that need no store, for tests too. Each returns at least one symptom.
std::vector<Symptom> examine_descriptors(const config::Settings& settings, std::uint64_t allowed);
std::vector<Symptom> examine_secret_files(const config::Settings& settings);
std::vector<Symptom> examine_ports(const config::Settings& settings);
std::vector<Symptom> examine_folders(const config::Settings& settings);
std::vector<Symptom> examine_certificates(const config::LoadedConfig& loaded, UnixTime now);
// Of the store as the configuration names it; a probe of at most 2 s.
std::vector<Symptom> examine_store(const config::LoadedConfig& loaded);
// Those that are asked whose a token or a session is, with one that is nobody's; and the CRM, with a log-in, for its users.
// Their own time-outs bound it.
std::vector<Symptom> examine_identity(const config::LoadedConfig& loaded);
// The CRM that is asked whose a record is, with a log-in; and what is left to it. Its own time-out bounds it.
std::vector<Symptom> examine_licences(const config::LoadedConfig& loaded);
// Upstream servers as the proxy sees them that runs with this configuration, if one does. `upstreams`: its answer to
// GET /api/v1/upstreams.
std::vector<Symptom> examine_running_proxy(const config::LoadedConfig& loaded);
std::vector<Symptom> examine_upstreams(std::string_view upstreams);

}  // namespace tollgate::cli
