// `tollgate export --period 2026-11`: billing files from the journals of proxies, running or not.
//
//   journal directories ── absorb (what is new) ──> book (usage.sqlite) ──> FILE, licences, manifest in --to
//
// Prices of licences are the configuration's: of journals that are named with --journal it is read for them
// alone, when -c names one or it stands at its usual place.
//
// `tollgate export --verify`: do journal, store and book agree (metering/usage/reconcile.h)? Running proxies are asked to
// settle first (POST /api/v1/settle), so that the store knows every call. Exit code 0 equal, 1 differences.
//
// Damage of a journal is reported with file and offset, the rest is exported, and the exit code is 1.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/billing/billing.h"
#include "metering/usage/reconcile.h"
#include "proxy/cli/admin_client.h"
#include "proxy/cli/console.h"

namespace tollgate::cli {

struct ExportArguments {
  std::string config_file = "tollgate.yaml";
  std::string period;  // "" with verify: nothing is exported
  billing::Book::Format file_format = billing::Book::Format::csv;
  std::vector<std::string> journals;  // default: the configuration's
  std::string book;                   // default: usage.sqlite in the journal directory
  std::string to = ".";
  bool verify = false;
  bool offline = false;             // verify without store and proxies
  std::vector<std::string> admins;  // default: the configuration's
  std::string token_file;
  Format format = Format::table;
};

// Where the store's counts are read; empty: from the store of the configuration.
using MakeStoredCounts =
    std::function<Result<std::unique_ptr<usage::StoredCounts>>(const config::LoadedConfig& loaded)>;

int run_export(const ExportArguments& arguments, Console& console, const MakeStoredCounts& make_stored = {});

}  // namespace tollgate::cli
