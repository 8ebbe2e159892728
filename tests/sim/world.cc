#include "tests/sim/world.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/worker.h"

namespace tollgate::sim {

namespace {
constexpr std::uint64_t kEventsMax = 20'000'000;  // ten times what the busiest run needs
}

World::World(const Scenario& scenario, const RunOptions& options)
    : scenario_(scenario),
      random_(Random(~scenario.seed).next()),
      truth_(Duration(scenario.lease.session_ttl + scenario.lease.flush_interval) + Seconds(10)) {
  trace_.on = options.trace;
  auto clock = [this] { return server_->clock(); };
  auto violated = [this](std::string what) { violation(std::move(what)); };
  server_ = std::make_unique<Server>(
      scenario_, queue_, trace_, options.backend ? options.backend(clock) : make_model_backend(clock),
      violated,
      [this](quota::Incarnation incarnation, unsigned partition, std::uint64_t seq) -> const quota::Op* {
        for (const auto& proxy : proxies_)
          if (proxy->incarnation() == incarnation) return proxy->log().find(partition, seq);
        return nullptr;
      });
  around_ = std::make_unique<Surroundings>(Surroundings{scenario_,
                                                        queue_,
                                                        random_,
                                                        trace_,
                                                        *server_,
                                                        {},
                                                        violated,
                                                        [this] { publish(); },
                                                        [this] { count_listeners(); },
                                                        [this](const quota::Op& op) { note(op); }});
  make_clients();
  for (const auto& [name, account] : truth_.accounts()) {
    const unsigned partition = quota::partition_of(account.key.subject_key);
    if (std::find(around_->partitions.begin(), around_->partitions.end(), partition) ==
        around_->partitions.end())
      around_->partitions.push_back(partition);
  }
  for (unsigned i = 0; i < scenario_.proxies; ++i) {
    proxies_.push_back(std::make_unique<Proxy>(*around_, i));
    Proxy& proxy = *proxies_.back();
    proxy.on_death = [this, &proxy](bool inner) {
      on_death(proxy, inner);
      if (around_->peace) return;
      const Duration most =
          random_.one_in(4) ? 2 * Duration(scenario_.lease.session_ttl) : Duration(Seconds(3));
      restart_after(proxy, random_.one_in(20)
                               ? scenario_.window_max + Duration(scenario_.lease.session_ttl) * 2
                               : any_duration(Milliseconds(20), most));
    };
  }
}

World::~World() {
  // The lives hold pointers into the world: they end while it still stands.
  around_->peace = true;
  for (auto& proxy : proxies_) proxy->on_death = nullptr;
  for (auto& proxy : proxies_) proxy->kill();
}

void World::violation(std::string what) {
  if (result_.violation) return;
  trace_.line(queue_.now(), "VIOLATION {}", what);
  result_.violation = std::move(what);
  result_.at = queue_.now();
}

void World::run_until(Duration until) {
  while (!result_.violation && queue_.step(until))
    if (queue_.executed() == kEventsMax) violation("something goes round in circles");
}

// Hands out what the store has published. A message reaches those that listen now and still do when it arrives.
void World::publish() {
  for (const quota::StoreModel::Message& message : server_->backend().take_messages()) {
    for (auto& proxy : proxies_) {
      if (!proxy->listening()) continue;
      if (message.kind == quota::StoreModel::Message::Kind::recall && message.to != proxy->incarnation())
        continue;
      const Duration delay =
          scenario_.delay_min +
          Duration(static_cast<std::int64_t>(random_.below(
              static_cast<std::uint64_t>((scenario_.delay_max - scenario_.delay_min).count()) + 1)));
      queue_.after(delay, [message, &here = *proxy, life = proxy->life()] {
        if (!here.listening()) return;
        here.deliver(life, [&here, message](Proxy::Life& living) {
          using Kind = quota::StoreModel::Message::Kind;
          Proxy::Worker& owner = *living.workers[message.partition % living.workers.size()];
          const MonotonicTime now = here.mono();
          owner.enter([&] {
            if (message.kind == Kind::recall)
              owner.engine.on_recall(message.account.subject_key, message.account.field, now);
            else if (message.kind == Kind::room)
              owner.engine.on_room(message.account.subject_key, message.account.field, now);
            else if (message.kind == Kind::policy)
              owner.engine.on_policy(message.account.subject_key, message.account.field, now);
            else
              owner.engine.on_fence(message.partition, now);
          });
        });
      });
    }
  }
}

void World::count_listeners() {
  std::uint32_t count = 0;
  for (const auto& proxy : proxies_) count += proxy->listening() ? 1 : 0;
  server_->backend().set_listeners(count);
}

void World::harvest(Proxy& proxy) {
  quota::LeaseCounters& sum = result_.counters;
  for (unsigned i = 0; i < proxy.workers(); ++i) {
    const quota::LeaseCounters& c = proxy.engine(i).counters();
    sum.ops += c.ops;
    sum.blocking_ops += c.blocking_ops;
    sum.pings += c.pings;
    sum.replays += c.replays;
    sum.refills += c.refills;
    sum.denials += c.denials;
    sum.recalls += c.recalls;
    sum.lapses += c.lapses;
    sum.gaps += c.gaps;
    sum.fenced += c.fenced;
    sum.clock_off += c.clock_off;
    sum.over += c.over;
    sum.resent += c.resent;
    sum.log_failures += c.log_failures;
  }
}

void World::note(const quota::Op& op) {
  bool asks = false, prefetches = false, returns = false, settles = false;
  for (const quota::OpAccount& account : op.accounts) {
    asks = asks || account.need > 0;
    prefetches = prefetches || account.want > 0;
    returns = returns || account.returned > 0;
    settles = settles || !account.uses.empty();
  }
  Operations& sum = result_.operations;
  if (asks) return;
  ++(prefetches ? sum.prefetching : returns ? sum.handing_back : settles ? sum.settling : sum.telling);
}

void World::live() {
  for (auto& proxy : proxies_) proxy->start(scenario_.engines);
  start_clients();
  schedule_faults();
  for (int i = 1; i <= 100; ++i) queue_.at(scenario_.length / 101 * i, [this] { check_books(); });
  run_until(scenario_.length);
}

RunResult World::measure() {
  live();
  for (auto& proxy : proxies_)
    if (proxy->alive()) harvest(*proxy);
  return result_;
}

RunResult World::run() {
  live();
  if (!result_.violation) heal();
  if (!result_.violation && drain()) check_totals();
  if (!result_.violation) refill();
  for (auto& proxy : proxies_)
    if (proxy->alive()) harvest(*proxy);
  result_.events = queue_.executed();
  result_.store_operations = server_->operations();
  for (auto& proxy : proxies_) result_.deaths += proxy->deaths();
  for (const auto& [name, account] : truth_.accounts())
    if (account.limited &&
        account.most >= static_cast<std::int64_t>(account.highest_limit(Duration(0), queue_.now())))
      ++result_.limits_reached;
  mix(result_.events);
  mix(result_.store_operations);
  mix(truth_.units());
  return result_;
}

}  // namespace tollgate::sim
