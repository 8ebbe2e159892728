#include "proxy/net/server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <random>

#include "metering/base/check.h"
#include "proxy/net/endpoint.h"
#include "proxy/net/tls.h"
#include "proxy/net/worker.h"

namespace tollgate::net {

namespace {

// One address of the settings that is listened on.
struct Open {
  std::string key;
  std::uint16_t port = 0;
  std::shared_ptr<const ServerTls> tls;
  std::shared_ptr<const ListenerRules> rules = {};
  std::vector<int> fds = {};      // to be handed to the workers, in turn
  std::vector<int> handles = {};  // the same once the workers own them
};

void close_all(std::vector<int>& fds) {
  for (const int fd : fds) ::close(fd);
  fds.clear();
}

Result<int> duplicate(int fd) {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return fail(Origin::config, "no file descriptor left for a listener");
  return copy;
}

// What ServerTls and the configuration do not say by themselves.
Result<std::shared_ptr<const ListenerRules>> rules_of(const config::Listener& settings) {
  auto senders = http::AddressSet::parse(settings.proxy_protocol_from);
  if (!senders) return std::unexpected(senders.error());
  return std::make_shared<const ListenerRules>(
      ListenerRules{.proxy_protocol = settings.proxy_protocol, .senders = std::move(*senders)});
}

Result<Open> open_listener(const config::Listener& settings, unsigned workers) {
  const auto at = parse_listen_address(settings.address);
  auto endpoint = at ? numeric_endpoint(*at) : std::nullopt;
  if (!endpoint)
    return fail(Origin::config,
                fmt::format("listener address {} is not an IP address with a port", settings.address));
  Open open;
  open.key = settings.address;
  const bool local = endpoint->address.ss_family == AF_UNIX;  // one queue for all workers
  for (unsigned worker = 0; worker < workers; ++worker) {
    auto fd =
        local && worker > 0 ? duplicate(open.fds.front()) : listen_on(*endpoint, workers > 1, worker > 0);
    if (!fd) {
      close_all(open.fds);
      return std::unexpected(fd.error());
    }
    open.fds.push_back(*fd);
    if (worker == 0 && !local)
      *endpoint = local_endpoint(*fd);  // port 0: the others join the one that was chosen
  }
  open.port = endpoint->port();
  return open;
}

// A predecessor may have had more or fewer workers: each socket needs one that accepts, each worker a socket.
std::vector<int> shared_out(const std::vector<int>& sockets, unsigned workers) {
  std::vector<int> fds = sockets;
  while (fds.size() < workers)
    fds.push_back(::fcntl(sockets[fds.size() % sockets.size()], F_DUPFD_CLOEXEC, 3));
  return fds;
}

bool is_listening(int fd) {
  int listens = 0;
  socklen_t size = sizeof listens;
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0;
}

}  // namespace

void close_all(Sockets& sockets) {
  for (auto& [address, fds] : sockets) close_all(fds);
  sockets.clear();
}

std::string to_text(const Sockets& sockets) {
  std::string text;
  for (const auto& [address, fds] : sockets)
    text += fmt::format("{}{}={}", text.empty() ? "" : ";", address, fmt::join(fds, ","));
  return text;
}

Sockets sockets_from_text(std::string_view text) {
  Sockets sockets;
  while (!text.empty()) {
    std::string_view entry = text.substr(0, text.find(';'));
    text.remove_prefix(std::min(text.size(), entry.size() + 1));
    const std::size_t equals = entry.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string address(entry.substr(0, equals));
    entry.remove_prefix(equals + 1);
    while (!entry.empty()) {
      const std::string_view number = entry.substr(0, entry.find(','));
      entry.remove_prefix(std::min(entry.size(), number.size() + 1));
      int fd = -1;
      const auto parsed = std::from_chars(number.data(), number.data() + number.size(), fd);
      if (parsed.ec == std::errc() && parsed.ptr == number.data() + number.size() && is_listening(fd))
        sockets[address].push_back(fd);
    }
  }
  return sockets;
}

struct Server::Impl {
  Options options;
  Resolver resolver;
  std::unique_ptr<AddressTable> addresses;
  std::unique_ptr<LookupService> lookups;
  std::vector<std::unique_ptr<Worker>> workers;
  mutable std::mutex mutex;
  std::vector<Open> listeners;                     // guarded by mutex
  std::shared_ptr<const flow::Snapshot> snapshot;  // guarded by mutex
  std::shared_ptr<flow::Trail> trail;              // guarded by mutex
  std::map<std::string, std::vector<std::shared_ptr<CheckedServer>>, std::less<>> checked;  // control thread
  std::atomic<bool> draining{false};

  struct Prepared {
    std::vector<Open> listeners;
    std::map<std::string, std::shared_ptr<const ClientTls>, std::less<>> upstream_tls;
    std::map<std::string, std::vector<std::shared_ptr<CheckedServer>>, std::less<>> checked;
  };

  // What health checks say outlives a reload that does not change the upstream.
  void prepare_checks(const config::Upstream& upstream, Prepared& prepared) {
    if (upstream.health_check.path.empty()) return;
    std::vector<std::shared_ptr<CheckedServer>>& servers = prepared.checked[upstream.name];
    if (snapshot != nullptr)
      for (const config::Upstream& present : snapshot->settings.upstreams)
        if (present == upstream) servers = checked[upstream.name];
    if (!servers.empty()) return;
    for (std::size_t i = 0; i < upstream.servers.size(); ++i)
      servers.push_back(std::make_shared<CheckedServer>());
  }

  // Everything that can fail. `listeners` in the result: kept ones have no descriptors.
  Result<Prepared> prepare(const flow::Snapshot& next) {
    Prepared prepared;
    for (const config::Upstream& upstream : next.settings.upstreams) {
      prepare_checks(upstream, prepared);
      bool tls = false;
      for (const std::string& server : upstream.servers) {
        const auto url = parse_server_url(server);
        if (!url)
          return fail(Origin::config,
                      fmt::format("upstream {}: {} is not http://host:port or https://host:port",
                                  upstream.name, server));
        tls = tls || url->tls;
      }
      if (!tls) continue;
      auto loaded = ClientTls::load(upstream.tls);
      if (!loaded) return std::unexpected(loaded.error());
      prepared.upstream_tls.emplace(upstream.name, std::move(*loaded));
    }
    for (const config::Listener& wanted : next.settings.listeners) {
      auto opened = prepare_listener(wanted);
      if (!opened) {
        for (Open& open : prepared.listeners) close_all(open.fds);
        return std::unexpected(opened.error());
      }
      prepared.listeners.push_back(std::move(*opened));
    }
    return prepared;
  }

  Result<Open> prepare_listener(const config::Listener& wanted) {
    const Open* present = nullptr;
    for (const Open& open : listeners)
      if (open.key == wanted.address) present = &open;
    std::shared_ptr<const ServerTls> tls;
    if (wanted.tls) {
      auto loaded = ServerTls::load(*wanted.tls, present == nullptr ? nullptr : present->tls.get());
      if (!loaded) return std::unexpected(loaded.error());
      tls = std::move(*loaded);
    }
    auto rules = rules_of(wanted);
    if (!rules) return std::unexpected(rules.error());
    if (present != nullptr)
      return Open{present->key, present->port, std::move(tls), std::move(*rules), {}, present->handles};
    if (auto given = options.inherited.find(wanted.address); given != options.inherited.end()) {
      Open open{wanted.address, local_endpoint(given->second.at(0)).port(), std::move(tls),
                std::move(*rules)};
      open.fds = shared_out(given->second, static_cast<unsigned>(workers.size()));
      options.inherited.erase(given);
      return open;
    }
    auto opened = open_listener(wanted, static_cast<unsigned>(workers.size()));
    if (opened) {
      opened->tls = std::move(tls);
      opened->rules = std::move(*rules);
    }
    return opened;
  }

  Worker::Update update_for(unsigned worker, const std::shared_ptr<const flow::Snapshot>& next,
                            const Prepared& prepared) {
    Worker::Update update;
    update.snapshot = next;
    update.upstream_tls = prepared.upstream_tls;
    update.checked = prepared.checked;
    for (const Open& open : prepared.listeners) {
      if (open.fds.empty()) update.listeners.push_back({open.key, -1, open.tls, open.rules});
      for (std::size_t i = worker; i < open.fds.size(); i += workers.size())
        update.listeners.push_back({open.key, open.fds[i], open.tls, open.rules});
    }
    return update;
  }

  bool end_calls(Worker::Queues queues, Milliseconds limit);

  void adopt(std::shared_ptr<const flow::Snapshot> next, Prepared prepared) {
    std::lock_guard lock(mutex);
    snapshot = std::move(next);
    for (Open& open : prepared.listeners)
      if (!open.fds.empty()) open.handles = std::exchange(open.fds, {});
    listeners = std::move(prepared.listeners);
    checked = std::move(prepared.checked);
  }
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Server>> Server::start(Options options) {
  CHECK(options.snapshot != nullptr && options.workers > 0, "a server needs a snapshot and a worker");
  std::signal(SIGPIPE, SIG_IGN);
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  std::uint64_t seed = impl->options.seed;
  if (seed == 0) {
    std::random_device source;
    seed = (static_cast<std::uint64_t>(source()) << 32) | source();
  }
  impl->lookups =
      std::make_unique<LookupService>([log = impl->options.log](bool good, const std::string& line) {
        if (log) log(good ? "info" : "warning", line);
      });
  Random seeds(seed);
  for (unsigned i = 0; i < impl->options.workers; ++i) {
    const std::uint64_t own = seeds.next();
    if (i == 0) impl->addresses = std::make_unique<AddressTable>(~own);
    impl->workers.push_back(
        std::make_unique<Worker>(impl->options, i, own, impl->resolver, *impl->addresses, *impl->lookups));
  }
  auto prepared = impl->prepare(*impl->options.snapshot);
  if (!prepared) return std::unexpected(prepared.error());
  for (unsigned i = 0; i < impl->options.workers; ++i)
    impl->workers[i]->start(impl->update_for(i, impl->options.snapshot, *prepared));
  impl->adopt(std::move(impl->options.snapshot), std::move(*prepared));
  for (auto& [address, fds] : impl->options.inherited) close_all(fds);  // not listened on any more
  impl->options.inherited.clear();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::~Server() {
  for (auto& worker : impl_->workers) worker->stop();
  impl_->lookups.reset();  // its answers go to the loops of the workers
}

Result<void> Server::reload(std::shared_ptr<const flow::Snapshot> snapshot) {
  auto prepared = impl_->prepare(*snapshot);
  if (!prepared) return std::unexpected(prepared.error());
  for (unsigned i = 0; i < impl_->workers.size(); ++i)
    impl_->workers[i]->update(impl_->update_for(i, snapshot, *prepared));
  impl_->adopt(std::move(snapshot), std::move(*prepared));
  return {};
}

void Server::begin_accepting() {
  for (auto& worker : impl_->workers) worker->begin_accepting();
}

void Server::begin_drain() {
  impl_->draining = true;
  say_close(true);
}

void Server::say_close(bool on) {
  for (auto& worker : impl_->workers) worker->say_close(on);
}

bool Server::all_told() {
  return std::ranges::all_of(impl_->workers, [](auto& worker) { return worker->all_told(); });
}

bool Server::drain(Milliseconds limit) {
  impl_->draining = true;
  return impl_->end_calls(Worker::Queues::serve, limit);
}

bool Server::give_way(Milliseconds limit) {
  impl_->draining = true;
  return impl_->end_calls(Worker::Queues::leave, limit);
}

void Server::stop_charging() {
  for (auto& worker : impl_->workers) worker->stop_charging();
}

void Server::detach() {
  for (auto& worker : impl_->workers) worker->detach();
}

bool Server::Impl::end_calls(Worker::Queues queues, Milliseconds limit) {
  struct Waiting {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t left;
  };
  auto waiting = std::make_shared<Waiting>();
  waiting->left = workers.size();
  for (auto& worker : workers) {
    worker->drain(queues, [waiting] {
      std::lock_guard lock(waiting->mutex);
      --waiting->left;
      waiting->changed.notify_all();
    });
  }
  std::unique_lock lock(waiting->mutex);
  return waiting->changed.wait_for(lock, limit, [&] { return waiting->left == 0; });
}

Sockets Server::sockets() const {
  std::lock_guard lock(impl_->mutex);
  Sockets sockets;
  for (const Open& open : impl_->listeners)
    for (const int fd : open.handles) sockets[open.key].push_back(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return sockets;
}

const LookupService::Counters& Server::lookups() const {
  return impl_->lookups->counters();
}

bool Server::draining() const {
  return impl_->draining;
}

Counters Server::counters() const {
  Counters sum;
  for (const auto& worker : impl_->workers) {
    const WorkerCounters& mine = std::as_const(*worker).counters();
    const PoolCounters& pools = worker->pool_counters();
    const std::uint64_t active = mine.active, open = mine.open, tunnels = mine.tunnels;
    sum.client.active += active - std::min(active, tunnels);
    sum.client.tunnels += tunnels;
    sum.client.idle += open - std::min(open, active);
    sum.upstream.active += pools.active;
    sum.upstream.idle += pools.idle;
    sum.upstream_connecting += pools.connecting;
    sum.upstream_waiting += pools.waiting;
    sum.accepted_total += mine.accepted_total;
    sum.refused_connections_total += mine.refused_total;
    sum.accept_failures_total += mine.accept_failures_total;
    sum.tls_failures_total += mine.tls_failures_total;
    sum.upstream_connects_total += pools.connects_total;
    sum.upstream_connect_failures_total += pools.connect_failures_total;
    sum.upstream_retries_total += pools.retries_total;
    sum.upstream_retries_refused_total += pools.retries_refused_total;
    sum.token_cache_hits += mine.token_cache_hits;
    sum.token_cache_misses += mine.token_cache_misses;
    sum.slow_handshakes_total += mine.slow_handshakes_total;
    sum.slow_heads_total += mine.slow_heads_total;
    sum.slow_bodies_total += mine.slow_bodies_total;
    sum.slow_readers_total += mine.slow_readers_total;
    sum.proxy_header_failures_total += mine.proxy_header_failures_total;
    sum.address_full_total += mine.address_full_total;
    sum.address_fast_total += mine.address_fast_total;
    sum.shed_anonymous_total += mine.shed_anonymous_total;
    sum.shed_all_total += mine.shed_all_total;
    sum.shed_level = std::max<std::uint64_t>(sum.shed_level, mine.shed_level);
    sum.loop_lag = std::max(sum.loop_lag, Duration(static_cast<std::int64_t>(mine.lag_nanoseconds)));
    const std::int64_t now = worker->loop().now().time_since_epoch().count();
    for (const auto& seen : worker->health()) {
      auto same =
          std::find_if(sum.upstream_health.begin(), sum.upstream_health.end(), [&](const auto& entry) {
            return entry.upstream == seen->upstream && entry.server == seen->server;
          });
      if (same == sum.upstream_health.end()) {
        sum.upstream_health.push_back({.upstream = seen->upstream, .server = seen->server});
        same = std::prev(sum.upstream_health.end());
      }
      if (const CheckedServer* checked = seen->checked.get(); checked != nullptr) {
        same->checked = true;
        same->down = !checked->up;
        same->checks_passed_total = checked->passed_total;
        same->checks_failed_total = checked->failed_total;
      }
      same->unreachable = same->unreachable || !seen->reachable;
      same->ejected = same->ejected || seen->ejected_until > now;
      same->healthy = !same->down && !same->unreachable && !same->ejected;
      same->in_flight += seen->in_flight;
      same->idle += seen->idle;
      same->waiting += seen->waiting;
      same->calls_total += seen->calls_total;
      same->failures_total += seen->failures_total;
      same->ejections_total += seen->ejections_total;
    }
  }
  sum.client_addresses = impl_->addresses->size();
  return sum;
}

void Server::follow(std::optional<flow::TrailOrder> order) {
  std::shared_ptr<flow::Trail> trail;
  if (order)
    trail = std::make_shared<flow::Trail>(*std::move(order), EventLoop::now(),
                                          [log = impl_->options.log](auto line) {
                                            if (log) log("debug", line);
                                          });
  std::lock_guard lock(impl_->mutex);
  impl_->trail = trail;
  for (auto& worker : impl_->workers) worker->follow(trail);
}

MonotonicTime Server::now() {
  return EventLoop::now();
}

std::shared_ptr<const flow::Trail> Server::followed() const {
  std::lock_guard lock(impl_->mutex);
  if (impl_->trail == nullptr || impl_->trail->over(EventLoop::now())) return nullptr;
  return impl_->trail;
}

std::vector<std::uint16_t> Server::ports() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<std::uint16_t> ports;
  for (const Open& open : impl_->listeners) ports.push_back(open.port);
  return ports;
}

std::vector<CertificateExpiry> Server::certificates() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<CertificateExpiry> all;
  for (const Open& open : impl_->listeners)
    if (open.tls != nullptr)
      for (const CertificateFile& file : open.tls->certificates()) all.push_back({file.file, file.not_after});
  return all;
}

unsigned Server::workers() const {
  return static_cast<unsigned>(impl_->workers.size());
}

std::shared_ptr<const flow::Snapshot> Server::snapshot() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->snapshot;
}

void Server::post(unsigned worker, std::function<void()> task) {
  impl_->workers.at(worker)->post(std::move(task));
}

quota::Ledger* Server::ledger(unsigned worker) {
  return impl_->workers.at(worker)->ledger();
}

}  // namespace tollgate::net
