// Tollgate, the whole program on one page: what it is made of, in which order it starts, and how it ends.
//
//   config/load ─> settings ─┬─> key sets, licence rules, users ─> snapshot ─┐
//                            ├─> journal: what a killed process left ────────┤
//                            ├─> store (Redis, perhaps our own child) ───────┤
//                            ├─> access log, metrics ────────────────────────┤
//                            │                                               v
//                            └──────────────────────────────> workers (proxy/net) <── admin port
//
// `serve` below runs the proxy; every other command is in proxy/cli. This is the only file that names all the parts.
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <ctime>
#include <mutex>
#include <thread>

#include "config/load/load.h"
#include "metering/billing/absorber.h"
#include "metering/journal/journal.h"
#include "metering/redis/embedded.h"
#include "proxy/admin/service.h"
#include "proxy/cli/assembly.h"
#include "proxy/cli/cli.h"
#include "proxy/cli/gauges.h"
#include "proxy/cli/lease_service.h"
#include "proxy/cli/serve.h"
#include "proxy/net/local_service.h"
#include "proxy/net/server.h"
#include "proxy/telemetry/access_log.h"
#include "proxy/telemetry/metrics.h"
#include "tollgate_version.h"

namespace tollgate {
namespace {

constexpr Milliseconds kSettleLimit{2'000};  // at shutdown: for handing leases back

void log(std::string_view level, std::string_view text) {
  spdlog::log(level == "error"     ? spdlog::level::err
              : level == "warning" ? spdlog::level::warn
                                   : spdlog::level::info,
              "{}", text);
}

// As many file descriptors as the administrator permits: each call in flight holds two.
void raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Signals are blocked in every thread and waited for here: no handler, nothing that may not be done in one.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&set_, signal);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }
  int wait() const {
    int signal = 0;
    sigwait(&set_, &signal);
    return signal;
  }
  // True when TERM or INT arrives within that time.
  bool stop_within(Milliseconds time) const {
    const auto until = std::chrono::steady_clock::now() + time;
    for (;;) {
      const auto left =
          std::chrono::duration_cast<std::chrono::nanoseconds>(until - std::chrono::steady_clock::now())
              .count();
      if (left <= 0) return false;
      timespec timeout{.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
      const int signal = sigtimedwait(&set_, nullptr, &timeout);
      if (signal == SIGTERM || signal == SIGINT) return true;
    }
  }

 private:
  sigset_t set_{};
};

// The running proxy. Members are in the order in which they start; they end in reverse.
class Proxy {
 public:
  explicit Proxy(std::string config_file) : config_file_(std::move(config_file)) {}

  // 0, or the exit code with which the program ends; what is wrong has been said.
  int start();
  Result<void> reload();      // SIGHUP
  Result<void> try_reload();  // the admin API: its thread also answers probes, so it does not queue up
  void reopen_logs();         // SIGUSR1
  void drain(const Signals& signals);  // SIGTERM, SIGINT

 private:
  std::expected<config::LoadedConfig, int> read_configuration() const;
  Result<void> open_telemetry(const config::Settings& settings);
  Result<void> open_journal(const config::LoadedConfig& loaded);
  Result<void> start_store(const config::LoadedConfig& loaded);
  Result<void> start_workers();
  Result<void> open_admin_port(const config::LoadedConfig& loaded);
  Result<void> reload_locked();
  std::vector<admin::Check> readiness() const;

  std::string config_file_;
  unsigned workers_ = 1;
  std::mutex control_;  // one reload or drain at a time: they come from signals and from the admin API
  cli::ReloadStatus reload_status_;
  std::mutex assembled_mutex_;  // held for a moment only: a scrape reads what a reload replaces
  std::unique_ptr<cli::Assembled> assembled_;
  std::unique_ptr<telemetry::Metrics> metrics_;
  std::unique_ptr<telemetry::AccessLog> access_log_;
  std::unique_ptr<journal::Journal> journal_;
  std::unique_ptr<journal::Reader> entries_;
  std::unique_ptr<billing::Absorber> absorber_;  // roll-ups of the journal, on its own thread
  std::unique_ptr<redis::EmbeddedRedis> embedded_;
  std::unique_ptr<cli::LeaseService> store_;
  std::unique_ptr<net::Server> server_;
  std::unique_ptr<net::LocalService> admin_port_;
};

void log_keys(net::KeySetFetcher::Level level, const std::string& line) {
  log(level == net::KeySetFetcher::Level::warning ? "warning" : "info", line);
}

std::expected<config::LoadedConfig, int> Proxy::read_configuration() const {
  auto loaded = config::load(config_file_, config::process_environment());
  if (!loaded) {
    for (const auto& diagnostic : loaded.error()) log("error", config::to_string(diagnostic));
    return std::unexpected(cli::kExitConfig);
  }
  for (const auto& warning : loaded->warnings) log("warning", config::to_string(warning));
  return std::move(*loaded);
}

int Proxy::start() {
  auto loaded = read_configuration();
  if (!loaded) return loaded.error();
  const config::Settings& settings = loaded->settings;
  workers_ = settings.workers > 0 ? settings.workers : std::max(1U, std::thread::hardware_concurrency());

  auto assembled = cli::assemble(*loaded, 1, nullptr, log_keys);
  if (!assembled) {
    log("error", assembled.error().message);
    return cli::kExitConfig;
  }
  assembled_ = std::make_unique<cli::Assembled>(std::move(*assembled));
  for (auto step : {+[](Proxy& p, const config::LoadedConfig& c) { return p.open_telemetry(c.settings); },
                    +[](Proxy& p, const config::LoadedConfig& c) { return p.open_journal(c); },
                    +[](Proxy& p, const config::LoadedConfig& c) { return p.start_store(c); },
                    +[](Proxy& p, const config::LoadedConfig&) { return p.start_workers(); },
                    +[](Proxy& p, const config::LoadedConfig& c) { return p.open_admin_port(c); }}) {
    if (auto done = step(*this, *loaded); !done) {
      log("error", done.error().message);
      return done.error().origin == Origin::config ? cli::kExitConfig : cli::kExitUnavailable;
    }
  }
  reload_status_.succeeded();
  const auto ports = server_->ports();
  for (std::size_t i = 0; i < ports.size(); ++i)
    log("info", fmt::format("listening on {} (port {})", settings.listeners[i].address, ports[i]));
  if (admin_port_)
    log("info", fmt::format("admin port {} (port {})", settings.admin.address, admin_port_->port()));
  log("info",
      fmt::format("tollgate {} ready: {} worker{}, {} quota rule{}", TOLLGATE_VERSION, workers_,
                  workers_ == 1 ? "" : "s", settings.quotas.size(), settings.quotas.size() == 1 ? "" : "s"));
  return cli::kExitOk;
}

Result<void> Proxy::open_telemetry(const config::Settings& settings) {
  metrics_ = std::make_unique<telemetry::Metrics>(cli::metrics_options(*assembled_->snapshot, workers_));
  if (settings.access_log.file.empty()) return {};
  auto opened = telemetry::AccessLog::open(settings.access_log.file);
  if (!opened) return std::unexpected(opened.error());
  access_log_ = std::move(*opened);
  return {};
}

Result<void> Proxy::open_journal(const config::LoadedConfig& loaded) {
  auto journal = journal::Journal::open(cli::journal_options(loaded.settings.journal, workers_, log));
  if (!journal) return std::unexpected(journal.error());
  journal_ = std::move(*journal);
  log("info", fmt::format("journal {}: {}", loaded.settings.journal.directory, journal_->recovery().describe()));
  entries_ = std::make_unique<journal::Reader>(loaded.settings.journal.directory);
  absorber_ = std::make_unique<billing::Absorber>(
      cli::absorber_options(loaded.settings.journal.directory, *journal_, log), *entries_);
  absorber_->start();
  return {};
}

Result<void> Proxy::start_store(const config::LoadedConfig& loaded) {
  const config::Store& settings = loaded.settings.store;
  auto url = redis::parse_store_url(settings.url);
  if (!url) return std::unexpected(url.error());
  if (url->kind == redis::StoreUrl::Kind::embedded) {
    auto child =
        redis::EmbeddedRedis::start({.directory = url->directory,
                                     .redis_server = settings.redis_server,
                                     .on_event = [](const std::string& event) { log("warning", event); }});
    if (!child) return std::unexpected(child.error());
    embedded_ = std::move(*child);
    url = embedded_->url();
  }
  auto connection = cli::store_connection(settings, *url, loaded);
  if (!connection) return std::unexpected(connection.error());
  if (auto kept = cli::check_store_settings(settings, *connection, log); !kept) return std::unexpected(kept.error());
  store_ = std::make_unique<cli::LeaseService>(settings, std::move(*connection), *journal_,
                                               loaded.settings.journal.directory, workers_, *metrics_, log);
  return {};
}

Result<void> Proxy::start_workers() {
  auto server = net::Server::start(
      {.snapshot = assembled_->snapshot,
       .workers = workers_,
       .make_ledger = [this](event_base* base, unsigned worker) { return store_->make_ledger(base, worker); },
       .make_sinks =
           [this](unsigned worker) {
             std::vector<std::unique_ptr<usage::FactSink>> sinks;
             sinks.push_back(metrics_->worker_sink(worker));
             if (access_log_) sinks.push_back(access_log_->worker_sink());
             return sinks;
           },
       .make_call_journal = [this](unsigned worker) { return store_->make_call_journal(worker); },
       .log = log,
       .on_tick = [this](unsigned worker) { store_->tick(worker); }});
  if (!server) return std::unexpected(server.error());
  server_ = std::move(*server);
  return {};
}

Result<void> Proxy::open_admin_port(const config::LoadedConfig& loaded) {
  const config::Admin& settings = loaded.settings.admin;
  metrics_->add_source(
      [this] { return cli::gauges(*server_, access_log_.get(), embedded_.get(), reload_status_); });
  metrics_->add_source([this] { return store_->metrics(); });
  metrics_->add_source([this] {
    std::lock_guard lock(assembled_mutex_);
    return std::vector{cli::key_set_failures(assembled_->snapshot->settings, *assembled_->keys)};
  });
  metrics_->add_source(telemetry::process_metrics);
  if (settings.address.empty()) return {};

  admin::Sources sources{.snapshot = [this] { return server_->snapshot(); },
                         .metrics = [this] { return metrics_->scrape(); },
                         .metrics_content_type = telemetry::Metrics::kContentType,
                         .readiness = [this] { return readiness(); },
                         .reload = [this] { return try_reload(); },
                         .read_usage = nullptr,
                         .version = TOLLGATE_VERSION,
                         .revision = TOLLGATE_REVISION};
  store_->connect(sources);
  std::string token;
  if (!settings.token_file.empty()) token = config::secret_of_file(loaded.file_texts.at(settings.token_file));
  auto service = std::make_shared<admin::Service>(std::move(sources), std::move(token));
  auto port = net::LocalService::start(
      settings.address, [service](const net::LocalRequest& request, net::LocalReplyTo reply) {
        service->handle({.method = request.method,
                         .path = request.path,
                         .query = request.query,
                         .authorization = request.field("Authorization"),
                         .body = request.body,
                         .peer = request.peer},
                        [reply = std::move(reply)](admin::Reply answer) {
                          reply({.status = answer.status,
                                 .content_type = std::move(answer.content_type),
                                 .fields = std::move(answer.fields),
                                 .body = std::move(answer.body)});
                        });
      });
  if (!port) return std::unexpected(port.error());
  admin_port_ = std::move(*port);
  return {};
}

std::vector<admin::Check> Proxy::readiness() const {
  const unsigned connected = store_->workers_connected();
  const bool does_without = server_->snapshot()->settings.store.on_outage == config::OnOutage::allow;
  return {{.name = "config", .ok = true, .detail = {}},
          {.name = "listeners", .ok = true, .detail = {}},
          {.name = "store",
           .ok = connected == workers_ || does_without,
           .detail = connected == workers_
                         ? ""
                         : fmt::format("{} of {} workers connected{}", connected, workers_,
                                       does_without ? ", calls are let through uncounted" : "")},
          {.name = "journal", .ok = journal_->writable(), .detail = journal_->trouble()},
          {.name = "accepting", .ok = !server_->draining(), .detail = server_->draining() ? "draining" : ""}};
}

Result<void> Proxy::reload() {
  std::lock_guard lock(control_);
  return reload_locked();
}

Result<void> Proxy::try_reload() {
  std::unique_lock lock(control_, std::try_to_lock);
  if (!lock) return fail(Origin::self, "another reload, or the shutdown, is under way", true);
  return reload_locked();
}

Result<void> Proxy::reload_locked() {
  auto refuse = [&](std::string message) {
    reload_status_.failed();
    log("error", fmt::format("reload refused, the running configuration stays: {}", message));
    return fail(Origin::config, std::move(message));
  };
  auto loaded = config::load(config_file_, config::process_environment());
  if (!loaded) {
    std::string all;
    for (const auto& diagnostic : loaded.error())
      all += (all.empty() ? "" : "\n") + config::to_string(diagnostic);
    return refuse(std::move(all));
  }
  for (const auto& warning : loaded->warnings) log("warning", config::to_string(warning));
  const flow::Snapshot& now = *assembled_->snapshot;
  for (const std::string& text : cli::needs_restart(now.settings, loaded->settings)) log("warning", text);
  auto assembled = cli::assemble(*loaded, now.generation + 1, &now, log_keys);
  if (!assembled) return refuse(assembled.error().message);
  if (auto swapped = server_->reload(assembled->snapshot); !swapped) return refuse(swapped.error().message);
  store_->reload(loaded->settings.store);
  auto replaced = std::make_unique<cli::Assembled>(std::move(*assembled));
  {
    std::lock_guard guard(assembled_mutex_);
    std::swap(assembled_, replaced);
  }
  reload_status_.succeeded();
  log("info", fmt::format("configuration reloaded, generation {}", assembled_->snapshot->generation));
  return {};
}

void Proxy::reopen_logs() {
  if (!access_log_) return;
  if (auto reopened = access_log_->reopen(); !reopened)
    log("error", reopened.error().message);
  else
    log("info", "access log reopened");
}

void Proxy::drain(const Signals& signals) {
  std::lock_guard lock(control_);
  const config::Timeouts timeouts = server_->snapshot()->settings.timeouts;
  log("info", "draining: /readyz says no, calls in flight may finish");
  server_->begin_drain();
  if (timeouts.drain_delay.count() > 0 && signals.stop_within(timeouts.drain_delay))
    return log("info", "told again: stopping now");
  if (!server_->drain(timeouts.drain)) log("warning", "some calls did not finish in time and are cut off");
  if (!store_->drain(kSettleLimit))
    log("info", "the store is away: what is unsettled stays in the journal and is settled by the next start");
}

int serve(const cli::ServeArguments& arguments) {
  Signals signals;  // before the first thread, so that all of them inherit the mask
  spdlog::set_default_logger(spdlog::stderr_logger_mt("tollgate"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
  spdlog::flush_on(spdlog::level::info);

  raise_file_limit();
  Proxy proxy(arguments.config_file);
  if (int code = proxy.start(); code != cli::kExitOk) return code;
  for (;;) {
    switch (signals.wait()) {
      case SIGHUP:
        (void)proxy.reload();
        break;
      case SIGUSR1:
        proxy.reopen_logs();
        break;
      default:
        proxy.drain(signals);
        log("info", "stopped");
        return cli::kExitOk;
    }
  }
}

}  // namespace
}  // namespace tollgate

int main(int argc, char** argv) {
  return tollgate::cli::run(argc, argv, tollgate::serve);
}
