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
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <ctime>
#include <mutex>
#include <thread>

#include "config/load/load.h"
#include "config/values.h"
#include "metering/base/json_text.h"
#include "metering/billing/absorber.h"
#include "metering/journal/journal.h"
#include "metering/redis/embedded.h"
#include "proxy/admin/service.h"
#include "proxy/cli/assembly.h"
#include "proxy/cli/cli.h"
#include "proxy/cli/gauges.h"
#include "proxy/cli/lease_service.h"
#include "proxy/cli/serve.h"
#include "proxy/cli/upgrade.h"
#include "proxy/cli/user_directory.h"
#include "proxy/net/local_service.h"
#include "proxy/net/server.h"
#include "proxy/telemetry/access_log.h"
#include "proxy/telemetry/metrics.h"
#include "proxy/telemetry/program_log.h"
#include "tollgate_version.h"

namespace tollgate {
namespace {

constexpr Milliseconds kSettleLimit{2'000};  // at shutdown: for handing leases back
// Upgrades. While connections wait in the queues: for calls under way to end here, recorded like any other.
// Longer than net::kSilence, so that silent connections have been closed.
constexpr Milliseconds kGiveWayLimit{1'500};
constexpr Milliseconds kPrepareLimit{60'000}, kStartLimit{60'000};  // then the successor is given up
constexpr Milliseconds kUsersPatience{
    2'000};  // at start: for the CRM's users, when none are known from before
constexpr Milliseconds kStorePatience{2'000};  // of a successor, before calls are taken without the store

void log(std::string_view level, std::string_view text) {
  spdlog::log(level == "error"     ? spdlog::level::err
              : level == "warning" ? spdlog::level::warn
              : level == "debug"   ? spdlog::level::debug
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
    for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) sigaddset(&set_, signal);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }
  int wait() const {
    int signal = 0;
    sigwait(&set_, &signal);
    return signal;
  }
  // One that has come; 0: none.
  int pending() const {
    const timespec at_once{};
    return std::max(0, sigtimedwait(&set_, nullptr, &at_once));
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
  Proxy(std::string config_file, std::shared_ptr<const telemetry::ProgramLog> program_log)
      : config_file_(std::move(config_file)), program_log_(std::move(program_log)) {}
  ~Proxy() {
    if (users_ != nullptr) users_->stop();
    if (assembled_ != nullptr) assembled_->stop();
  }
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  // Both: 0, or the exit code with which the program ends; what is wrong has been said.
  int prepare();                      // nothing that another process may have
  int start(net::Sockets inherited);  // the rest, with the listening sockets of a predecessor or none
  Result<void> reload();              // SIGHUP
  Result<void> try_reload();  // the admin API: its thread also answers probes, so it does not queue up
  void reopen_logs();         // SIGUSR1
  void drain(const Signals& signals);  // SIGTERM, SIGINT

  // ---- SIGUSR2, in this order
  // While it is held: no reload.
  std::unique_lock<std::mutex> hold() { return std::unique_lock(control_); }
  net::Sockets sockets() const { return server_->sockets(); }
  void say_close(bool on) { server_->say_close(on); }
  bool all_told() const { return server_->all_told(); }
  // Nothing is accepted or recorded any more, and what only one process may have is free: journal, leases, a
  // private redis-server, admin port. Calls that need longer go on.
  void give_way();
  bool end_calls(Milliseconds limit) { return server_->drain(limit); }  // true: none is left
  Milliseconds drain_limit() const { return server_->snapshot()->settings.timeouts.drain; }
  std::unique_ptr<Proxy> again() const;  // prepared with the configuration of this one; nullptr: that failed

 private:
  std::expected<config::LoadedConfig, int> read_configuration() const;
  int assemble();
  void accept_held();
  Result<void> open_telemetry(const config::Settings& settings);
  Result<void> open_journal(const config::LoadedConfig& loaded);
  Result<void> start_store(const config::LoadedConfig& loaded);
  Result<void> ask_for_users(const config::LoadedConfig& loaded);
  std::optional<std::shared_ptr<const void>> take_users(const std::shared_ptr<const cli::CrmUsers>& users);
  Result<void> start_workers();
  Result<void> open_admin_port(const config::LoadedConfig& loaded);
  Result<void> reload_locked();
  void follow(std::optional<flow::TrailOrder> order, std::string_view who);
  std::vector<admin::Check> readiness() const;

  std::string config_file_;
  std::shared_ptr<const telemetry::ProgramLog> program_log_;
  config::LoadedConfig loaded_;  // what runs
  net::Sockets inherited_;       // until start_workers()
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
  std::unique_ptr<cli::UserDirectory> users_;
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

int Proxy::prepare() {
  auto loaded = read_configuration();
  if (!loaded) return loaded.error();
  loaded_ = std::move(*loaded);
  return assemble();
}

int Proxy::assemble() {
  const config::Settings& settings = loaded_.settings;
  workers_ = settings.workers > 0 ? settings.workers : std::max(1U, std::thread::hardware_concurrency());
  auto assembled = cli::assemble(loaded_, 1, nullptr, cli::kept_crm_users(loaded_), log_keys);
  if (!assembled) {
    log("error", assembled.error().message);
    return cli::kExitConfig;
  }
  assembled_ = std::make_unique<cli::Assembled>(std::move(*assembled));
  return cli::kExitOk;
}

int Proxy::start(net::Sockets inherited) {
  inherited_ = std::move(inherited);
  const bool held = !inherited_.empty();
  for (auto step : {+[](Proxy& p, const config::LoadedConfig& c) { return p.open_telemetry(c.settings); },
                    +[](Proxy& p, const config::LoadedConfig& c) { return p.open_journal(c); },
                    +[](Proxy& p, const config::LoadedConfig& c) { return p.start_store(c); },
                    +[](Proxy& p, const config::LoadedConfig& c) { return p.ask_for_users(c); },
                    +[](Proxy& p, const config::LoadedConfig&) { return p.start_workers(); },
                    +[](Proxy& p, const config::LoadedConfig& c) { return p.open_admin_port(c); }}) {
    if (auto done = step(*this, loaded_); !done) {
      log("error", done.error().message);
      return done.error().origin == Origin::config ? cli::kExitConfig : cli::kExitUnavailable;
    }
  }
  if (held) accept_held();
  reload_status_.succeeded();
  const config::Settings& settings = loaded_.settings;
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
  auto opened = telemetry::AccessLog::open(settings.access_log.file, log);
  if (!opened) return std::unexpected(opened.error());
  access_log_ = std::move(*opened);
  return {};
}

Result<void> Proxy::open_journal(const config::LoadedConfig& loaded) {
  auto journal = journal::Journal::open(cli::journal_options(loaded.settings.journal, workers_, log));
  if (!journal) return std::unexpected(journal.error());
  journal_ = std::move(*journal);
  log("info",
      fmt::format("journal {}: {}", loaded.settings.journal.directory, journal_->recovery().describe()));
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
  if (auto kept = cli::check_store_settings(settings, *connection, log); !kept)
    return std::unexpected(kept.error());
  store_ = std::make_unique<cli::LeaseService>(settings, std::move(*connection), *journal_,
                                               loaded.settings.journal.directory, workers_, *metrics_, log);
  store_->set_pools(assembled_->snapshot->seat_pools);
  return {};
}

Result<void> Proxy::ask_for_users(const config::LoadedConfig& loaded) {
  users_ = std::make_unique<cli::UserDirectory>([this](const auto& users) { return take_users(users); }, log);
  const auto& directory = assembled_->snapshot->directory;
  users_->configure(loaded, directory == nullptr ? nullptr : directory->crm_users(), kUsersPatience);
  return {};
}

// On the thread that asks for them: a reload or a shutdown may wait for it to end, so it does not wait for them.
std::optional<std::shared_ptr<const void>> Proxy::take_users(
    const std::shared_ptr<const cli::CrmUsers>& users) {
  std::unique_lock lock(control_, std::try_to_lock);
  if (!lock) return std::nullopt;
  auto snapshot = cli::with_crm_users(loaded_, *assembled_->snapshot, users);
  if (snapshot && server_ != nullptr)
    if (auto swapped = server_->reload(*snapshot); !swapped) snapshot = std::unexpected(swapped.error());
  if (!snapshot) {
    log("error",
        fmt::format("identity.directory.sync: the users do not count: {}", snapshot.error().message));
    return nullptr;
  }
  const std::lock_guard guard(assembled_mutex_);
  return std::exchange(assembled_->snapshot, *std::move(snapshot));
}

Result<void> Proxy::start_workers() {
  const std::lock_guard lock(control_);  // from here on users reach the workers
  auto server = net::Server::start(
      {.snapshot = assembled_->snapshot,
       .workers = workers_,
       .make_ledger = [this](event_base* base, unsigned worker) { return store_->make_ledger(base, worker); },
       .make_sessions = [this](unsigned worker) { return store_->make_sessions(worker); },
       .seats = [this](unsigned worker) { return store_->seats(worker); },
       .make_sinks =
           [this](unsigned worker) {
             std::vector<std::unique_ptr<usage::FactSink>> sinks;
             sinks.push_back(metrics_->worker_sink(worker));
             if (access_log_) sinks.push_back(access_log_->worker_sink());
             return sinks;
           },
       .make_call_journal = [this](unsigned worker) { return store_->make_call_journal(worker); },
       .on_life = [this](unsigned worker, const flow::Life& life) { metrics_->observe_life(worker, life); },
       .on_loop_delay = [this](unsigned worker,
                               Duration late) { metrics_->observe_loop_delay(worker, late); },
       .log = log,
       .on_tick = [this](unsigned worker) { store_->tick(worker); },
       .inherited = inherited_,
       .hold = !inherited_.empty()});
  inherited_.clear();
  if (!server) return std::unexpected(server.error());
  server_ = std::move(*server);
  return {};
}

// Calls are waiting already: they go on waiting until they can be counted. A redis-server of our own has been
// started anew, and is agreed on like any other. Looked at every millisecond: this happens once in a process's life and takes
// some of them, and what becomes true is told by thousands of partitions on the workers' threads, none of which should have
// to ask for ever after whether somebody waits.
void Proxy::accept_held() {
  const auto until =
      std::chrono::steady_clock::now() + (embedded_ ? loaded_.settings.store.fence_wait : kStorePatience);
  while (store_->workers_connected() < workers_ && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(Milliseconds(1));
  server_->begin_accepting();
}

Result<void> Proxy::open_admin_port(const config::LoadedConfig& loaded) {
  const config::Admin& settings = loaded.settings.admin;
  metrics_->add_source([this] {
    return cli::gauges(*server_, program_log_->lost_lines(), access_log_.get(), embedded_.get(),
                       reload_status_);
  });
  metrics_->add_source([this] { return store_->metrics(); });
  metrics_->add_source([this] { return users_->metrics(); });
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
                         .follow = [this](auto order, auto who) { follow(std::move(order), who); },
                         .followed = [this] { return cli::followed(*server_); },
                         .upstreams = [this] { return cli::upstream_servers(*server_); },
                         .version = TOLLGATE_VERSION,
                         .revision = TOLLGATE_REVISION};
  store_->connect(sources);
  users_->connect(sources);
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

void Proxy::follow(std::optional<flow::TrailOrder> order, std::string_view who) {
  std::string id, user;
  if (order) {
    append_json_string(id, order->request_id);
    append_json_string(user, order->user);
  }
  log("info", order ? fmt::format("trace: {} follows request id {} user {} for {} and at most {} lines", who,
                                  id, user, config::duration_text(order->time), order->lines)
                    : fmt::format("trace: {} follows nothing more", who));
  server_->follow(std::move(order));
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
  const bool same_crm = cli::directory_source(*loaded).url == cli::directory_source(loaded_).url;
  auto crm_users =
      same_crm && now.directory != nullptr ? now.directory->crm_users() : cli::kept_crm_users(*loaded);
  auto assembled = cli::assemble(*loaded, now.generation + 1, &now, crm_users, log_keys);
  if (!assembled) return refuse(assembled.error().message);
  if (auto swapped = server_->reload(assembled->snapshot); !swapped) return refuse(swapped.error().message);
  store_->reload(loaded->settings.store);
  store_->set_pools(assembled->snapshot->seat_pools);
  loaded_ = std::move(*loaded);
  auto replaced = std::make_unique<cli::Assembled>(std::move(*assembled));
  {
    std::lock_guard guard(assembled_mutex_);
    std::swap(assembled_, replaced);
  }
  replaced->stop();
  users_->configure(loaded_, std::move(crm_users), Milliseconds(0));
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

void Proxy::give_way() {
  if (!server_->give_way(kGiveWayLimit))
    log("info", "upgrade: calls that need longer end in this process; the journal has them as interrupted");
  server_->stop_charging();
  if (!store_->drain(kSettleLimit))
    log("info",
        "upgrade: the store is away: what is unsettled stays in the journal and is settled by the successor");
  users_->stop();
  admin_port_.reset();
  server_->detach();
  store_.reset();
  embedded_.reset();
  absorber_.reset();
  entries_.reset();
  journal_.reset();
}

std::unique_ptr<Proxy> Proxy::again() const {
  auto next = std::make_unique<Proxy>(config_file_, program_log_);
  next->loaded_ = loaded_;
  return next->assemble() == cli::kExitOk ? std::move(next) : nullptr;
}

// What came while an upgrade is under way. True: told to stop.
bool told_to_stop(const Signals& signals, Proxy& proxy) {
  while (const int signal = signals.pending()) {
    switch (signal) {
      case SIGUSR1:
        proxy.reopen_logs();
        break;
      case SIGUSR2:
        log("warning", "upgrade refused: one is under way");
        break;
      case SIGHUP:
        log("warning", "reload refused: an upgrade is under way");
        break;
      default:
        return true;
    }
  }
  return false;
}

void end_calls(Proxy& proxy, const Signals& signals) {
  const auto until = std::chrono::steady_clock::now() + proxy.drain_limit();
  while (!proxy.end_calls(Milliseconds(100))) {
    if (told_to_stop(signals, proxy)) log("info", "draining already");
    if (std::chrono::steady_clock::now() < until) continue;
    return log("warning", "some calls did not finish in time and are cut off");
  }
}

// SIGUSR2. Until the successor serves, whatever becomes of it, this process goes on.
class Upgrade {
 public:
  // The running proxy is replaced by another one of this process when a successor took over and failed.
  Upgrade(std::unique_ptr<Proxy>& proxy, const Signals& signals) : proxy_(proxy), signals_(signals) {}
  ~Upgrade() { net::close_all(sockets_); }

  // nullopt: this process goes on, or is to be drained when told to stop. Else it ends, with this code.
  std::optional<int> run(std::vector<std::jthread>& ending) {
    if (::getpid() == 1) return refuse("a container ends with its process 1: replace the container");
    auto held = proxy_->hold();
    sockets_ = proxy_->sockets();
    auto successor = cli::Successor::start(sockets_);
    if (!successor) return refuse(successor.error().message);
    log("info", fmt::format("upgrade: process {} is started", successor->pid()));
    Heard heard = hear(*successor, cli::UpgradeWord::prepared, kPrepareLimit);
    if (heard == Heard::said) {
      heard = tell_clients(*successor);
      if (heard == Heard::silent) return hand_over(*successor, std::move(held), ending);
      proxy_->say_close(false);
    }
    const std::string end = successor->end();
    stop_ = heard == Heard::interrupted;
    if (!stop_) return refuse(heard == Heard::silent ? end + ": not ready in time" : end);
    log("info", "upgrade given up: told to stop");
    return std::nullopt;
  }
  bool told_to_stop() const { return stop_; }

 private:
  using Heard = cli::Successor::Heard;

  std::optional<int> refuse(std::string_view why) const {
    log("error", fmt::format("upgrade refused, this process goes on: {}", why));
    return std::nullopt;
  }

  Heard hear(cli::Successor& successor, cli::UpgradeWord word, Milliseconds limit) {
    return successor.hear(word, limit, [this] { return tollgate::told_to_stop(signals_, *proxy_); });
  }

  // While everything is served as ever, clients learn that their connections end: those that are idle now
  // with their next reply, for which they have as long as a drain may take. The successor has nothing to say
  // but that it ended.
  Heard tell_clients(cli::Successor& successor) {
    proxy_->say_close(true);
    const auto until = std::chrono::steady_clock::now() + proxy_->drain_limit();
    Heard heard = hear(successor, cli::UpgradeWord::ready, net::kSilence);
    while (heard == Heard::silent && !proxy_->all_told() && std::chrono::steady_clock::now() < until)
      heard = hear(successor, cli::UpgradeWord::ready, Milliseconds(100));
    return heard;
  }

  std::optional<int> hand_over(cli::Successor& successor, std::unique_lock<std::mutex> held,
                               std::vector<std::jthread>& ending) {
    log("info", "upgrade: handing over");
    proxy_->give_way();
    held.unlock();
    successor.tell(cli::UpgradeWord::go);
    const Heard heard = hear(successor, cli::UpgradeWord::ready, kStartLimit);
    if (heard == Heard::said || heard == Heard::interrupted) {
      const bool serves = heard == Heard::said;
      if (!serves) successor.stop();
      cli::notify_supervisor(fmt::format("MAINPID={}", successor.pid()));
      log("info", fmt::format("upgrade: process {} {}, calls under way end here", successor.pid(),
                              serves ? "serves" : "is told to stop too"));
      net::close_all(sockets_);
      end_calls(*proxy_, signals_);
      log("info", "stopped");
      return cli::kExitOk;
    }
    log("error", fmt::format("upgrade failed, this process goes on: {}", successor.end()));
    std::unique_ptr<Proxy> next = proxy_->again();
    if (next == nullptr) return cli::kExitConfig;
    std::swap(proxy_, next);
    ending.emplace_back([old = std::move(next)] { old->end_calls(old->drain_limit()); });
    if (const int code = proxy_->start(std::exchange(sockets_, {})); code != cli::kExitOk) return code;
    return std::nullopt;
  }

  std::unique_ptr<Proxy>& proxy_;
  const Signals& signals_;
  net::Sockets sockets_;
  bool stop_ = false;
};

int serve(const cli::ServeArguments& arguments) {
  Signals signals;                // before the first thread, so that all of them inherit the mask
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads the logs may go
  const auto program_log = std::make_shared<telemetry::ProgramLog>();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>("tollgate", program_log));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
  spdlog::set_level(spdlog::level::debug);  // only what an operator asked for is told at that level

  raise_file_limit();
  auto predecessor = cli::Predecessor::of_environment();
  std::vector<std::jthread> ending;  // calls of proxies that gave way in vain
  auto proxy = std::make_unique<Proxy>(arguments.config_file, program_log);
  if (int code = proxy->prepare(); code != cli::kExitOk) return code;
  if (predecessor && !predecessor->wait_for_go([&] { return told_to_stop(signals, *proxy); })) {
    log("info", "upgrade: not wanted any more");
    return cli::kExitOk;
  }
  if (int code = proxy->start(predecessor ? predecessor->take_sockets() : net::Sockets{});
      code != cli::kExitOk)
    return code;
  if (predecessor)
    predecessor->ready();
  else
    cli::notify_supervisor("READY=1");
  const auto drain = [&] {
    proxy->drain(signals);
    log("info", "stopped");
    return cli::kExitOk;
  };
  for (;;) {
    switch (signals.wait()) {
      case SIGHUP:
        (void)proxy->reload();
        break;
      case SIGUSR1:
        proxy->reopen_logs();
        break;
      case SIGUSR2: {
        Upgrade upgrade(proxy, signals);
        if (const auto code = upgrade.run(ending)) return *code;
        if (upgrade.told_to_stop()) return drain();
        break;
      }
      default:
        return drain();
    }
  }
}

}  // namespace
}  // namespace tollgate

int main(int argc, char** argv) {
  return tollgate::cli::run(argc, argv, tollgate::serve);
}
