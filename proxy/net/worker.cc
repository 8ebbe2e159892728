#include "proxy/net/worker.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <future>
#include <limits>

#include "metering/base/check.h"
#include "proxy/http/date.h"

namespace tollgate::net {

namespace {

constexpr std::size_t kSessionsKept = 256;     // not lent; more are freed
constexpr std::size_t kOverCapAllowance = 64;  // connections beyond the cap that are answered with 503
constexpr Milliseconds kTick{1'000};
constexpr Milliseconds kLagInterval{100};
constexpr std::size_t kOtherFiles = 256;     // journal, log, store, admin port, libraries
constexpr std::size_t kConnectionsMin = 16;  // whatever open files allow
constexpr std::size_t kFairShare = 16;       // a part of all connections, once most of them are in use

// In place of a journal that another process has by now.
class NoJournal final : public usage::CallJournal {
 public:
  bool writable() const override { return false; }
  usage::CallHandle begin(const usage::Fact&, std::span<const usage::ChargedAccount>) override { return {}; }
  void charged(usage::CallHandle) override {}
  void uncharged(usage::CallHandle) override {}
  void sent(usage::CallHandle) override {}
  void record(usage::CallHandle, const usage::Fact&, std::span<const usage::ChargedAccount>, bool) override {}
};

}  // namespace

Worker::Worker(const Server::Options& options, unsigned index, std::uint64_t seed, Resolver& resolver,
               AddressTable& addresses, LookupService& lookups)
    : options_(options),
      index_(index),
      seed_(seed),
      resolver_(resolver),
      addresses_(addresses),
      lookups_(lookups),
      random_(seed),
      life_watch_(seed ^ 0xd1b54a32d192ed03ULL),
      holding_(options.hold) {
  loop_.bind_turn_end(this, [](void* self) { static_cast<Worker*>(self)->send_all(); });
  lag_timer_.bind(this, &Worker::on_lag_timer);
  tick_timer_.bind(this, &Worker::on_tick);
  entrance_timer_.bind(this, &Worker::on_entrance_timer);
}

Worker::~Worker() {
  stop();
}

// ---------------------------------------------------------------- control

void Worker::start(Update first) {
  std::promise<void> ready;
  thread_ = std::thread([this, &ready, first = std::move(first)]() mutable {
    run(std::move(first), [&ready] { ready.set_value(); });
  });
  ready.get_future().wait();
}

void Worker::run(Update first, const std::function<void()>& ready) {
  const config::Settings& settings = first.snapshot->settings;
  gate_ = std::make_unique<flow::Gate>(settings.identity.token_cache_entries, seed_ ^ 0x9e3779b97f4a7c15ULL);
  if (options_.make_ledger) ledger_ = options_.make_ledger(loop_.base(), index_);
  if (options_.make_sessions) session_store_ = options_.make_sessions(index_);
  if (options_.seats) seats_ = options_.seats(index_);
  if (options_.make_call_journal) call_journal_ = options_.make_call_journal(index_);
  if (options_.make_sinks) sinks_ = options_.make_sinks(index_);
  apply(std::move(first));
  loop_.set(tick_timer_, kTick);
  lag_due_ = loop_.now() + kLagInterval;
  loop_.set(lag_timer_, lag_due_);
  ready();
  loop_.run();

  // Everything ends here, on the thread it lived on. Exchanges first: they still record their facts.
  stopped_ = draining_ = true;
  listeners_.clear();
  std::vector<ClientConnection*> open;
  for (auto& [connection, owned] : connections_) open.push_back(connection);
  for (ClientConnection* connection : open) connection->stop();
  session_store_.reset();
  seats_ = nullptr;
  ledger_.reset();
  later_.clear();
  senders_.clear();
  sessions_.clear();
  connections_.clear();
  for (auto& [name, pool] : generation_->pools) pool->retire();
  loop_.run_deferred();
  generation_.reset();
  loop_.run_deferred();
  tick();
  sinks_.clear();
  call_journal_.reset();
}

void Worker::update(Update next) {
  auto held = std::make_shared<Update>(std::move(next));
  loop_.post([this, held] { apply(std::move(*held)); });
}

void Worker::follow(std::shared_ptr<flow::Trail> trail) {
  loop_.post([this, trail = std::move(trail)]() mutable { life_watch_.follow(std::move(trail)); });
}

void Worker::begin_accepting() {
  loop_.post([this] {
    holding_ = false;
    for (auto& listener : listeners_) listener->resume();
  });
}

void Worker::say_close(bool on) {
  loop_.post([this, on] {
    draining_ = on;
    close_said_at_ = loop_.now();
  });
}

bool Worker::all_told() {
  std::promise<bool> told;
  loop_.post([this, &told] {
    told.set_value(idle_first_ == nullptr || idle_first_->idle_since() >= close_said_at_);
  });
  return told.get_future().get();
}

void Worker::drain(Queues queues, std::function<void()> when_empty) {
  loop_.post([this, queues, when_empty = std::move(when_empty)]() mutable {
    draining_ = closing_ = true;
    queues_ = queues;
    if (queues == Queues::leave) {
      for (auto& listener : listeners_) listener->pause();
      listeners_.clear();
    } else if (!listeners_.empty()) {
      for (auto& listener : listeners_) listener->close_entrance();
      loop_.set(entrance_timer_, kHandshakeGrace);
    }
    close_silent();
    when_empty_ = std::move(when_empty);
    note_ended();
  });
}

void Worker::stop_charging() {
  loop_.post([this] { charging_ = false; });
}

void Worker::detach() {
  std::promise<void> done;
  loop_.post([this, &done] {
    charging_ = false;
    session_store_.reset();
    seats_ = nullptr;
    ledger_.reset();
    if (call_journal_ != nullptr) call_journal_ = std::make_unique<NoJournal>();
    detached_ = true;
    done.set_value();
  });
  done.get_future().wait();
}

void Worker::stop() {
  if (!thread_.joinable()) return;
  loop_.stop();
  thread_.join();
}

std::vector<std::shared_ptr<ServerHealth>> Worker::health() const {
  std::lock_guard lock(health_mutex_);
  return health_;
}

// ---------------------------------------------------------------- configuration

void Worker::apply(Update next) {
  auto generation = std::make_shared<Generation>();
  generation->snapshot = next.snapshot;
  const config::Limits& limits = next.snapshot->settings.limits;
  std::vector<std::shared_ptr<ServerHealth>> health;
  for (const config::Upstream& upstream : next.snapshot->settings.upstreams) {
    std::shared_ptr<const ClientTls> tls = next.upstream_tls[upstream.name];
    std::shared_ptr<UpstreamPool> pool;
    if (generation_ != nullptr)
      if (auto old = generation_->pools.find(upstream.name);
          old != generation_->pools.end() && old->second->settings() == upstream)
        pool = old->second;
    if (pool == nullptr)
      pool = UpstreamPool::create(
          {loop_, resolver_, pool_counters_,
           [this](std::string_view level, std::string_view text) { log(level, text); },
           next.checked[upstream.name], index_ == 0},
          upstream, tls, {limits.max_header_bytes, limits.max_request_line, limits.max_header_count});
    else
      pool->set_tls(std::move(tls));
    health.insert(health.end(), pool->health().begin(), pool->health().end());
    generation->pools.emplace(upstream.name, std::move(pool));
  }
  if (generation_ != nullptr) {
    for (auto& [name, pool] : generation_->pools) {
      auto kept = generation->pools.find(name);
      if (kept == generation->pools.end() || kept->second != pool) pool->retire();
    }
  }
  generation_.swap(generation);
  retire(std::move(generation));
  apply_limits();
  {
    std::lock_guard lock(health_mutex_);
    health_ = std::move(health);
  }
  if (draining_) {
    for (const NewListener& listener : next.listeners)
      if (listener.fd >= 0) ::close(listener.fd);
  } else {
    apply_listeners(std::move(next.listeners));
  }
}

void Worker::apply_listeners(std::vector<NewListener> wanted) {
  std::vector<std::unique_ptr<Listener>> kept;
  for (NewListener& listener : wanted) {
    if (listener.fd >= 0) {
      kept.push_back(std::make_unique<Listener>(*this, listener.key, listener.fd, std::move(listener.tls),
                                                std::move(listener.rules)));
      continue;
    }
    for (auto& present : listeners_) {
      if (present == nullptr || present->key() != listener.key) continue;
      present->set(listener.tls, listener.rules);  // of several sockets, where a predecessor had more workers
      kept.push_back(std::move(present));
    }
  }
  listeners_.swap(kept);
  if (holding_)
    for (auto& listener : listeners_) listener->pause();
}

void Worker::apply_limits() {
  const config::Limits& limits = settings().limits;
  const config::PerAddress& address = limits.per_address;
  address_limits_ = {address.connections, address.connection_rate, address.connection_burst,
                     address.request_rate, address.request_burst};
  const std::size_t before = connections_max_;
  connections_max_ = std::min<std::size_t>(limits.max_connections, room_for_connections());
  if (connections_max_ < limits.max_connections && connections_max_ != before && index_ == 0)
    log("info", fmt::format("limits.max_connections is {}, but the limit of open files leaves room for {} a "
                            "worker",
                            limits.max_connections, connections_max_));
  const config::OverloadSettings& overload = settings().overload;
  overload_rules_ = {overload.lag, overload.memory != 0 ? overload.memory : memory_allowed() / 10 * 9};
}

// Connections to the CRM need a descriptor each too; without one a call that was let in could not be served.
std::size_t Worker::room_for_connections() const {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY)
    return std::numeric_limits<std::size_t>::max();
  const std::size_t all = files.rlim_cur > kOtherFiles ? files.rlim_cur - kOtherFiles : 0;
  const std::size_t mine = all / std::max(options_.workers, 1U);
  std::size_t upstream = 0;
  for (const config::Upstream& one : settings().upstreams) upstream += one.max_connections;
  return std::max(kConnectionsMin, mine - std::min(upstream, mine / 2));
}

http::HeadLimits Worker::head_limits() const {
  const config::Limits& limits = settings().limits;
  return {limits.max_header_bytes, limits.max_request_line, limits.max_header_count};
}

// What the last user of a configuration frees may be below us on the stack.
void Worker::retire(std::shared_ptr<Generation> generation) {
  if (generation == nullptr || generation == generation_) return;
  loop_.defer([generation = std::move(generation)] {});
}

// ---------------------------------------------------------------- connections

// A connection of this address: false when it may have no other one. While most places are in use nobody may
// take more than a share of them, so that one address cannot shut out all others.
bool Worker::admit(const std::string& peer, AddressTable::Entry*& address) {
  address = nullptr;
  const auto parsed = http::parse_address(peer);
  const flow::Snapshot& snapshot = *generation_->snapshot;
  if (!parsed || snapshot.trusted_proxies.contains(*parsed) || snapshot.unlimited_addresses.contains(*parsed))
    return true;
  AddressLimits limits = address_limits_;
  if (connections_.size() >= connections_max_ - connections_max_ / 8) {
    const auto share = static_cast<std::uint32_t>(
        std::max<std::size_t>(connections_max_ * options_.workers / kFairShare, kFairShare));
    limits.connections = limits.connections == 0 ? share : std::min(limits.connections, share);
  }
  const MonotonicTime now = loop_.now();
  const AddressTable::Admission admission = addresses_.enter(*parsed, limits, now);
  address = admission.entry;
  if (admission.verdict == AddressTable::Verdict::ok) return true;
  const bool many = admission.verdict == AddressTable::Verdict::too_many;
  (many ? counters_.address_full_total : counters_.address_fast_total)
      .fetch_add(1, std::memory_order_relaxed);
  if (address_refusal_logged_ == MonotonicTime{} || now - address_refusal_logged_ >= Seconds(10)) {
    address_refusal_logged_ = now;
    log("warning", fmt::format("connections of {} are refused: {}", peer,
                               many ? "it holds as many as it may" : "it opens more a second than it may"));
  }
  return false;
}

void Worker::leave(AddressTable::Entry*& address) {
  if (address != nullptr) addresses_.leave(address);
  address = nullptr;
}

bool Worker::may_request(const ClientConnection& connection, const http::RequestHead& head) {
  const MonotonicTime now = loop_.now();
  bool ok = true;
  if (connection.address() != nullptr) {
    ok = AddressTable::may_request(*connection.address(), address_limits_, now);
  } else {
    const flow::Snapshot& snapshot = *generation_->snapshot;
    if (!snapshot.trusted_proxies.contains(connection.peer_address())) return true;
    const http::ClientInfo client =
        http::client_of(connection.peer_address(), connection.tls(), head, snapshot.trusted_proxies);
    const auto address = http::parse_address(client.address);
    if (!address || client.address == connection.peer_address() ||
        snapshot.unlimited_addresses.contains(*address))
      return true;
    ok = addresses_.may_request(*address, address_limits_, now);
  }
  return ok;
}

void Worker::accepted(int fd, std::string peer_address, std::shared_ptr<const ServerTls> tls,
                      Listener& listener) {
  counters_.accepted_total.fetch_add(1, std::memory_order_relaxed);
  AddressTable::Entry* address = nullptr;
  const bool announced = listener.rules().proxy_protocol;
  if (announced && !listener.rules().senders.empty() && !peer_address.empty() &&
      !listener.rules().senders.contains(peer_address)) {
    counters_.proxy_header_failures_total.fetch_add(1, std::memory_order_relaxed);
    ::close(fd);
    return;
  }
  // Behind a load balancer the client counts, once the header has said who that is.
  if (!announced && !admit(peer_address, address)) {
    ::close(fd);
    return;
  }
  const std::size_t cap = connections_max_;
  if (connections_.size() >= cap && idle_first_ != nullptr)
    idle_first_->close();  // the longest idle makes room
  const bool overloaded = connections_.size() >= cap;
  if (overloaded) counters_.refused_total.fetch_add(1, std::memory_order_relaxed);
  if (connections_.size() >= cap + kOverCapAllowance) {
    leave(address);
    ::close(fd);
    return;
  }
  auto owned = std::make_unique<ClientConnection>(*this, fd, peer_address, address, std::move(tls),
                                                  overloaded, announced);
  ClientConnection& connection = *owned;
  connections_.emplace(&connection, std::move(owned));
  counters_.open.fetch_add(1, std::memory_order_relaxed);
  connection.start();
  if (overloaded && connections_.size() >= cap + kOverCapAllowance) {
    listeners_paused_ = true;
    for (auto& other : listeners_)
      if (other != nullptr) other->pause();
  }
}

void Worker::accept_failed(int error) {
  counters_.accept_failures_total.fetch_add(1, std::memory_order_relaxed);
  const MonotonicTime now = loop_.now();
  if (accept_failure_logged_ != MonotonicTime{} && now - accept_failure_logged_ < Seconds(10)) return;
  accept_failure_logged_ = now;
  log("error",
      fmt::format("cannot accept connections: {}: raise the limit of open files", std::strerror(error)));
}

// ---------------------------------------------------------------- slow clients, too much work

void Worker::await(ClientConnection& connection) {
  connection.awaited_place = awaited_.size();
  awaited_.push_back(&connection);
}

void Worker::forget_awaited(ClientConnection& connection) {
  const std::size_t place = connection.awaited_place;
  if (place == ClientConnection::kNotAwaited) return;
  awaited_[place] = awaited_.back();
  awaited_[place]->awaited_place = place;
  awaited_.pop_back();
  connection.awaited_place = ClientConnection::kNotAwaited;
}

void Worker::look_after_awaited() {
  if (awaited_.empty()) return;
  using Progress = ClientConnection::Progress;
  const MonotonicTime now = loop_.now();
  std::vector<std::pair<ClientConnection*, Progress>> slow;
  for (std::size_t i = awaited_.size(); i-- > 0;) {
    const Progress progress = awaited_[i]->look(settings().limits, now);
    if (progress == Progress::not_awaited)
      forget_awaited(*awaited_[i]);
    else if (progress != Progress::fast_enough)
      slow.emplace_back(awaited_[i], progress);
  }
  // Cutting one off may end others.
  for (const auto& [connection, progress] : slow)
    if (connections_.contains(connection)) connection->cut(progress);
}

void Worker::on_lag_timer(void* self) {
  auto* worker = static_cast<Worker*>(self);
  const MonotonicTime now = worker->loop_.now();
  worker->overload_.observe_lag(worker->overload_rules_, now - worker->lag_due_, now);
  if (worker->options_.on_loop_delay) worker->options_.on_loop_delay(worker->index_, now - worker->lag_due_);
  worker->lag_due_ = now + kLagInterval;
  worker->loop_.set(worker->lag_timer_, worker->lag_due_);
}

void Worker::look_at_memory() {
  const bool was_short = overload_.short_of_memory();
  overload_.observe_memory(overload_rules_, private_memory());
  // What was freed in small pieces is ours until the allocator hands it back; without that a peak would last.
  if (was_short && index_ == 0) ::malloc_trim(0);
}

void Worker::tell_overload() {
  counters_.lag_nanoseconds.store(
      static_cast<std::uint64_t>(std::max<std::int64_t>(overload_.lag().count(), 0)),
      std::memory_order_relaxed);
  const flow::Shed level = overload_.level();
  if (level == shed_told_) return;
  shed_told_ = level;
  counters_.shed_level.store(static_cast<std::uint64_t>(level), std::memory_order_relaxed);
  if (level == flow::Shed::nothing) return log("info", fmt::format("worker {} keeps up again", index_));
  log("warning",
      fmt::format("worker {} answers {} with 503: {}", index_,
                  level == flow::Shed::anonymous ? "requests without a token" : "all requests",
                  overload_.short_of_memory()
                      ? "memory is short"
                      : fmt::format("it is {} ms late",
                                    std::chrono::duration_cast<Milliseconds>(overload_.lag()).count())));
}

void Worker::add_idle(ClientConnection& connection) {
  connection.idle_before = idle_last_;
  connection.idle_after = nullptr;
  (idle_last_ == nullptr ? idle_first_ : idle_last_->idle_after) = &connection;
  idle_last_ = &connection;
}

void Worker::remove_idle(ClientConnection& connection) {
  (connection.idle_before == nullptr ? idle_first_ : connection.idle_before->idle_after) =
      connection.idle_after;
  (connection.idle_after == nullptr ? idle_last_ : connection.idle_after->idle_before) =
      connection.idle_before;
  connection.idle_before = connection.idle_after = nullptr;
}

void Worker::close_silent() {
  std::vector<ClientConnection*> idle;
  for (ClientConnection* one = idle_first_; one != nullptr; one = one->idle_after) idle.push_back(one);
  // Serving one may make room by closing another.
  for (ClientConnection* one : idle)
    if (connections_.contains(one) && one->is_idle()) one->close_when_silent();
}

void Worker::linger_began() {
  ++lingering_;
  note_ended();
}

void Worker::on_entrance_timer(void* self) {
  auto* worker = static_cast<Worker*>(self);
  worker->listeners_.clear();
  worker->note_ended();
}

void Worker::note_ended() {
  if (!when_empty_ || !listeners_.empty() ||
      connections_.size() > (queues_ == Queues::leave ? lingering_ : 0))
    return;
  auto done = std::move(when_empty_);
  when_empty_ = nullptr;
  done();
}

void Worker::remove(ClientConnection& connection) {
  auto found = connections_.find(&connection);
  CHECK(found != connections_.end(), "a worker removes its own connections, once");
  std::erase(later_, &connection);
  std::ranges::replace(senders_, &connection, nullptr);
  std::shared_ptr<ClientConnection> owned = std::move(found->second);
  connections_.erase(found);
  counters_.open.fetch_sub(1, std::memory_order_relaxed);
  loop_.defer([owned] {});
  note_ended();
  if (listeners_paused_ && connections_.size() < connections_max_ + kOverCapAllowance / 2) {
    listeners_paused_ = false;
    for (auto& listener : listeners_)
      if (listener != nullptr) listener->resume();
  }
}

void Worker::advance_later(ClientConnection* connection) {
  if (connection == nullptr || stopped_) return;
  later_.push_back(connection);
  if (later_.size() > 1) return;
  loop_.defer([this] {
    std::vector<ClientConnection*> due;
    due.swap(later_);
    // Each may close others that are due too.
    while (!due.empty()) {
      ClientConnection* next = due.back();
      due.pop_back();
      if (connections_.contains(next)) next->advance();
    }
  });
}

void Worker::send_later(ClientConnection& connection) {
  if (connection.sends_later) return;
  connection.sends_later = true;
  senders_.push_back(&connection);
  if (senders_.size() == 1) loop_.want_turn_end();
}

void Worker::send_all() {
  sending_ = true;
  for (std::size_t i = 0; i < senders_.size(); ++i) {
    ClientConnection* connection = senders_[i];  // each may close others
    if (connection == nullptr) continue;
    connection->sends_later = false;
    connection->advance();
  }
  senders_.clear();
  sending_ = false;
}

std::unique_ptr<Session> Worker::lend_session() {
  if (sessions_.empty()) return std::make_unique<Session>(*this);
  std::unique_ptr<Session> session = std::move(sessions_.back());
  sessions_.pop_back();
  return session;
}

void Worker::take_session(std::unique_ptr<Session> session) {
  if (sessions_.size() < kSessionsKept && !stopped_) return sessions_.push_back(std::move(session));
  // Its functions may be below us on the stack.
  std::shared_ptr<Session> owned = std::move(session);
  loop_.defer([owned] {});
}

// ---------------------------------------------------------------- the rest

void Worker::record(const usage::Fact& fact) {
  for (auto& sink : sinks_) sink->record(fact);
}

void Worker::life_ended(const flow::Life& life) {
  if (life.sampled() && options_.on_life) options_.on_life(index_, life);
}

std::string_view Worker::date() {
  const UnixTime now = loop_.unix_now();
  const std::int64_t second = unix_seconds(now);
  if (second != date_second_) {
    date_second_ = second;
    date_ = http::format_date(now);
  }
  return date_;
}

void Worker::on_tick(void* self) {
  auto* worker = static_cast<Worker*>(self);
  worker->tick();
  worker->loop_.set(worker->tick_timer_, kTick);
}

void Worker::tick() {
  if (gate_ != nullptr) {
    counters_.token_cache_hits.store(gate_->token_cache_hits(), std::memory_order_relaxed);
    counters_.token_cache_misses.store(gate_->token_cache_misses(), std::memory_order_relaxed);
  }
  if (!stopped_) {
    look_after_awaited();
    look_at_memory();
    tell_overload();
  }
  if (session_store_ != nullptr) session_store_->tick(loop_.unix_now());
  if (options_.on_tick && !detached_) options_.on_tick(index_);
}

void Worker::log(std::string_view level, std::string_view text) const {
  if (options_.log) options_.log(level, text);
}

}  // namespace tollgate::net
