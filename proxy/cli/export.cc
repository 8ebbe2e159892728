#include "proxy/cli/export.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <thread>

#include "metering/base/json_text.h"
#include "metering/journal/journal.h"
#include "metering/redis/connection.h"
#include "proxy/cli/assembly.h"
#include "proxy/cli/progress.h"
#include "proxy/cli/stored_counts.h"
#include "proxy/cli/verify.h"

namespace tollgate::cli {
namespace {

namespace fs = std::filesystem;

constexpr Seconds kSettlePatience{10};
constexpr Milliseconds kSettlePause{500};

// What a running proxy has written and the kernel not yet: also a power loss must not take back what is absorbed.
Result<void> make_durable(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().extension() != ".log") continue;
    const int file = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0 && errno == ENOENT) continue;  // retention was faster
    const bool done = file >= 0 && ::fdatasync(file) == 0;
    const int why = errno;
    if (file >= 0) ::close(file);
    if (!done) return fail(Origin::self, fmt::format("{}: {}", entry.path().string(), std::strerror(why)));
  }
  if (error) return fail(Origin::self, fmt::format("{}: {}", directory, error.message()));
  return {};
}

// What the arguments leave open, from the configuration; and the configuration, where it was needed.
struct Places {
  std::optional<config::LoadedConfig> loaded;
  std::vector<licence::Price> prices;
  std::vector<std::string> journals;
  std::string book;
};

int find_places(const ExportArguments& arguments, Console& console, Places& places) {
  places.journals = arguments.journals;
  const bool wants_store = arguments.verify && !arguments.offline;
  // Of journals that are named, a configuration adds the prices only.
  std::error_code absent;
  const bool wants_prices =
      !arguments.period.empty() &&
      (arguments.config_file != ExportArguments().config_file || fs::exists(arguments.config_file, absent));
  if (places.journals.empty() || wants_store || wants_prices) {
    places.loaded = load_config(console, arguments.config_file);
    if (!places.loaded) return kExitConfig;
  }
  if (places.loaded && !arguments.period.empty()) {
    Result<licence::Rulebook> rulebook = load_rulebook(*places.loaded);
    if (!rulebook) {
      print_error(console, rulebook.error().message);
      return kExitConfig;
    }
    places.prices = std::move(rulebook->prices);
  }
  if (places.journals.empty()) places.journals = {places.loaded->settings.journal.directory};
  for (const std::string& directory : places.journals) {
    std::error_code error;
    if (!fs::is_directory(directory, error)) {
      print_error(console, fmt::format("{}: no such directory", directory));
      return kExitFailed;
    }
    if (auto incarnation = journal::Reader(directory).incarnation(); !incarnation) {
      print_error(console, incarnation.error().message);
      return kExitFailed;
    }
  }
  places.book = arguments.book;
  if (places.book.empty() && places.journals.size() > 1) {
    print_error(console, "several journals: name the book they go into with --book");
    return kExitUsage;
  }
  if (places.book.empty()) places.book = places.journals.front() + "/usage.sqlite";
  return kExitOk;
}

// 0; 1 after what was left out was named; another code when it makes no sense to go on.
int absorb_all(const Places& places, billing::Book& book, Console& console) {
  int code = kExitOk;
  for (const std::string& directory : places.journals) {
    const journal::Reader reader(directory);
    Result<std::uint64_t> absorbed;
    {
      ProgressBar bar(console, "absorbing", "entries");
      absorbed = book.absorb(
          reader, [&](std::uint64_t done, std::uint64_t total) { bar.show(done, total); },
          [&] { return make_durable(directory); });
    }
    if (absorbed) continue;
    print_error(console, absorbed.error().message);
    if (absorbed.error().may_retry) return kExitUnavailable;
    code = kExitFailed;
  }
  return code;
}

void print_exported(const billing::Book::Exported& exported, const ExportArguments& arguments,
                    const Places& places, Console& console) {
  if (arguments.format == Format::json) {
    std::string out;
    JsonWriter json(out);
    json.object([&] {
      json.field("file", exported.file);
      json.field("licences", exported.licences);
      json.field("manifest", exported.manifest);
      json.field("rows", exported.rows);
      json.field("corrections", exported.corrections);
      json.field("calls", exported.calls);
      json.field("final", exported.final_period);
      json.field("missing", exported.missing);
      json.field("sha256", exported.sha256);
    });
    console.out << out << '\n';
  } else {
    print_table(console.out,
                {{"FILE", "ROWS", "CORRECTIONS", "CALLS", "FINAL", "SHA256"},
                 {exported.file, std::to_string(exported.rows), std::to_string(exported.corrections),
                  std::to_string(exported.calls), exported.final_period ? "yes" : "no", exported.sha256}});
  }
  if (!exported.final_period)
    console.err << "the period is not over: this file is a preview, nothing was closed\n";
  if (!places.loaded)
    console.err << fmt::format("no configuration was named (-c): {} has no prices and no amounts\n",
                               exported.licences);
  if (exported.missing > 0)
    console.err << fmt::format(
        "entries are missing at {} places of the journals: see `missing` in the manifest\n",
        exported.missing);
}

// A store that a proxy cannot reach just now (a failover, a machine that is too busy) is waited for a little: all the work
// of an export lies behind us.
Result<AdminReply> settle(const AdminEndpoint& proxy) {
  const MonotonicTime deadline = redis::Connection::now() + kSettlePatience;
  while (true) {
    auto answer = ask_admin(proxy, "POST", "/api/v1/settle");
    if (!answer || answer->status != 503 || redis::Connection::now() >= deadline) return answer;
    std::this_thread::sleep_for(kSettlePause);
  }
}

int settle_proxies(const ExportArguments& arguments, Console& console) {
  std::vector<std::string> urls = arguments.admins;
  if (urls.empty()) urls.push_back("");  // the configuration's
  for (const std::string& url : urls) {
    const auto endpoint = find_endpoint({arguments.config_file, url, arguments.token_file}, console);
    if (!endpoint) return kExitConfig;
    AdminReply reply;
    const int code = explain_answer(*endpoint, settle(*endpoint), console, reply);
    if (code != kExitOk) {
      console.err
          << "every proxy must settle before the store can be compared; --offline leaves the store out\n";
      return code;
    }
  }
  return kExitOk;
}

// The window of the rule that an account's field names: "daily|customer|Case" is of the rule "daily".
std::optional<Milliseconds> window_by_rule(const config::Settings& settings,
                                           const usage::AccountName& account) {
  const std::string_view rule = std::string_view(account.field).substr(0, account.field.find('|'));
  for (const config::QuotaRule& quota : settings.quotas)
    if (quota.name == rule) return quota.window;
  return std::nullopt;
}

int run_verify(const ExportArguments& arguments, const Places& places, billing::Book& book,
               MonotonicTime settled, const MakeStoredCounts& make_stored, Console& console) {
  std::unique_ptr<usage::StoredCounts> stored;
  if (!arguments.offline) {
    Result<std::unique_ptr<usage::StoredCounts>> made =
        make_stored ? make_stored(*places.loaded) : RedisStoredCounts::of(*places.loaded);
    if (!made) {
      print_error(console, made.error().message);
      return kExitConfig;
    }
    stored = std::move(*made);
  }
  auto verification =
      verify({.book = book,
              .journals = places.journals,
              .stored = stored.get(),
              .window_of = [&](const usage::AccountName& account) -> std::optional<Milliseconds> {
                if (!places.loaded) return std::nullopt;
                return window_by_rule(places.loaded->settings, account);
              },
              .settled = settled,
              .now = console.now,
              .exports = arguments.to});
  if (!verification) {
    print_error(console, verification.error().message);
    return verification.error().origin == Origin::store ? kExitUnavailable : kExitFailed;
  }
  print_verification(*verification, arguments.format, console);
  return verification->equal() ? kExitOk : kExitFailed;
}

}  // namespace

int run_export(const ExportArguments& arguments, Console& console, const MakeStoredCounts& make_stored) {
  if (arguments.period.empty() && !arguments.verify) {
    print_error(console,
                "which period? name it with --period 2026-11 (or a day, or an hour), or ask for --verify");
    return kExitUsage;
  }
  std::optional<billing::Book::Period> period;
  if (!arguments.period.empty()) {
    auto parsed = billing::Book::parse_period(arguments.period);
    if (!parsed) {
      print_error(console, "--period: " + parsed.error().message);
      return kExitUsage;
    }
    period = std::move(*parsed);
  }
  std::error_code error;
  if (period && !fs::is_directory(arguments.to, error)) {
    print_error(console, fmt::format("--to {}: no such directory", arguments.to));
    return kExitFailed;
  }
  Places places;
  if (int code = find_places(arguments, console, places); code != kExitOk) return code;

  const MonotonicTime settled = redis::Connection::now();
  if (arguments.verify && !arguments.offline)
    if (int code = settle_proxies(arguments, console); code != kExitOk) return code;
  auto book = billing::Book::open(places.book);
  if (!book) {
    print_error(console, book.error().message);
    return kExitFailed;
  }
  int code = absorb_all(places, **book, console);
  if (code == kExitUnavailable) return code;
  if (period) {
    auto exported =
        (*book)->export_period(*period, arguments.file_format, arguments.to, console.now, places.prices);
    if (!exported) {
      print_error(console, exported.error().message);
      return exported.error().origin == Origin::client ? kExitUsage : kExitFailed;
    }
    print_exported(*exported, arguments, places, console);
  }
  if (arguments.verify)
    code = std::max(code, run_verify(arguments, places, **book, settled, make_stored, console));
  return code;
}

}  // namespace tollgate::cli
