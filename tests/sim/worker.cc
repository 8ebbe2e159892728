#include "tests/sim/worker.h"

#include <algorithm>

namespace tollgate::sim {
namespace {

quota::LeaseOptions engine_options(const Scenario& scenario, const Proxy& proxy, unsigned index,
                                   unsigned engines) {
  quota::LeaseOptions options = scenario.lease;
  options.incarnation = proxy.incarnation();
  options.engines = engines;
  options.index = index;
  options.seed = scenario.seed * 100 + proxy.index() * 10 + index + 1;
  return options;
}

quota::LeaseLedgerOptions ledger_options(const Scenario& scenario, unsigned index) {
  quota::LeaseLedgerOptions options = scenario.ledger;
  options.worker = index;
  return options;
}

}  // namespace

Proxy::Worker::Worker(Proxy& owner, quota::LeaseTable& table, unsigned worker_index, unsigned engines)
    : proxy(owner),
      index(worker_index),
      link(owner, worker_index),
      engine(table, link, owner.log(), engine_options(owner.around().scenario, owner, worker_index, engines)),
      ledger(
          table, *this, [&owner] { return owner.mono(); },
          ledger_options(owner.around().scenario, worker_index)) {}

void Proxy::Worker::start() {
  life = proxy.life();
  link.connect_after(Milliseconds(1));
  enter([] {});
}

void Proxy::Worker::tick() {
  const Duration now = proxy.around().queue.now();
  if (now - ledger_ticked_ >= Seconds(1)) {
    ledger_ticked_ = now;
    ledger.tick();
  }
  ++depth;  // answers given in the tick may come back in
  const MonotonicTime at_now = proxy.mono();
  const MonotonicTime due = engine.tick(at_now);
  --depth;
  Duration when = std::max(proxy.true_time(due), now + std::chrono::microseconds(50));
  if (due >= at_now + Milliseconds(990) && !joins()) when += proxy.around().scenario.tick_slack;
  wake_at(when);
}

bool Proxy::Worker::joins() const {
  using State = quota::LeaseEngine::PartitionStatus::State;
  return std::ranges::any_of(proxy.around().partitions, [this](unsigned partition) {
    if (!engine.owns(partition)) return false;
    const State state = engine.status(partition).state;
    return state == State::joining || state == State::replaying;
  });
}

void Proxy::Worker::wake_at(Duration when) {
  EventQueue& queue = proxy.around().queue;
  if (wakes_at_ > queue.now() && wakes_at_ <= when) return;
  wakes_at_ = when;
  queue.at(when, [this_proxy = &proxy, which = index, alive = life, when] {
    this_proxy->deliver(alive, [which, when](Life& living) {
      Worker& worker = *living.workers[which];
      if (worker.wakes_at_ != when) return;  // an earlier one was asked for meanwhile
      worker.wakes_at_ = Duration(0);
      worker.enter([] {});
    });
  });
}

void Proxy::Worker::at(unsigned worker, std::function<void(Worker&)> action) {
  Surroundings& around = proxy.around();
  around.queue.after(std::chrono::microseconds(2 + around.random.below(30)),
                     [this_proxy = &proxy, alive = life, worker, action = std::move(action)] {
                       this_proxy->deliver(
                           alive, [worker, action](Life& living) { action(*living.workers[worker]); });
                     });
}

Proxy::Worker& Proxy::Worker::owner_of(unsigned partition) {
  return *proxy.life_->workers[partition % proxy.workers()];
}

void Proxy::Worker::request(quota::AccountRef account, std::uint32_t units, std::uint64_t rule_limit,
                            quota::LeaseEngine::Done done) {
  Worker& owner = owner_of(account->subject->partition);
  if (&owner == this)
    return enter([&] { engine.request(account, units, rule_limit, proxy.mono(), std::move(done)); });
  auto answer = [this, asker = index, done = std::move(done)](quota::LeaseEngine::Answer said) {
    at(asker, [done, said](Worker& worker) { worker.enter([&] { done(said); }); });
  };
  at(owner.index, [account, units, rule_limit, answer](Worker& worker) {
    worker.enter([&] { worker.engine.request(account, units, rule_limit, worker.proxy.mono(), answer); });
  });
}

void Proxy::Worker::prefetch(quota::AccountRef account) {
  Worker& owner = owner_of(account->subject->partition);
  auto ask = [account](Worker& worker) {
    worker.enter([&] { worker.engine.prefetch(account, worker.proxy.mono()); });
  };
  &owner == this ? ask(*this) : at(owner.index, ask);
}

void Proxy::Worker::limit_changed(quota::AccountRef account, std::uint64_t rule_limit) {
  Worker& owner = owner_of(account->subject->partition);
  auto tell = [account, rule_limit](Worker& worker) {
    worker.enter([&] { worker.engine.limit_changed(account, rule_limit, worker.proxy.mono()); });
  };
  &owner == this ? tell(*this) : at(owner.index, tell);
}

void Proxy::Worker::take_back(quota::AccountRef account, std::int64_t bucket, std::uint32_t units) {
  Worker& owner = owner_of(account->subject->partition);
  std::int64_t& under_way = proxy.under_way_[{account->subject->key, account->field}];
  under_way += units;
  auto tell = [account, bucket, units, &under_way](Worker& worker) {
    under_way -= units;
    worker.enter([&] { worker.engine.take_back(account, bucket, units, worker.proxy.mono()); });
  };
  &owner == this ? tell(*this) : at(owner.index, tell);
}

void Proxy::Worker::settle(std::string subject_key, std::function<void(bool)> done) {
  Worker& owner = owner_of(quota::partition_of(subject_key));
  if (&owner == this) return enter([&] { engine.settle(subject_key, false, proxy.mono(), std::move(done)); });
  auto answer = [this, asker = index, done = std::move(done)](bool settled) {
    at(asker, [done, settled](Worker& worker) { worker.enter([&] { done(settled); }); });
  };
  at(owner.index, [subject_key, answer](Worker& worker) {
    worker.enter([&] { worker.engine.settle(subject_key, false, worker.proxy.mono(), answer); });
  });
}

bool Proxy::Worker::store_up(unsigned partition) const {
  return proxy.life_->workers[partition % proxy.workers()]->link.connected();
}

void Proxy::Worker::read(std::vector<quota::AccountCharge> accounts,
                         std::function<void(Result<std::vector<quota::LeaseState>>&&)> done) {
  if (!link.connected()) return done(fail(Origin::store, "not connected", true));
  Surroundings& around = proxy.around();
  around.queue.after(around.scenario.delay_max * 2, [this_proxy = &proxy, alive = life, which = index,
                                                     accounts = std::move(accounts), done = std::move(done)] {
    this_proxy->deliver(alive, [this_proxy, which, accounts, done](Life& living) {
      Worker& worker = *living.workers[which];
      worker.enter([&] {
        if (!worker.link.connected()) return done(fail(Origin::store, "not connected", true));
        done(this_proxy->around().server.backend().read(accounts));
      });
    });
  });
}

void Proxy::Worker::list(std::string, std::string, Milliseconds, Milliseconds, quota::Ledger::ListDone done) {
  done(fail(Origin::store, "the simulator's clients do not list", false));
}

std::shared_ptr<void> Proxy::Worker::timer(Milliseconds after, std::function<void()> expired) {
  auto token = std::make_shared<std::function<void()>>(std::move(expired));
  const Duration when = proxy.true_time(proxy.mono() + after);
  proxy.around().queue.at(when,
                          [this_proxy = &proxy, alive = life, which = index, weak = std::weak_ptr(token)] {
                            this_proxy->deliver(alive, [which, weak](Life& living) {
                              auto held = weak.lock();
                              if (held == nullptr) return;
                              Worker& worker = *living.workers[which];
                              worker.enter([&] { (*held)(); });
                            });
                          });
  return token;
}

}  // namespace tollgate::sim
