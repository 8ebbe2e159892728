// RedisStore, leases: messages of partitions on their way to a server and back, and when a partition is up.
#include "metering/redis/redis_store.h"

#include <event2/event.h>
#include <fmt/format.h>

#include <algorithm>

#include "metering/base/check.h"
#include "metering/redis/redis_store_impl.h"
#include "metering/redis/sentinel.h"

namespace tollgate::redis {
namespace {

constexpr Milliseconds kSoon{0};
constexpr Milliseconds kPause{
    50};  // after a refusal that only time cures: TRYAGAIN, CLUSTERDOWN, too few replicas

Link::Options link_options(const RedisStoreOptions& options) {
  const Scripts& s = options.scripts;
  return {.connection = options.connection,
          .scripts = {&s.op, &s.replay, &s.ping, &s.states, &s.accounts, &s.set_override, &s.reset,
                      &s.seat_take, &s.seat_renew, &s.seat_release, &s.seat_leave, &s.seat_list,
                      &s.seat_invite, &s.seat_settle},
          .confirm = options.durability == Durability::wait,
          .min_replicas = options.min_replicas,
          .wait_timeout = options.wait_timeout};
}

}  // namespace

RedisStore::Impl::Impl(event_base* base, RedisStoreOptions options, LeaseStoreEvents& events,
                       std::function<bool(unsigned partition)> mine)
    : base_(base),
      options_(std::move(options)),
      events_(events),
      random_(options_.connection.seed),
      topology_(base, link_options(options_),
                {.changed = [this](Link& link, bool up) { link_changed(link, up); },
                 .reassigned = [this](unsigned p) { bounce(p, kSoon, "another node serves it now"); },
                 .joined =
                     [this](const StoreUrl& server) {
                       ConnectionOptions to = options_.connection;
                       to.url = server;
                       listen_to(server, std::move(to));
                     },
                 .left = [this](const StoreUrl& server) { subscriptions_.erase(server.describe()); }}) {
  for (unsigned p = 0; p < quota::kPartitions; ++p) partitions_[p].mine = mine(p);
  up_event_ = evtimer_new(base_, &Impl::up_event, this);
  refused_event_ = event_new(base_, -1, 0, &Impl::refused_event, this);
  CHECK(up_event_ != nullptr && refused_event_ != nullptr, "event_new");
}

RedisStore::Impl::~Impl() {
  event_free(up_event_);
  event_free(refused_event_);
}

void RedisStore::Impl::start() {
  if (!topology_.cluster()) listen_to(options_.connection.url, with_locator(base_, options_.connection));
  topology_.start();
}

void RedisStore::Impl::listen_to(const StoreUrl& server, ConnectionOptions options) {
  if (!options_.subscribe) return;
  options.seed = random_.next();
  std::vector<std::string> channels{std::string(kPolicyChannel), std::string(kRoomChannel),
                                    std::string(kFenceChannel)};
  if (options_.incarnation != 0) channels.push_back(recall_channel(options_.incarnation));
  auto& subscription = subscriptions_[server.describe()];
  subscription = std::make_unique<Subscription>(
      base_, std::move(options), std::move(channels),
      [this](std::string_view channel, std::string_view body) {
        auto message = parse_message(channel, body);
        if (!message) return;  // somebody else's
        ++counters_.messages;
        events_.on_message(*message);
      },
      [this] { events_.on_subscribed(); });
  subscription->start();
}

// ------------------------------------------------------------------------------------ messages and replies

void RedisStore::Impl::send(unsigned partition, const Script& script, const ScriptCall& call, Told told) {
  CHECK(partition < quota::kPartitions && partitions_[partition].mine, "not a partition of this store");
  Partition& where = partitions_[partition];
  Link* link = topology_.of(partition);
  // The engine may not have been told yet; what is sent now would be told lost in the next moment.
  if (!where.up || link == nullptr || !link->up() || refused_.contains(partition)) return;
  auto message = std::make_shared<Message>(Message{.partition = partition,
                                                   .generation = where.generation,
                                                   .command = encode_script(script, call.keys, call.args),
                                                   .sent = Connection::now(),
                                                   .told = std::move(told)});
  ++counters_.commands;
  ++sending_;
  transmit(std::move(message), *link, false);
  --sending_;
}

void RedisStore::Impl::transmit(std::shared_ptr<Message> message, Link& link, bool asking) {
  Milliseconds limit = options_.connection.stall_timeout;
  StoreUrl from = link.server();
  auto command = message->command;
  link.send({.command = std::move(command),
             .deadline = Connection::now() + limit,
             .timeout = limit,
             .durable = true,
             .vital = true,
             .asking = asking,
             .done = [this, message = std::move(message), from = std::move(from)](Result<Reply*> reply) {
               answered(message, from, std::move(reply));
             }});
}

void RedisStore::Impl::answered(const std::shared_ptr<Message>& message, const StoreUrl& from,
                                Result<Reply*> reply) {
  unsigned p = message->partition;
  if (partitions_[p].generation != message->generation) return;  // forgotten meanwhile
  if (!reply) return bounce(p, kPause, reply.error().message);
  ++counters_.replies;
  if (round_trip_) round_trip_(Connection::now() - message->sent);
  Reply& answer = **reply;
  if (!answer.is_error()) {
    if (!error_.empty() && all_up()) error_.clear();
    return message->told(answer);
  }
  ++counters_.errors;
  if (auto redirection = topology_.cluster()
                             ? parse_redirection(answer, {.host = from.host, .port = from.port})
                             : std::nullopt) {
    ++counters_.redirections;
    if (!redirection->ask) {
      bounce(p, kSoon, answer.text);
      return topology_.moved(*redirection);
    }
    Link& link = topology_.at(redirection->to);
    if (message->asked || !link.up()) return bounce(p, kPause, answer.text);
    message->asked = true;
    return transmit(message, link, true);
  }
  if (answer.is_error("TRYAGAIN") || answer.is_error("CLUSTERDOWN") || answer.is_error("MASTERDOWN") ||
      answer.is_error("READONLY")) {
    bounce(p, kPause, answer.text);
    return topology_.look_again();
  }
  failed(p, answer.text);
}

void RedisStore::Impl::failed(unsigned partition, const std::string& what) {
  error_ = what;
  events_.on_error(partition, what);
}

// ------------------------------------------------------------------------------------ up and down

void RedisStore::Impl::take_down(unsigned partition) {
  Partition& where = partitions_[partition];
  ++where.generation;
  if (!where.up) return;
  where.up = false;
  events_.on_down(partition);
}

void RedisStore::Impl::bounce(unsigned partition, Milliseconds pause, const std::string& why) {
  Partition& where = partitions_[partition];
  if (!where.mine) return;
  error_ = why;
  auto ms = static_cast<std::uint64_t>(pause.count());
  where.up_at = Connection::now() + Milliseconds(ms / 2 + random_.below(ms / 2 + 1));
  if (sending_ > 0) {  // nothing is told from inside send()
    refused_.insert(partition);
    event_active(refused_event_, EV_TIMEOUT, 0);
    return;
  }
  take_down(partition);
  bring_up();
}

void RedisStore::Impl::refused_event(int, short, void* self) {
  auto* impl = static_cast<Impl*>(self);
  std::set<unsigned> refused = std::move(impl->refused_);
  impl->refused_.clear();
  for (unsigned p : refused) impl->take_down(p);
  impl->bring_up();
}

// Nothing is told from here but from the loop: a caller may be in the middle of its own change.
void RedisStore::Impl::bring_up() {
  MonotonicTime next = MonotonicTime::max();
  for (unsigned p = 0; p < quota::kPartitions; ++p) {
    const Partition& where = partitions_[p];
    Link* link = topology_.of(p);
    if (where.mine && !where.up && link != nullptr && link->up()) next = std::min(next, where.up_at);
  }
  if (next == MonotonicTime::max()) return;
  auto wait =
      std::chrono::ceil<std::chrono::microseconds>(std::max(next - Connection::now(), Duration::zero()));
  timeval interval{.tv_sec = wait.count() / 1'000'000, .tv_usec = wait.count() % 1'000'000};
  event_add(up_event_, &interval);
}

void RedisStore::Impl::up_event(int, short, void* self) {
  auto* impl = static_cast<Impl*>(self);
  MonotonicTime now = Connection::now();
  for (unsigned p = 0; p < quota::kPartitions; ++p) {
    Partition& where = impl->partitions_[p];
    Link* link = impl->topology_.of(p);
    if (!where.mine || where.up || link == nullptr || !link->up() || where.up_at > now) continue;
    where.up = true;
    impl->events_.on_up(p, link->run_id());
  }
  impl->bring_up();
}

void RedisStore::Impl::link_changed(Link& link, bool up) {
  error_.clear();  // the connection's own word is the better one
  if (up) return bring_up();
  for (unsigned p = 0; p < quota::kPartitions; ++p)
    if (topology_.of(p) == &link && partitions_[p].mine) take_down(p);
}

bool RedisStore::Impl::all_up() const {
  return std::ranges::all_of(partitions_, [](const Partition& p) { return !p.mine || p.up; });
}

bool RedisStore::Impl::listening() const {
  return !subscriptions_.empty() &&
         std::ranges::all_of(subscriptions_, [](const auto& one) { return one.second->listening(); });
}

const RedisStore::Counters& RedisStore::Impl::counters() const {
  Link::Counters links = topology_.counters();
  counters_.reconnects = topology_.reconnects();
  counters_.script_loads = links.script_loads;
  counters_.wait_misses = links.wait_misses;
  return counters_;
}

// ------------------------------------------------------------------------------------ outside

RedisStore::RedisStore(event_base* base, RedisStoreOptions options, LeaseStoreEvents& events,
                       std::function<bool(unsigned partition)> mine)
    : impl_(std::make_unique<Impl>(base, std::move(options), events, std::move(mine))) {}
RedisStore::~RedisStore() = default;

void RedisStore::start() {
  impl_->start();
}

void RedisStore::send(const quota::Op& op, const quota::SendContext& context) {
  MonotonicTime sent = Connection::now();
  impl_->send(op.partition, impl_->scripts().op, op_call(op, context),
              [impl = impl_.get(), op, sent](Reply& r) {
                auto reply = parse_op(r, op);
                if (!reply) return impl->failed(op.partition, reply.error().message);
                impl->events().on_op(op.partition, op.seq, std::move(*reply), sent);
              });
}

void RedisStore::send(const quota::Replay& replay, const quota::SendContext& context) {
  MonotonicTime sent = Connection::now();
  unsigned partition = replay.op.partition;
  impl_->send(partition, impl_->scripts().replay, replay_call(replay, context),
              [impl = impl_.get(), partition, seq = replay.op.seq, sent](Reply& r) {
                auto reply = parse_replay(r);
                if (!reply) return impl->failed(partition, reply.error().message);
                impl->events().on_replay(partition, seq, std::move(*reply), sent);
              });
}

void RedisStore::send(const quota::Ping& ping, const quota::SendContext& context) {
  MonotonicTime sent = Connection::now();
  impl_->send(ping.partition, impl_->scripts().ping, ping_call(ping, context),
              [impl = impl_.get(), partition = ping.partition, sent](Reply& r) {
                auto reply = parse_ping(r);
                if (!reply) return impl->failed(partition, reply.error().message);
                impl->events().on_ping(partition, std::move(*reply), sent);
              });
}

bool RedisStore::up(unsigned partition) const {
  return impl_->up(partition);
}
bool RedisStore::all_up() const {
  return impl_->all_up();
}
bool RedisStore::listening() const {
  return impl_->listening();
}
const std::string& RedisStore::last_error() const {
  return impl_->last_error();
}
const RedisStore::Counters& RedisStore::counters() const {
  return impl_->counters();
}
void RedisStore::observe_round_trips(std::function<void(Duration)> observer) {
  impl_->round_trip_ = std::move(observer);
}

}  // namespace tollgate::redis
