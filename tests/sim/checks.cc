// After the faults: heal, drain, and what must then hold.
#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/worker.h"
#include "tests/sim/world.h"

namespace tollgate::sim {

// I2, as far as it can be seen from outside: what is in the window is counted or lent, at every moment at which the store
// has forgotten nothing.
void World::check_books() {
  if (result_.violation || !server_->up() || !calm() ||
      scenario_.ledger.on_outage == quota::OutagePolicy::allow)
    return;
  for (auto& [name, account] : truth_.accounts()) {
    if (!account.limited) continue;
    const Backend::Sums sums = server_->backend().sums(account.key, account.shape);
    const std::int64_t truth = account.between(queue_.now() - account.shape.window, queue_.now());
    if (static_cast<std::int64_t>(sums.used + sums.lent) < truth)
      return violation(fmt::format("I2: {} {}: {} units are in the window, the store has {} used + {} lent",
                                   account.key.subject_key, account.key.field, truth, sums.used, sums.lent));
  }
}

void World::heal() {
  around_->peace = true;
  clients_call_ = false;
  trace_.line(queue_.now(), "---- faults are over");
  for (auto& proxy : proxies_) {
    proxy->disarm();
    proxy->log().full = false;
    if (!proxy->alive()) restart_after(*proxy, Milliseconds(10));
  }
  // What is under way ends by itself: outages, pauses and cuts of at most two sessions, then joining and replays.
  run_until(queue_.now() + 3 * Duration(scenario_.lease.session_ttl) +
            4 * Duration(scenario_.lease.fence_wait) + Seconds(120));
  if (result_.violation) return;
  for (auto& proxy : proxies_)
    if (!proxy->alive() || proxy->paused() || !proxy->listening())
      return violation(fmt::format("proxy {} did not come back", proxy->index()));
  // Whoever is idle hears of a loss only when somebody touches the partition: everybody calls once more, for each limited
  // account alone. Of several, one that is known to be full would keep the others' partitions from being asked; alone, it
  // is answered without asking only by a proxy that has joined its partition.
  for (std::size_t u = 0; u < clients_.size(); ++u)
    for (const quota::AccountCharge& charge : clients_[u].charges)
      if (charge.limit != quota::kUnlimited)
        call(u, *proxies_[random_.below(proxies_.size())], {charge}, 1, [](const quota::ChargeOutcome&) {});
  run_until(queue_.now() + 3 * Duration(scenario_.lease.fence_wait) + Seconds(10));
  if (result_.violation) return;
  if (server_->unsettled()) return violation("what the store has forgotten was not told again");
  if (!calls_.empty()) violation(fmt::format("call {} was never answered", calls_.begin()->first));
}

bool World::drain() {
  trace_.line(queue_.now(), "---- drain");
  std::size_t asked = 0, settled = 0, failed = 0;
  for (auto& proxy : proxies_)
    for (unsigned i = 0; i < proxy->workers(); ++i) {
      ++asked;
      proxy->deliver(proxy->life(), [&, i](Proxy::Life& life) {
        Proxy::Worker& worker = *life.workers[i];
        worker.enter(
            [&] { worker.engine.drain(proxy->mono(), [&](bool done) { ++(done ? settled : failed); }); });
      });
    }
  const Duration limit = queue_.now() + Seconds(60);
  while (!result_.violation && settled + failed < asked && queue_.now() < limit) queue_.step(limit);
  if (result_.violation) return false;
  if (settled != asked) {
    violation(fmt::format("drain: {} of {} engines settled, {} failed", settled, asked, failed));
    return false;
  }
  for (auto& proxy : proxies_)
    for (const quota::LeaseCell& cell : proxy->cells())
      if (cell.in_use() && (cell.unsettled() != 0 || cell.available() != 0))
        violation(fmt::format("drain: proxy {} still has {} unsettled and {} tokens of {}", proxy->index(),
                              cell.unsettled(), cell.available(), std::string(cell.name())));
  return !result_.violation;
}

// Precision: journals and store have counted what really happened, to the unit.
void World::check_totals() {
  std::map<std::string, std::int64_t> booked = lost_totals_;
  for (auto& proxy : proxies_)
    for (const auto& [name, units] : proxy->log().totals()) booked[name] += units;
  for (auto& [name, account] : truth_.accounts()) {
    const std::string title = account.key.subject_key + " " + account.key.field;
    if (!account.lost &&
        (booked[name] < account.total - account.may_miss || booked[name] > account.total + account.in_doubt))
      return violation(fmt::format("precision: {}: {} units admitted (+{} in doubt), journals have {}", title,
                                   account.total, account.in_doubt, booked[name]));
    const Backend::Sums sums = server_->backend().sums(account.key, account.shape);
    const auto used = static_cast<std::int64_t>(sums.used), lent = static_cast<std::int64_t>(sums.lent);
    // Guards: the store may see any time up to the largest offset it ever had.
    const Milliseconds now = server_->clock();
    const std::int64_t least = account.live_at(now + account.shape.guard()) - account.may_miss;
    std::int64_t most = account.live_at(now - account.shape.guard()) + account.in_doubt;
    // Uses may be dated later than they were when a bucket could not be kept until a settlement: never earlier.
    const Duration redated = Duration(scenario_.lease.session_ttl) * 4 +
                             2 * Duration(scenario_.lease.flush_interval) + account.shape.bucket * 2 +
                             Seconds(2);
    if (scenario_.length + Seconds(1) > Duration(account.shape.window))
      most = std::max(most,
                      account.between(queue_.now() - account.shape.window - redated -
                                          (result_.faults > 0 ? Duration(account.shape.window) : Duration(0)),
                                      queue_.now()) +
                          account.in_doubt);
    if (used > most)
      return violation(
          fmt::format("precision: {}: the store counts {}, at most {} are true", title, used, most));
    if (account.lost ? account.limited && used + lent < least : used < least)
      return violation(fmt::format("precision: {}: the store counts {} (+{} lent), {} are true", title, used,
                                   lent, least));
    if (!account.lost && lent != 0)
      return violation(fmt::format("drain: {}: {} tokens are still lent", title, lent));
    trace_.line(queue_.now(), "{}: truth {}..{}, store {}", title, least, most, used);
  }
}

// Everything leaves its window; then every limit must be reachable again, exactly.
void World::refill() {
  trace_.line(queue_.now(), "---- quiet");
  run_until(queue_.now() + scenario_.window_max + Duration(scenario_.lease.session_ttl) + Seconds(130));
  if (result_.violation) return;
  for (auto& proxy : proxies_) {
    proxy->kill();
    restart_after(*proxy, Milliseconds(10));
  }
  run_until(queue_.now() + 2 * Duration(scenario_.lease.fence_wait) + Seconds(5));
  for (auto& [name, account] : truth_.accounts()) {
    const Backend::Sums sums = server_->backend().sums(account.key, account.shape);
    if (sums.used + sums.lent != 0 && !result_.violation)
      violation(fmt::format("quiet: {} {} still holds {} used + {} lent", account.key.subject_key,
                            account.key.field, sums.used, sums.lent));
    account.in_doubt = 0;
  }
  trace_.line(queue_.now(), "---- refill");
  for (std::size_t u = 0; u < clients_.size() && !result_.violation; ++u) refill_user(u);
}

void World::refill_user(std::size_t u) {
  const auto& charges = clients_[u].charges;
  unsigned refused = 0, proxy = 0;
  const Duration started = queue_.now();
  std::uint64_t most = 10;
  for (const auto& charge : charges)
    if (!charge.shadow && charge.limit != quota::kUnlimited) most += truth_.find(charge.key)->limit_now();
  for (std::uint64_t attempt = 0; attempt < most * 4 && !result_.violation; ++attempt) {
    quota::ChargeOutcome::Status status = quota::ChargeOutcome::Status::unavailable;
    bool answered = false;
    call(u, *proxies_[proxy % proxies_.size()], charges, 1, [&](const quota::ChargeOutcome& outcome) {
      status = outcome.status;
      answered = true;
    });
    const Duration limit = queue_.now() + Seconds(10);
    while (!answered && !result_.violation && queue_.now() < limit) queue_.step(limit);
    if (!answered) return violation("refill: a call without an answer");
    if (status == quota::ChargeOutcome::Status::admitted) {
      refused = 0;
      if (random_.one_in(3)) ++proxy;
      run_until(queue_.now() + Milliseconds(1));
      continue;
    }
    auto clients_charges = charges;
    if (justified(clients_charges)) {
      // Only a short window is full: it empties soon. Otherwise this user is done.
      bool all_short = true;
      for (const auto& charge : charges) {
        const TruthAccount& account = *truth_.find(charge.key);
        if (account.limited && !charge.shadow && charge.window > Seconds(2) &&
            account.between(queue_.now() - account.shape.window, queue_.now()) >=
                static_cast<std::int64_t>(account.limit_now()))
          all_short = false;
      }
      if (!all_short || queue_.now() - started > scenario_.window_max / 2) return;
      run_until(queue_.now() + Milliseconds(1'300));
      continue;
    }
    // Tokens lent elsewhere come back, a remembered refusal ends: within the stated times.
    if (++refused > 8)
      return violation(
          fmt::format("liveness: {} is {} though there is room", scenario_.users[u].name,
                      status == quota::ChargeOutcome::Status::exceeded ? "refused" : "not served"));
    run_until(queue_.now() + Duration(scenario_.lease.recheck_interval) + Milliseconds(500));
  }
}

}  // namespace tollgate::sim
