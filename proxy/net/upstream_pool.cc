#include "proxy/net/upstream_pool.h"

#include "metering/base/check.h"

namespace tollgate::net {

namespace {

constexpr Milliseconds kFirstPause{1'000};
constexpr Milliseconds kLongestPause{10'000};

}  // namespace

bool same_settings(const config::Upstream& a, const config::Upstream& b) {
  const auto tied = [](const config::Upstream& u) {
    return std::tie(u.name, u.servers, u.tls.ca_file, u.tls.verify, u.tls.server_name, u.tls.certificate_file,
                    u.tls.key_file, u.connect_timeout, u.response_timeout, u.idle_timeout,
                    u.keepalive_timeout, u.max_idle_connections, u.max_connections, u.queue_timeout,
                    u.max_retries);
  };
  return tied(a) == tied(b);
}

std::shared_ptr<UpstreamPool> UpstreamPool::create(Surroundings around, const config::Upstream& settings,
                                                   std::shared_ptr<const ClientTls> tls,
                                                   http::HeadLimits limits) {
  std::shared_ptr<UpstreamPool> pool(new UpstreamPool(std::move(around), settings, std::move(tls), limits));
  pool->start_lookups();
  return pool;
}

UpstreamPool::UpstreamPool(Surroundings around, const config::Upstream& settings,
                           std::shared_ptr<const ClientTls> tls, http::HeadLimits limits)
    : around_(std::move(around)), settings_(settings), tls_(std::move(tls)), limits_(limits) {
  for (const std::string& text : settings_.servers) {
    auto url = parse_server_url(text);
    CHECK(url.has_value(), "a validated upstream has well-formed server addresses");
    Server server;
    server.url = std::move(*url);
    servers_.push_back(std::move(server));
    auto health = std::make_shared<ServerHealth>();
    health->upstream = settings_.name;
    health->server = text;
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
        servers_[i].addresses = {*numeric};
        continue;
      }
    }
    EventLoop& loop = around_.loop;
    servers_[i].lookup = around_.resolver.watch(
        at, [weak = weak_from_this(), i, &loop](const Result<std::vector<Endpoint>>& answer) {
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
    server.addresses = std::move(*answer);
  }
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

// Servers take turns; one that is out is passed over while another is not.
std::size_t UpstreamPool::choose_server() {
  const std::size_t count = servers_.size();
  if (count == 1) return 0;
  const MonotonicTime now = around_.loop.now();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t candidate = (next_server_ + i) % count;
    if (servers_[candidate].out_until > now) continue;
    next_server_ = (candidate + 1) % count;
    return candidate;
  }
  const std::size_t candidate = next_server_;
  next_server_ = (candidate + 1) % count;
  return candidate;
}

// Each is looked at first: bytes that came while nobody asked, and that the loop has not told of yet, would
// be taken for the reply to the next request.
UpstreamConnection* UpstreamPool::take_idle(std::size_t index) {
  Server& server = servers_[index];
  while (!server.idle.empty()) {
    UpstreamConnection* connection = server.idle.back();
    server.idle.pop_back();
    --idle_count_;
    around_.counters.idle.fetch_sub(1, std::memory_order_relaxed);
    if (!connection->stale()) return connection;
    destroy(*connection);
  }
  return nullptr;
}

UpstreamConnection* UpstreamPool::acquire(UpstreamUser& user, bool fresh) {
  user.waiting.pool = this;
  if (!fresh && !queue_.empty()) {  // those who wait come first
    enqueue(user);
    return nullptr;
  }
  const std::size_t server = choose_server();
  const bool full = connections_.size() >= settings_.max_connections;
  UpstreamConnection* connection = fresh ? nullptr : take_idle(server);
  if (connection == nullptr && full && !fresh)
    for (std::size_t i = 0; i < servers_.size() && connection == nullptr; ++i) connection = take_idle(i);
  if (connection != nullptr) {
    connection->use(user);
    around_.counters.active.fetch_add(1, std::memory_order_relaxed);
    return connection;
  }
  if (fresh && full && idle_count_ > 0) {
    for (Server& other : servers_) {  // an idle one makes room
      if (other.idle.empty()) continue;
      discard(*other.idle.front());
      break;
    }
  }
  if (connections_.size() >= settings_.max_connections)
    enqueue(user);
  else
    open(user, server);
  return nullptr;
}

void UpstreamPool::open(UpstreamUser& user, std::size_t index) {
  auto owned = std::make_unique<UpstreamConnection>(around_.loop, *this, index, limits_);
  UpstreamConnection& connection = *owned;
  connections_.emplace(&connection, std::move(owned));
  connection.set_label(servers_[index].url.authority);
  connection.use(user);
  user.waiting.connecting = &connection;
  around_.counters.connecting.fetch_add(1, std::memory_order_relaxed);
  around_.counters.connects_total.fetch_add(1, std::memory_order_relaxed);
  if (servers_[index].addresses.empty())
    connection.wait_for_address(around_.loop.now() + settings_.connect_timeout);
  else
    start_connecting(connection);
}

void UpstreamPool::start_connecting(UpstreamConnection& connection) {
  const Server& server = servers_[connection.server()];
  connection.connect(server.addresses, server.url.tls ? tls_.get() : nullptr, server.url.at.host,
                     around_.loop.now() + settings_.connect_timeout);
}

void UpstreamPool::connected(UpstreamConnection& connection) {
  Server& server = servers_[connection.server()];
  server.failures = 0;
  server.out_until = {};
  health_[connection.server()]->healthy.store(true, std::memory_order_relaxed);
  around_.counters.connecting.fetch_sub(1, std::memory_order_relaxed);
  around_.counters.active.fetch_add(1, std::memory_order_relaxed);
  UpstreamUser& user = *connection.user();
  user.waiting.connecting = nullptr;
  user.upstream_ready(connection);
}

void UpstreamPool::connect_failed(UpstreamConnection& connection) {
  const std::size_t index = connection.server();
  Server& server = servers_[index];
  Milliseconds pause = kFirstPause * (1 << std::min<std::uint32_t>(server.failures, 4));
  ++server.failures;
  server.out_until = around_.loop.now() + std::min(pause, kLongestPause);
  if (health_[index]->healthy.exchange(false, std::memory_order_relaxed)) {
    const std::string error = connection.error().empty() ? server.lookup_error : connection.error();
    around_.log("warning", fmt::format("upstream {}: server {} cannot be reached: {}", settings_.name,
                                       settings_.servers[index], error));
  }
  around_.counters.connecting.fetch_sub(1, std::memory_order_relaxed);
  around_.counters.connect_failures_total.fetch_add(1, std::memory_order_relaxed);
  UpstreamUser& user = *connection.user();
  user.waiting.connecting = nullptr;
  destroy(connection);
  auto self = shared_from_this();
  user.upstream_failed(flow::UpstreamFailure::connect);
  serve_queue();
}

void UpstreamPool::give_up(UpstreamUser& user) {
  if (user.waiting.connecting != nullptr) {
    UpstreamConnection& connection = *user.waiting.connecting;
    user.waiting.connecting = nullptr;
    around_.counters.connecting.fetch_sub(1, std::memory_order_relaxed);
    destroy(connection);
    serve_queue();
  } else if (user.waiting.queued) {
    user.waiting.queued = false;
    around_.loop.clear(user.waiting.timer);
    around_.counters.waiting.fetch_sub(1, std::memory_order_relaxed);
    std::erase(queue_, &user);
  }
}

void UpstreamPool::release(UpstreamConnection& connection, bool reusable) {
  around_.counters.active.fetch_sub(1, std::memory_order_relaxed);
  if (!reusable || retired_ || (idle_count_ >= settings_.max_idle_connections && queue_.empty())) {
    destroy(connection);
  } else {
    connection.idle_until(around_.loop.now() + settings_.keepalive_timeout);
    servers_[connection.server()].idle.push_back(&connection);
    ++idle_count_;
    around_.counters.idle.fetch_add(1, std::memory_order_relaxed);
  }
  if (!queue_.empty()) serve_queue();
}

void UpstreamPool::enqueue(UpstreamUser& user) {
  queue_.push_back(&user);
  user.waiting.queued = true;
  user.waiting.timer.bind(&user, &UpstreamPool::on_queue_timeout);
  around_.loop.set(user.waiting.timer, settings_.queue_timeout);
  around_.counters.waiting.fetch_add(1, std::memory_order_relaxed);
}

// Later, not now: whoever released is in the middle of something.
void UpstreamPool::serve_queue() {
  if (queue_.empty()) return;
  around_.loop.defer([weak = weak_from_this()] {
    auto pool = weak.lock();
    if (pool == nullptr) return;
    while (!pool->queue_.empty()) {
      UpstreamUser& user = *pool->queue_.front();
      UpstreamConnection* connection = nullptr;
      for (std::size_t i = 0; i < pool->servers_.size() && connection == nullptr; ++i)
        connection = pool->take_idle(i);
      if (connection == nullptr && pool->connections_.size() >= pool->settings_.max_connections) return;
      pool->give_up(user);
      if (connection != nullptr) {
        connection->use(user);
        pool->around_.counters.active.fetch_add(1, std::memory_order_relaxed);
        user.upstream_ready(*connection);
      } else {
        pool->open(user, pool->choose_server());
      }
    }
  });
}

void UpstreamPool::on_queue_timeout(void* waiting) {
  auto& user = *static_cast<UpstreamUser*>(waiting);
  user.waiting.pool->give_up(user);
  user.upstream_failed(flow::UpstreamFailure::queue_full);
}

void UpstreamPool::remove_idle(UpstreamConnection& connection) {
  if (std::erase(servers_[connection.server()].idle, &connection) == 0) return;
  --idle_count_;
  around_.counters.idle.fetch_sub(1, std::memory_order_relaxed);
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
  for (Server& server : servers_) {
    if (!server.addresses.empty()) server.lookup.reset();
    while (!server.idle.empty()) discard(*server.idle.back());
  }
}

}  // namespace tollgate::net
