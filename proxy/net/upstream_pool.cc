#include "proxy/net/upstream_pool.h"

#include "metering/base/check.h"

namespace tollgate::net {

namespace {

std::vector<std::uint32_t> weights_of(const config::Upstream& settings) {
  std::vector<std::uint32_t> weights;
  for (const std::string& server : settings.servers) {
    auto found = settings.weights.find(server);
    weights.push_back(found == settings.weights.end() ? 1 : static_cast<std::uint32_t>(found->second));
  }
  return weights;
}

constexpr int kStatusEnd = 600;

}  // namespace

std::shared_ptr<UpstreamPool> UpstreamPool::create(Surroundings around, const config::Upstream& settings,
                                                   std::shared_ptr<const ClientTls> tls,
                                                   http::HeadLimits limits) {
  std::shared_ptr<UpstreamPool> pool(new UpstreamPool(std::move(around), settings, std::move(tls), limits));
  pool->start_lookups();
  if (pool->around_.checks && !pool->around_.checked.empty())
    pool->checker_ =
        std::make_unique<HealthChecker>(pool->around_.loop, *pool, pool->around_.checked, pool->around_.log);
  return pool;
}

UpstreamPool::UpstreamPool(Surroundings around, const config::Upstream& settings,
                           std::shared_ptr<const ClientTls> tls, http::HeadLimits limits)
    : around_(std::move(around)),
      settings_(settings),
      tls_(std::move(tls)),
      limits_(limits),
      candidates_(settings.servers.size()),
      balancer_(settings.balance, settings.servers, weights_of(settings)),
      suspicions_(settings),
      budget_(settings.retry_budget) {
  for (int status = 0; status < kStatusEnd; ++status)
    failure_statuses_.push_back(config::has_status(settings_.outlier.statuses, status));
  for (const std::string& text : settings_.servers) {
    auto url = parse_server_url(text);
    CHECK(url.has_value(), "a validated upstream has well-formed server addresses");
    Server server;
    server.url = std::move(*url);
    servers_.push_back(std::move(server));
    auto health = std::make_shared<ServerHealth>();
    health->upstream = settings_.name;
    health->server = text;
    if (!around_.checked.empty()) health->checked = around_.checked[health_.size()];
    health_.push_back(std::move(health));
  }
  CHECK(!servers_.empty(), "a validated upstream has a server");
}

UpstreamPool::~UpstreamPool() {
  around_.counters.idle.fetch_sub(idle_count_, std::memory_order_relaxed);
}

void UpstreamPool::start_lookups() {
  for (std::size_t i = 0; i < servers_.size(); ++i) {
    const HostPort& at = servers_[i].url.at;
    if (at.host != "localhost") {
      if (auto numeric = numeric_endpoint(at)) {
        servers_[i].addresses.replace({*numeric});
        continue;
      }
    }
    EventLoop& loop = around_.loop;
    servers_[i].lookup = around_.resolver.watch(
        at, settings_.resolve_interval,
        [weak = weak_from_this(), i, &loop](const Result<std::vector<Endpoint>>& answer) {
          loop.post([weak, i, answer] {
            if (auto pool = weak.lock()) pool->resolved(i, answer);
          });
        });
  }
}

void UpstreamPool::resolved(std::size_t index, Result<std::vector<Endpoint>> answer) {
  Server& server = servers_[index];
  if (!answer) {
    server.lookup_error = answer.error().message;
    around_.log("warning", fmt::format("upstream {}: {}", settings_.name, server.lookup_error));
  } else {
    server.addresses.replace(*answer);
    const std::vector<UpstreamConnection*> idle = server.idle;
    for (UpstreamConnection* connection : idle)
      if (!still_its_own(*connection)) discard(*connection);
  }
  answer_those_that_wait_for_address(index);
}

void UpstreamPool::answer_those_that_wait_for_address(std::size_t index) {
  const Server& server = servers_[index];
  std::vector<UpstreamConnection*> waiting;
  for (auto& [pointer, owned] : connections_)
    if (pointer->server() == index && pointer->waits_for_address()) waiting.push_back(pointer);
  for (UpstreamConnection* connection : waiting) {
    if (!owns(*connection)) continue;
    if (server.addresses.empty())
      connect_failed(*connection);
    else
      start_connecting(*connection);
  }
}

bool UpstreamPool::still_its_own(const UpstreamConnection& connection) const {
  return servers_[connection.server()].addresses.contains(connection.peer());
}

// ---------------------------------------------------------------- choosing a server

bool UpstreamPool::is_down(std::size_t server) const {
  const CheckedServer* checked = health_[server]->checked.get();
  return checked != nullptr && !checked->up.load(std::memory_order_relaxed);
}

bool UpstreamPool::all_down() const {
  if (around_.checked.empty()) return false;
  for (std::size_t i = 0; i < servers_.size(); ++i)
    if (!is_down(i)) return false;
  return true;
}

// What each server counts for now; false when that is nothing at all. avoid: counts for nothing.
bool UpstreamPool::weigh(MonotonicTime now, std::size_t avoid) {
  bool any = false;
  for (std::size_t i = 0; i < servers_.size(); ++i) {
    const CheckedServer* checked = health_[i]->checked.get();
    MonotonicTime up_since{};
    if (checked != nullptr)
      up_since = MonotonicTime(Duration(checked->up_since.load(std::memory_order_relaxed)));
    candidates_[i].share = i == avoid || is_down(i) ? 0 : suspicions_.share(i, now, up_since);
    any = any || candidates_[i].share > 0;
  }
  return any;
}

// There is always one: unless all are down, a server that is only suspected is better than none.
std::size_t UpstreamPool::choose_server(const UpstreamUser& user) {
  if (servers_.size() == 1) return 0;
  const MonotonicTime now = around_.loop.now();
  const std::size_t avoid = user.waiting.wanted.again ? user.waiting.last_server : Balancer::kNone;
  if (!weigh(now, avoid) && (avoid == Balancer::kNone || !weigh(now, Balancer::kNone)))
    for (std::size_t i = 0; i < servers_.size(); ++i)
      candidates_[i].share = is_down(i) ? 0 : Balancer::kWhole;
  std::size_t chosen = balancer_.choose(candidates_, user.waiting.wanted.hash_key);
  if (chosen == Balancer::kNone) chosen = 0;  // the last one went down a moment ago
  suspicions_.chosen(chosen, now, settings_.connect_timeout);
  return chosen;
}

void UpstreamPool::count_call(std::size_t server, int change) {
  candidates_[server].in_flight += static_cast<std::uint32_t>(change);
  health_[server]->in_flight.store(candidates_[server].in_flight, std::memory_order_relaxed);
}

void UpstreamPool::begin_use(UpstreamConnection& connection, UpstreamUser& user) {
  connection.use(user);
  user.waiting.last_server = connection.server();
  count_call(connection.server(), 1);
  around_.counters.active.fetch_add(1, std::memory_order_relaxed);
}

bool UpstreamPool::may_repeat() {
  const bool may = budget_.take(around_.loop.now());
  (may ? around_.counters.retries_total : around_.counters.retries_refused_total)
      .fetch_add(1, std::memory_order_relaxed);
  return may;
}

// ---------------------------------------------------------------- what calls tell

bool UpstreamPool::is_failure(int status) const {
  return status < kStatusEnd && failure_statuses_[static_cast<std::size_t>(status)];
}

void UpstreamPool::answered(const UpstreamConnection& connection, int status) {
  if (connection.user()->waiting.check) return;
  const std::size_t server = connection.server();
  health_[server]->calls_total.fetch_add(1, std::memory_order_relaxed);
  if (is_failure(status)) failed(connection, fmt::format("status {}", status));
}

void UpstreamPool::completed(const UpstreamConnection& connection, int status) {
  if (connection.user()->waiting.check) return;
  if (is_failure(status)) return;
  suspicions_.answered(connection.server());
}

void UpstreamPool::failed(const UpstreamConnection& connection, std::string_view how) {
  if (connection.user()->waiting.check) return;
  const std::size_t server = connection.server();
  health_[server]->failures_total.fetch_add(1, std::memory_order_relaxed);
  const MonotonicTime now = around_.loop.now();
  if (!suspicions_.failed(server, now)) return;
  const MonotonicTime until = suspicions_.ejected_until(server);
  health_[server]->ejected_until.store(until.time_since_epoch().count(), std::memory_order_relaxed);
  health_[server]->ejections_total.fetch_add(1, std::memory_order_relaxed);
  around_.log(
      "warning",
      fmt::format(
          "upstream {}: server {} is left out for {} ms after {} failed calls in a row, the last with {}",
          settings_.name, settings_.servers[server],
          std::chrono::duration_cast<Milliseconds>(until - now).count(), settings_.outlier.failures, how));
}

// ---------------------------------------------------------------- connections

// Never one that leaves something to be read, as far as can be told without a system call for each: bytes that came while
// nobody asked would be taken for the reply to the next request.
UpstreamConnection* UpstreamPool::take_idle(std::size_t index, bool look) {
  Server& server = servers_[index];
  while (!server.idle.empty()) {
    UpstreamConnection* connection = server.idle.back();
    server.idle.pop_back();
    --idle_count_;
    around_.counters.idle.fetch_sub(1, std::memory_order_relaxed);
    tell_idle(index);
    if ((!look && !connection->is_suspect()) || !connection->stale()) return connection;
    destroy(*connection);
  }
  return nullptr;
}

// Those of servers that are well first; never one of a server that is down.
UpstreamConnection* UpstreamPool::take_any_idle(bool look) {
  weigh(around_.loop.now(), Balancer::kNone);
  for (const bool well : {true, false})
    for (std::size_t i = 0; i < servers_.size(); ++i)
      if (!is_down(i) && (candidates_[i].share > 0) == well)
        if (UpstreamConnection* connection = take_idle(i, look)) return connection;
  return nullptr;
}

UpstreamConnection* UpstreamPool::acquire(UpstreamUser& user, const flow::ExchangePort::Wanted& wanted) {
  user.waiting.pool = this;
  user.waiting.wanted = wanted;
  if (!wanted.again) budget_.call();
  if (all_down()) {
    enqueue(user, Milliseconds(0), flow::UpstreamFailure::unavailable);
    return nullptr;
  }
  const bool fresh = wanted.fresh;
  if (!fresh && !queue_.empty()) {  // those who wait come first
    enqueue(user, settings_.queue_timeout, flow::UpstreamFailure::queue_full);
    return nullptr;
  }
  const std::size_t server = choose_server(user);
  UpstreamConnection* connection = fresh ? nullptr : take_idle(server, wanted.once);
  if (connection == nullptr && !fresh && !has_room()) connection = take_any_idle(wanted.once);
  if (connection != nullptr) {
    begin_use(*connection, user);
    return connection;
  }
  if (fresh && !has_room() && idle_count_ > 0) {
    for (Server& other : servers_) {  // an idle one makes room
      if (other.idle.empty()) continue;
      discard(*other.idle.front());
      break;
    }
  }
  if (has_room())
    open(user, server);
  else
    enqueue(user, settings_.queue_timeout, flow::UpstreamFailure::queue_full);
  return nullptr;
}

void UpstreamPool::open_check(UpstreamUser& user, std::size_t server) {
  user.waiting.pool = this;
  ++checks_open_;
  open(user, server);
}

void UpstreamPool::close_check(UpstreamUser& user, UpstreamConnection* connection) {
  if (connection == nullptr) connection = user.waiting.connecting;
  user.waiting.connecting = nullptr;
  --checks_open_;
  destroy(*connection);
}

void UpstreamPool::open(UpstreamUser& user, std::size_t index) {
  auto owned = std::make_unique<UpstreamConnection>(around_.loop, *this, index, limits_);
  UpstreamConnection& connection = *owned;
  connections_.emplace(&connection, std::move(owned));
  connection.set_label(servers_[index].url.authority);
  connection.use(user);
  user.waiting.connecting = &connection;
  if (!user.waiting.check) {
    user.waiting.last_server = index;
    count_call(index, 1);
    around_.counters.connecting.fetch_add(1, std::memory_order_relaxed);
    around_.counters.connects_total.fetch_add(1, std::memory_order_relaxed);
  }
  if (!servers_[index].addresses.empty()) return start_connecting(connection);
  connection.wait_for_address(around_.loop.now() + settings_.connect_timeout);
  // A name that was not found is asked for again and again, but only the first failure is told.
  if (!servers_[index].lookup_error.empty())
    around_.loop.post([weak = weak_from_this(), index] {
      if (auto pool = weak.lock()) pool->answer_those_that_wait_for_address(index);
    });
}

void UpstreamPool::start_connecting(UpstreamConnection& connection) {
  Server& server = servers_[connection.server()];
  const MonotonicTime now = around_.loop.now();
  // A check has to get past a silent address within its own time, or every second one would fail.
  const Milliseconds patience = connection.user()->waiting.check
                                    ? std::min(settings_.connect_timeout, settings_.health_check.timeout)
                                    : settings_.connect_timeout;
  connection.connect(server.addresses.next(now), server.url.tls ? tls_.get() : nullptr, server.url.at.host,
                     now + patience);
}

void UpstreamPool::address_failed(const UpstreamConnection& connection) {
  const std::size_t index = connection.server();
  AddressTurns& addresses = servers_[index].addresses;
  if (addresses.failed(connection.peer(), around_.loop.now()) && addresses.size() > 1)
    around_.log("warning",
                fmt::format("upstream {}: server {}: address {} cannot be reached: {}", settings_.name,
                            settings_.servers[index], connection.peer().host(), connection.error()));
}

void UpstreamPool::connected(UpstreamConnection& connection) {
  const std::size_t index = connection.server();
  AddressTurns& addresses = servers_[index].addresses;
  if (addresses.answered(connection.peer()) && addresses.size() > 1)
    around_.log("info", fmt::format("upstream {}: server {}: address {} can be reached again", settings_.name,
                                    settings_.servers[index], connection.peer().host()));
  if (suspicions_.reached(index, around_.loop.now())) {
    health_[index]->reachable.store(true, std::memory_order_relaxed);
    around_.log("info", fmt::format("upstream {}: server {} can be reached again", settings_.name,
                                    settings_.servers[index]));
  }
  UpstreamUser& user = *connection.user();
  user.waiting.connecting = nullptr;
  if (!user.waiting.check) {
    around_.counters.connecting.fetch_sub(1, std::memory_order_relaxed);
    around_.counters.active.fetch_add(1, std::memory_order_relaxed);
  }
  user.upstream_ready(connection);
}

void UpstreamPool::connect_failed(UpstreamConnection& connection) {
  auto self = shared_from_this();
  UpstreamUser& user = *connection.user();
  if (user.waiting.check) {
    close_check(user, &connection);
    return user.upstream_failed(flow::UpstreamFailure::connect);
  }
  const std::size_t index = connection.server();
  if (suspicions_.unreachable(index, around_.loop.now())) {
    health_[index]->reachable.store(false, std::memory_order_relaxed);
    const std::string error = connection.error().empty() ? servers_[index].lookup_error : connection.error();
    around_.log("warning", fmt::format("upstream {}: server {} cannot be reached: {}", settings_.name,
                                       settings_.servers[index], error));
  }
  const bool timed_out = connection.timed_out();
  count_call(index, -1);
  around_.counters.connecting.fetch_sub(1, std::memory_order_relaxed);
  around_.counters.connect_failures_total.fetch_add(1, std::memory_order_relaxed);
  user.waiting.connecting = nullptr;
  destroy(connection);
  user.upstream_failed(timed_out ? flow::UpstreamFailure::connect_timeout : flow::UpstreamFailure::connect);
  serve_queue();
}

void UpstreamPool::give_up(UpstreamUser& user) {
  if (user.waiting.connecting != nullptr) {
    UpstreamConnection& connection = *user.waiting.connecting;
    user.waiting.connecting = nullptr;
    count_call(connection.server(), -1);
    around_.counters.connecting.fetch_sub(1, std::memory_order_relaxed);
    destroy(connection);
    serve_queue();
  } else if (user.waiting.queued) {
    user.waiting.queued = false;
    around_.loop.clear(user.waiting.timer);
    around_.counters.waiting.fetch_sub(1, std::memory_order_relaxed);
    std::erase(queue_, &user);
    health_.front()->waiting.store(queue_.size(), std::memory_order_relaxed);
  }
}

void UpstreamPool::release(UpstreamConnection& connection, bool reusable) {
  around_.counters.active.fetch_sub(1, std::memory_order_relaxed);
  count_call(connection.server(), -1);
  if (!reusable || retired_ || !still_its_own(connection) ||
      (idle_count_ >= settings_.max_idle_connections && queue_.empty())) {
    destroy(connection);
  } else {
    connection.idle_until(around_.loop.event_time() + settings_.keepalive_timeout);
    servers_[connection.server()].idle.push_back(&connection);
    ++idle_count_;
    around_.counters.idle.fetch_add(1, std::memory_order_relaxed);
    tell_idle(connection.server());
  }
  if (!queue_.empty()) serve_queue();
}

void UpstreamPool::enqueue(UpstreamUser& user, Milliseconds patience, flow::UpstreamFailure failure) {
  queue_.push_back(&user);
  user.waiting.failure = failure;
  user.waiting.queued = true;
  user.waiting.timer.bind(&user, &UpstreamPool::on_queue_timeout);
  around_.loop.set(user.waiting.timer, patience);
  around_.counters.waiting.fetch_add(1, std::memory_order_relaxed);
  health_.front()->waiting.store(queue_.size(), std::memory_order_relaxed);
}

// Later, not now: whoever released is in the middle of something.
void UpstreamPool::serve_queue() {
  if (queue_.empty()) return;
  around_.loop.defer([weak = weak_from_this()] {
    auto pool = weak.lock();
    if (pool == nullptr) return;
    while (!pool->queue_.empty()) {
      UpstreamUser& user = *pool->queue_.front();
      if (pool->all_down()) return;  // their time-outs tell them
      UpstreamConnection* connection = pool->take_any_idle(user.waiting.wanted.once);
      if (connection == nullptr && !pool->has_room()) return;
      pool->give_up(user);
      if (connection != nullptr) {
        pool->begin_use(*connection, user);
        user.upstream_ready(*connection);
      } else {
        pool->open(user, pool->choose_server(user));
      }
    }
  });
}

void UpstreamPool::on_queue_timeout(void* waiting) {
  auto& user = *static_cast<UpstreamUser*>(waiting);
  auto pool = user.waiting.pool->shared_from_this();
  pool->give_up(user);
  user.upstream_failed(user.waiting.failure);
  pool->serve_queue();
}

void UpstreamPool::remove_idle(UpstreamConnection& connection) {
  if (std::erase(servers_[connection.server()].idle, &connection) == 0) return;
  --idle_count_;
  around_.counters.idle.fetch_sub(1, std::memory_order_relaxed);
  tell_idle(connection.server());
}

void UpstreamPool::tell_idle(std::size_t server) {
  health_[server]->idle.store(servers_[server].idle.size(), std::memory_order_relaxed);
}

void UpstreamPool::discard(UpstreamConnection& connection) {
  remove_idle(connection);
  destroy(connection);
  serve_queue();
}

// The object goes in the next turn: its own functions may be below us on the stack.
void UpstreamPool::destroy(UpstreamConnection& connection) {
  auto found = connections_.find(&connection);
  CHECK(found != connections_.end(), "a pool destroys its own connections");
  std::shared_ptr<UpstreamConnection> owned = std::move(found->second);
  connections_.erase(found);
  connection.close();
  around_.loop.defer([owned, self = weak_from_this().lock()] {});
}

void UpstreamPool::retire() {
  retired_ = true;
  checker_.reset();
  for (Server& server : servers_) {
    if (!server.addresses.empty()) server.lookup.reset();
    while (!server.idle.empty()) discard(*server.idle.back());
  }
}

}  // namespace tollgate::net
