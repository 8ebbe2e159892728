// The comparison behind `tollgate export --verify`, and how it is shown.
#pragma once
#include <string>
#include <vector>

#include "metering/billing/billing.h"
#include "metering/usage/reconcile.h"
#include "proxy/cli/export.h"

namespace tollgate::cli {

struct VerifyInputs {
  billing::Book& book;
  std::vector<std::string> journals;      // directories; absorbed since the proxies settled
  usage::StoredCounts* stored = nullptr;  // nullptr: offline
  std::function<std::optional<Milliseconds>(const usage::AccountName&)> window_of;
  MonotonicTime settled{};  // just before the proxies were asked to settle
  UnixTime now{};
  std::string exports;  // directory whose files are looked at, ""
};

struct Verification {
  usage::Reconciliation result;
  std::vector<std::string> exports;  // what is wrong with final files
  bool store = false;                // was compared
  bool serving = false;  // proxies went on: only buckets that ended before they settled were compared
  bool equal() const { return result.differences.empty() && exports.empty(); }
};

Result<Verification> verify(const VerifyInputs& inputs);
void print_verification(const Verification& verification, Format format, Console& console);

}  // namespace tollgate::cli
