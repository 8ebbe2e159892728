// The callers of the simulated world, and what is written down of their calls.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tests/sim/worker.h"
#include "tests/sim/world.h"

namespace tollgate::sim {

void World::make_clients() {
  for (std::size_t u = 0; u < scenario_.users.size(); ++u) {
    const User& user = scenario_.users[u];
    Client client;
    client.random = Random(random_.next());
    const std::string own = quota::subject_key({"acme", std::nullopt, user.name});
    const std::string shared = quota::subject_key({"acme", user.organization, std::nullopt});
    std::uint32_t rule = 0;
    for (const Limit& limit : user.limits) {
      quota::AccountCharge charge;
      charge.key = {limit.organization ? shared : own, limit.field};
      charge.limit = limit.limit;
      charge.window = limit.window;
      charge.bucket = quota::default_bucket(limit.window);
      charge.units = 1;
      charge.rule = rule++;
      charge.shadow = limit.shadow;
      if (truth_.find(charge.key) == nullptr)
        truth_.add(charge.key, {charge.window, charge.bucket}, true, limit.shadow, limit.limit);
      client.charges.push_back(charge);
    }
    if (user.observed) {
      quota::AccountCharge charge;
      charge.key = {own, "#|Case|read"};
      charge.limit = quota::kUnlimited;
      charge.window = user.limits.front().window;
      charge.bucket = quota::default_bucket(charge.window);
      charge.units = 1;
      charge.rule = rule++;
      truth_.add(charge.key, {charge.window, charge.bucket}, false, false, quota::kUnlimited);
      client.charges.push_back(charge);
    }
    clients_.push_back(std::move(client));
  }
}

void World::start_clients() {
  for (std::size_t u = 0; u < clients_.size(); ++u) schedule_call(u);
}

Duration World::pause_before_call(std::size_t u) {
  const User& user = scenario_.users[u];
  Client& client = clients_[u];
  const Limit& limit = user.limits.front();
  const double units = (1.0 + static_cast<double>(user.batch)) / 2;
  const double mean = static_cast<double>(Duration(limit.window).count()) /
                      (static_cast<double>(limit.limit) * user.load / units);
  const double uniform = (static_cast<double>(client.random.below(1'000'000)) + 1) / 1'000'001.0;
  auto exponential = [&](double with_mean) {
    return Duration(static_cast<std::int64_t>(-std::log(uniform) * with_mean));
  };
  switch (user.profile) {
    case Profile::steady:
      return exponential(mean);
    case Profile::office: {
      // A third of each window is the working day.
      Duration wait = exponential(mean / 3);
      const Duration window = limit.window, day = window / 3;
      if ((queue_.now() + wait) % window > day) wait += window - (queue_.now() + wait) % window;
      return wait;
    }
    case Profile::working_day:
    case Profile::storm:
    case Profile::spread:
      return planned_call(u) - queue_.now();
    case Profile::bursts:
      if (client.burst_left > 0) {
        --client.burst_left;
        return Duration(static_cast<std::int64_t>(client.random.below(30'000'000)));
      }
      client.burst_left = static_cast<unsigned>(client.random.below(limit.limit + 2));
      return exponential(mean * (static_cast<double>(client.burst_left) + 1));
  }
  return Seconds(1);
}

// The profiles of the measurements: every day the same number of calls at times that are known beforehand.
Duration World::planned_call(std::size_t u) {
  Client& client = clients_[u];
  if (client.plan.empty()) plan_day(u);
  const Duration at = client.plan.back();
  client.plan.pop_back();
  return at;
}

void World::plan_day(std::size_t u) {
  using std::chrono::hours;
  const User& user = scenario_.users[u];
  Client& client = clients_[u];
  const auto calls = static_cast<std::int64_t>(user.load * static_cast<double>(user.limits.front().limit));
  const Duration midnight = hours(24) * client.day++, morning = midnight + hours(9);
  constexpr std::int64_t kBurst = 25;
  for (std::int64_t i = 0; i < calls; ++i) {
    if (user.profile == Profile::spread) {
      client.plan.push_back(midnight + Duration(hours(24)) * (i * 60 + u % 60) / (calls * 60));
    } else if (user.profile == Profile::storm) {
      client.plan.push_back(morning + Duration(hours(1)) / 60 * (u % 60) + Duration(Seconds(30)) * i / calls);
    } else if (i % kBurst == 0) {
      client.plan.push_back(morning + Milliseconds(client.random.below(8 * 3'600'000)));
    } else {
      client.plan.push_back(client.plan.back() + Seconds(1));
    }
  }
  std::ranges::sort(client.plan, std::greater<>());
}

void World::schedule_call(std::size_t u) {
  queue_.after(pause_before_call(u), [this, u] {
    if (!clients_call_) return;
    Client& client = clients_[u];
    const std::uint32_t batch = scenario_.users[u].batch;
    const auto units = static_cast<std::uint32_t>(1 + client.random.below(batch));
    if (Proxy* proxy = choose_proxy(u)) call(u, *proxy, client.charges, units, nullptr);
    schedule_call(u);
  });
}

Proxy* World::choose_proxy(std::size_t u) {
  Client& client = clients_[u];
  std::size_t first = client.random.below(100) < scenario_.sticky_percent ? u
                      : scenario_.in_turn                                 ? u + client.turn++
                                          : client.random.below(proxies_.size());
  for (std::size_t i = 0; i < proxies_.size(); ++i) {
    Proxy& proxy = *proxies_[(first + i) % proxies_.size()];
    if (proxy.alive() && !proxy.paused()) return &proxy;
  }
  return nullptr;
}

void World::call(std::size_t u, Proxy& proxy, std::vector<quota::AccountCharge> charges, std::uint32_t units,
                 std::function<void(const quota::ChargeOutcome&)> then) {
  const std::uint64_t id = next_call_++;
  ++result_.calls;
  const unsigned worker = static_cast<unsigned>(random_.below(proxy.workers()));
  for (quota::AccountCharge& charge : charges) charge.units = units;
  calls_.emplace(id, Call{u, charges, proxy.index(), worker, queue_.now(), std::move(then)});
  proxy.deliver(proxy.life(), [this, id, worker, charges, &proxy](Proxy::Life& life) {
    Proxy::Worker& here = *life.workers[worker];
    here.enter([&] {
      here.ledger.charge(charges, [this, id, &proxy](quota::ChargeOutcome&& outcome) {
        if (!proxy.dead_inside()) finished(id, std::move(outcome));  // nobody hears a dead process
      });
    });
  });
}

void World::finished(std::uint64_t id, quota::ChargeOutcome&& outcome) {
  auto found = calls_.find(id);
  if (found == calls_.end()) return violation(fmt::format("call {} was answered twice", id));
  const Call call = std::move(found->second);
  calls_.erase(found);
  mix(id * 4 + static_cast<std::uint64_t>(outcome.status));
  if (trace_.on)
    trace_.line(queue_.now(), "call {} of {} at proxy {}: {} units {}{}", id, scenario_.users[call.user].name,
                call.proxy, call.charges.front().units,
                outcome.status == quota::ChargeOutcome::Status::admitted   ? "admitted"
                : outcome.status == quota::ChargeOutcome::Status::exceeded ? "exceeded"
                                                                           : "unavailable: " + outcome.error,
                outcome.degraded ? " degraded" : "");
  switch (outcome.status) {
    case quota::ChargeOutcome::Status::admitted:
      ++result_.admitted;
      write_down(id, call, outcome);
      break;
    case quota::ChargeOutcome::Status::exceeded:
      ++result_.exceeded;
      if (outcome.violated.empty()) violation("a refusal that names no limit");
      break;
    case quota::ChargeOutcome::Status::unavailable:
      ++result_.unavailable;
      if (scenario_.faults == Faults{} && call.at > Seconds(1) && scenario_.delay_max <= Milliseconds(1) &&
          scenario_.proxies == 1)  // several may hand the last tokens to and fro until the call's time is up
        violation("not served in peace: " + outcome.error);
      break;
  }
  if (outcome.status != quota::ChargeOutcome::Status::unavailable &&
      outcome.states.size() != call.charges.size())
    violation(fmt::format("{} states to {} charges", outcome.states.size(), call.charges.size()));
  if (call.then) call.then(outcome);
  if (outcome.status == quota::ChargeOutcome::Status::admitted && !call.then)
    give_back(id, call, std::move(outcome.receipt));
}

void World::write_down(std::uint64_t id, const Call& call, const quota::ChargeOutcome& outcome) {
  for (std::uint32_t index = 0; index < call.charges.size(); ++index) {
    const auto& charge = call.charges[index];
    const auto item = std::ranges::find(outcome.receipt.items, index, &quota::Receipt::Item::charge);
    if (item == outcome.receipt.items.end()) {
      if (!charge.shadow)
        violation(fmt::format("call {} was admitted without {} {} in its receipt", id, charge.key.subject_key,
                              charge.key.field));
      continue;
    }
    TruthAccount& account = *truth_.find(charge.key);
    // No clock was known: it is dated when one is, and until then only the process knows of it.
    const bool undated = item->bucket_number == INT64_MIN;
    if (undated) undated_[call.proxy][name_of(charge.key)] += item->units;
    const std::int64_t bucket = undated ? account.shape.bucket_of(server_->clock()) : item->bucket_number;
    if (auto wrong = truth_.admitted(account, queue_.now(), id, item->units, bucket, item->degraded))
      violation(*wrong);
    mix(static_cast<std::uint64_t>(item->bucket_number));
  }
}

void World::give_back(std::uint64_t id, const Call& call, quota::Receipt receipt) {
  if (random_.below(100) >= scenario_.give_back_percent) return;
  const Duration delay = random_.one_in(2) ? Duration(Milliseconds(random_.below(20)))
                                           : Duration(Milliseconds(random_.below(2'000)));
  Proxy& proxy = *proxies_[call.proxy];
  queue_.after(delay, [this, id, &proxy, worker = call.worker, life = proxy.life(), charges = call.charges,
                       receipt = std::move(receipt)] {
    proxy.deliver(life, [this, id, worker, charges, receipt, &proxy](Proxy::Life& living) {
      for (const auto& item : receipt.items) {
        const quota::AccountKey& key = charges[item.charge].key;
        TruthAccount& account = *truth_.find(key);
        truth_.given_back(account, id);
        // Let through without a clock: by now it may be counted where no receipt says.
        if (item.bucket_number == INT64_MIN) account.in_doubt += item.units;
        given_back_[proxy.index()][name_of(key)] += item.units;
      }
      trace_.line(queue_.now(), "call {} is given back", id);
      Proxy::Worker& here = *living.workers[worker];
      here.enter([&] { here.ledger.give_back(charges, receipt); });
    });
  });
}

// Is there, by the truth, really no room for one of these? Buckets and guards make room late; limits may just have changed.
bool World::justified(const std::vector<quota::AccountCharge>& charges) const {
  for (const auto& charge : charges) {
    if (charge.shadow) continue;
    const TruthAccount& account = *const_cast<Truth&>(truth_).find(charge.key);
    if (!account.limited) continue;
    const Duration late =
        account.shape.window + account.shape.bucket + account.shape.guard() + Milliseconds(50);
    const Duration now = queue_.now();
    const std::uint64_t limit = account.lowest_limit(now - Seconds(5), now);
    if (account.between(now - late, now) + account.in_doubt + charge.units > static_cast<std::int64_t>(limit))
      return true;
  }
  return false;
}

void World::on_death(Proxy& proxy, bool inner) {
  harvest(proxy);
  // A call that had no answer yet is charged at most once: certainly not when the process died between two events.
  for (auto call = calls_.begin(); call != calls_.end();) {
    if (call->second.proxy != proxy.index()) {
      ++call;
      continue;
    }
    if (inner)
      for (const auto& charge : call->second.charges) truth_.find(charge.key)->in_doubt += charge.units;
    call = calls_.erase(call);
  }
  // What was given back and not yet settled stays charged; so does what was taken for a call and put back.
  for (const auto& [key, units] : proxy.taken_back()) truth_.find({key.first, key.second})->in_doubt += units;
  for (const auto& [name, units] : given_back_[proxy.index()]) truth_.accounts().at(name).in_doubt += units;
  given_back_.erase(proxy.index());
  for (const auto& [name, units] : undated_[proxy.index()]) truth_.accounts().at(name).may_miss += units;
  undated_.erase(proxy.index());
}

}  // namespace tollgate::sim
