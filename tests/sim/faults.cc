// What befalls the simulated world, and what must not happen at the same time (scenario.h).
#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/worker.h"
#include "tests/sim/world.h"

namespace tollgate::sim {

void World::each(unsigned count, std::function<void()> fault) {
  const auto length = static_cast<std::uint64_t>(scenario_.length.count());
  for (unsigned i = 0; i < count; ++i)
    queue_.at(Duration(static_cast<std::int64_t>(length / 50 + random_.below(length - length / 20))),
              [this, fault] {
                if (around_->peace || result_.violation) return;
                ++result_.faults;
                last_trouble_ = queue_.now();
                fault();
              });
}

Proxy* World::any_proxy() {
  std::vector<Proxy*> alive;
  for (auto& proxy : proxies_)
    if (proxy->alive()) alive.push_back(proxy.get());
  return alive.empty() ? nullptr : alive[random_.below(alive.size())];
}

Duration World::any_duration(Duration least, Duration most) {
  if (most <= least) return least;
  // Short ones are as frequent as long ones: the exponent is uniform.
  Duration length = most;
  while (length > least && random_.one_in(2)) length /= 4;
  length = std::max(length, least);
  return Duration(static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(length.count())))) +
         least / 2;
}

// Nothing is missing anywhere and the store's clock is believed: another thing may go wrong.
bool World::calm() const {
  return queue_.now() >= step_until_ && !server_->unsettled();
}

void World::schedule_faults() {
  schedule_faults_of_proxies();
  schedule_faults_of_server();
  schedule_changes();
}

void World::schedule_faults_of_proxies() {
  const Faults& f = scenario_.faults;
  const Duration session = scenario_.lease.session_ttl;
  each(f.cuts, [this] {
    if (Proxy* proxy = any_proxy()) proxy->cut_links(random_.below(100) < scenario_.faults.ghost_percent);
  });
  each(f.stalls, [this] {
    Proxy* proxy = any_proxy();
    if (proxy == nullptr) return;
    Proxy::Worker& worker = proxy->worker(static_cast<unsigned>(random_.below(proxy->workers())));
    worker.link.stall(any_duration(Milliseconds(20), scenario_.stall_timeout * 2));
  });
  each(f.halves, [this] {
    Proxy* proxy = any_proxy();
    if (proxy == nullptr) return;
    trace_.line(queue_.now(), "proxy {} hears nothing any more", proxy->index());
    proxy->worker(static_cast<unsigned>(random_.below(proxy->workers()))).link.lose_replies();
  });
  each(f.kills, [this] {
    Proxy* proxy = any_proxy();
    if (proxy != nullptr && calm()) kill_and_restart(*proxy);
  });
  each(f.inner_kills, [this] {
    Proxy* proxy = any_proxy();
    if (proxy != nullptr && calm()) proxy->arm_fuse(static_cast<unsigned>(1 + random_.below(12)));
  });
  each(f.losses, [this] { lose_a_proxy(); });
  each(f.pauses, [this, session] {
    Proxy* proxy = any_proxy();
    if (proxy == nullptr || !calm()) return;
    const Duration length = any_duration(Milliseconds(5), session * 2);
    trace_.line(queue_.now(), "proxy {} stands still for {} ms", proxy->index(), length / Milliseconds(1));
    proxy->pause(length);
  });
  each(f.partitions, [this, session] {
    Proxy* proxy = any_proxy();
    if (proxy == nullptr || !calm()) return;
    const Duration length = any_duration(Seconds(1), session * 2);
    trace_.line(queue_.now(), "proxy {} cannot reach the store for {} ms", proxy->index(),
                length / Milliseconds(1));
    proxy->cut_off(length);
    proxy->cut_links(random_.below(100) < scenario_.faults.ghost_percent);
  });
  each(f.full, [this] {
    Proxy* proxy = any_proxy();
    if (proxy == nullptr) return;
    trace_.line(queue_.now(), "proxy {}: the disk is full", proxy->index());
    proxy->log().full = true;
    queue_.after(any_duration(Milliseconds(100), 2 * Duration(scenario_.lease.flush_interval)),
                 [proxy] { proxy->log().full = false; });
  });
}

void World::schedule_faults_of_server() {
  const Faults& f = scenario_.faults;
  each(f.failovers, [this] { lose_data(false); });
  each(f.flushes, [this] { lose_data(true); });
  each(f.restarts, [this] {  // nothing is lost, but the run is another one
    if (!calm() || !server_->up()) return;
    trace_.line(queue_.now(), "the store restarts with all it had");
    server_->new_run();
    for (auto& proxy : proxies_) proxy->cut_links(false);
  });
  each(f.outages, [this] { outage(); });
  each(f.skews, [this] {
    if (queue_.now() < step_until_) return;
    server_->set_offset(Milliseconds(random_.below(static_cast<std::uint64_t>(scenario_.guard_min.count()))));
    trace_.line(queue_.now(), "the store's clock is {} ms ahead", server_->offset().count());
  });
  each(f.steps, [this] { clock_step(); });
}

void World::schedule_changes() {
  const Faults& f = scenario_.faults;
  each(f.limits, [this] { change_limit(false); });
  each(f.grants, [this] { change_limit(true); });
  each(f.reloads, [this] { reload(); });
}

void World::kill_and_restart(Proxy& proxy) {
  if (!proxy.alive()) return;
  proxy.kill();
}

// How long a dead proxy stays dead: mostly seconds, sometimes longer than its session, seldom longer than a window.
void World::restart_after(Proxy& proxy, Duration delay) {
  queue_.after(delay, [this, &proxy] {
    if (proxy.alive()) return;
    if (queue_.now() < step_until_) return restart_after(proxy, step_until_ - queue_.now() + Milliseconds(1));
    const unsigned engines =
        random_.one_in(3) ? static_cast<unsigned>(1 + random_.below(3)) : scenario_.engines;
    trace_.line(queue_.now(), "proxy {} starts as {} with {} engines", proxy.index(), proxy.incarnation(),
                engines);
    proxy.start(engines);
  });
}

void World::lose_a_proxy() {
  Proxy* proxy = any_proxy();
  if (proxy == nullptr || !calm()) return;
  proxy->kill();
  trace_.line(queue_.now(), "proxy {} loses its disk", proxy->index());
  for (const auto& [name, units] : proxy->log().totals()) {
    lost_totals_[name] += units;
    truth_.accounts().at(name).lost = true;
    truth_.accounts().at(name).lost_at = queue_.now();
  }
  for (const quota::LeaseCell& cell : proxy->cells()) {
    if (!cell.in_use()) continue;
    TruthAccount& account = truth_.accounts().at(std::string(cell.name()));
    account.lost = true;
    account.lost_at = queue_.now();
  }
  server_->journal_lost(proxy->incarnation());
  proxy->lose();
}

void World::lose_data(bool flush) {
  if (!calm() || !server_->up() || (flush && !server_->may_flush())) return;
  // Whoever held something must be there to tell it again.
  for (auto& proxy : proxies_) {
    if (!proxy->alive() || proxy->paused() || !proxy->reachable() || proxy->log().full) return;
    for (unsigned i = 0; i < proxy->workers(); ++i)
      if (!proxy->worker(i).link.connected()) return;
    proxy->disarm();
  }
  ++result_.data_losses;
  if (flush) {
    trace_.line(queue_.now(), "the store is flushed");
    server_->flush();
  } else {
    const auto age = server_->fall_back(random_);
    trace_.line(queue_.now(), "failover to a copy {} ms old", age ? *age / Milliseconds(1) : 0);
    if (age && !around_->peace && queue_.now() >= step_until_ && random_.one_in(2))
      server_->set_offset(
          Milliseconds(random_.below(static_cast<std::uint64_t>(scenario_.guard_min.count()))));
    for (auto& proxy : proxies_) proxy->cut_links(random_.below(100) < scenario_.faults.ghost_percent);
  }
  // Overrides are the administrator's: they are set again.
  for (const auto& [name, value] : overrides_) {
    quota::LimitOverride again{value.first, value.second};
    const auto key = truth_.accounts().at(name).key;
    server_->backend().set_override(key, again.empty() ? std::nullopt : std::optional(again));
  }
  publish();
}

void World::outage() {
  if (!calm() || !server_->up()) return;
  const Duration length = any_duration(Milliseconds(200), 2 * Duration(scenario_.lease.session_ttl));
  trace_.line(queue_.now(), "the store is down for {} ms", length / Milliseconds(1));
  server_->go_down();
  for (auto& proxy : proxies_) proxy->cut_links(false);
  queue_.after(length, [this] {
    if (random_.one_in(2)) server_->new_run();
    server_->come_up();
    last_trouble_ = queue_.now();
    trace_.line(queue_.now(), "the store is up again, {}", server_->run());
  });
}

// The store's clock jumps beyond the guard and comes back: nothing may be granted in between.
void World::clock_step() {
  if (!calm() || !server_->up()) return;
  for (auto& proxy : proxies_)
    if (!proxy->alive() || proxy->paused() || !proxy->reachable()) return;
  for (auto& proxy : proxies_) proxy->disarm();
  const Milliseconds before = server_->offset();
  Milliseconds jump = Milliseconds(4'000 + random_.below(random_.one_in(2) ? 20'000 : 3'600'000));
  if (random_.one_in(2)) jump = -jump;
  const Duration length = any_duration(
      Seconds(1), std::min<Duration>(Duration(scenario_.lease.session_ttl) / 3, std::chrono::minutes(5)));
  step_until_ = queue_.now() + length + Milliseconds(1);
  server_->set_offset(before + jump);
  trace_.line(queue_.now(), "the store's clock jumps by {} ms for {} ms", jump.count(),
              length / Milliseconds(1));
  queue_.after(length, [this, before] {
    server_->set_offset(before);
    last_trouble_ = queue_.now();
    trace_.line(queue_.now(), "the store's clock is right again");
  });
}

void World::change_limit(bool grant) {
  if (!server_->up() || queue_.now() < step_until_) return;  // a grant ends by the store's clock
  auto& accounts = truth_.accounts();
  auto chosen = std::next(accounts.begin(), static_cast<std::ptrdiff_t>(random_.below(accounts.size())));
  TruthAccount& account = chosen->second;
  if (!account.limited) return;
  auto& [limit, grants] = overrides_[chosen->first];
  if (grant) {
    const Duration length = any_duration(Seconds(2), 2 * Duration(account.shape.window));
    grants.push_back({1 + random_.below(20), server_->clock() + std::chrono::ceil<Milliseconds>(length)});
    queue_.after(length, [this, name = chosen->first, over = grants.back()] {
      auto& held = overrides_[name].second;
      std::erase(held, over);
      TruthAccount& later = truth_.accounts().at(name);
      std::uint64_t sum = overrides_[name].first.value_or(later.rule_limit);
      for (const auto& g : held) sum += g.extra;
      truth_.set_limit(later, queue_.now(), sum);
    });
  } else if (limit && random_.one_in(3)) {
    limit.reset();
  } else {
    limit = 1 + random_.below(2 * account.rule_limit);
  }
  std::uint64_t sum = limit.value_or(account.rule_limit);
  for (const auto& g : grants) sum += g.extra;
  truth_.set_limit(account, queue_.now(), sum);
  quota::LimitOverride value{limit, grants};
  trace_.line(queue_.now(), "{} {}: limit override {} -> {}", account.key.subject_key, account.key.field,
              value.format(), sum);
  server_->backend().set_override(account.key, value.empty() ? std::nullopt : std::optional(value));
  publish();
}

// The rules of the configuration change on every proxy.
void World::reload() {
  Client& client = clients_[random_.below(clients_.size())];
  auto& charge = client.charges[random_.below(client.charges.size())];
  if (charge.limit == quota::kUnlimited) return;
  TruthAccount& account = *truth_.find(charge.key);
  if (overrides_.contains(name_of(charge.key))) return;  // the override wins: nothing would change
  const std::uint64_t limit = 1 + random_.below(2 * account.rule_limit);
  trace_.line(queue_.now(), "{} {}: rule limit {} -> {}", charge.key.subject_key, charge.key.field,
              charge.limit, limit);
  for (Client& each_client : clients_)
    for (auto& other : each_client.charges)
      if (other.key == charge.key) other.limit = limit;
  account.rule_limit = limit;
  truth_.set_limit(account, queue_.now(), limit);
}

}  // namespace tollgate::sim
