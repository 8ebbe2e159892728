#include "tests/sim/server.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/check.h"

namespace tollgate::sim {

namespace {
constexpr std::size_t kCopies = 8;
}

Server::Server(const Scenario& scenario, EventQueue& queue, const Trace& trace,
               std::unique_ptr<Backend> backend, Violation violation, Logged logged)
    : scenario_(scenario),
      queue_(queue),
      trace_(trace),
      backend_(std::move(backend)),
      violation_(std::move(violation)),
      logged_(std::move(logged)) {}

Milliseconds Server::clock() const {
  return kStoreEpoch + std::chrono::floor<Milliseconds>(queue_.now()) + offset_;
}

quota::SendContext Server::seen(quota::SendContext context) const {
  if (scenario_.control == Control::no_clock_guard) context.clock = clock();
  if (scenario_.control == Control::no_fence) context.run = "any";
  return context;
}

quota::OpReply Server::apply(const quota::Op& op, quota::SendContext context) {
  context = seen(std::move(context));
  ++operations_;
  if (!plausible(op)) {
    violation_(fmt::format("op {}/{} #{} of {} names a time that never was", op.incarnation, op.partition,
                           op.seq, op.subject_key));
    return {};
  }
  const std::pair key{op.incarnation, op.partition};
  if (scenario_.control == Control::no_dedupe) {
    std::uint64_t& last = sender_numbers_[key];
    if (op.seq <= last) {
      quota::Op again = op;
      again.seq = backend_->hwm(op.partition, op.incarnation) + 1;
      quota::OpReply reply = backend_->apply(again, context);
      reply.status = quota::OpStatus::duplicate;
      return reply;
    }
  }
  const std::uint64_t before = backend_->hwm(op.partition, op.incarnation);
  quota::Op sent = op;
  if (scenario_.control == Control::no_dedupe && op.seq == sender_numbers_[key] + 1) sent.seq = before + 1;
  quota::OpReply reply = backend_->apply(sent, context);
  if (reply.status == quota::OpStatus::applied) {
    if (scenario_.control == Control::no_dedupe) {
      sender_numbers_[key] = op.seq;
      reply.hwm = op.seq;
    } else {
      check_number(op, before, false);
    }
    applied_[key] = {std::max(applied_[key].highest, op.seq), queue_.now()};
    check_grants(op, reply);
    maybe_save();
  }
  trace_.line(queue_.now(), "store op {}/{} #{} {} -> {}{}{} hwm {}", op.incarnation, op.partition, op.seq,
              op.subject_key, static_cast<int>(reply.status), reply.fenced ? " fenced" : "",
              reply.clock_off ? " clock off" : "", reply.hwm);
  if (trace_.on)
    for (std::size_t i = 0; i < reply.states.size(); ++i) {
      const auto& a = op.accounts[i];
      const auto& state = reply.states[i];
      std::int64_t uses = 0;
      for (const auto& use : a.uses) uses += use.units;
      trace_.line(queue_.now(),
                  "      {}: uses {} returned {}{} need {} want {} -> granted {} outstanding {} used {} "
                  "others {} of {}",
                  a.field, uses, a.returned, a.forget ? " forget" : "", a.need, a.want, state.granted,
                  state.outstanding, state.used, state.lent_to_others, state.limit);
    }
  return reply;
}

// Uses are dated by the store's clock: not before the run began, not in the future.
bool Server::plausible(const quota::Op& op) const {
  for (const quota::OpAccount& account : op.accounts)
    for (const quota::BucketUse& use : account.uses) {
      const Milliseconds from = use.bucket * account.bucket;
      if (from < kStoreEpoch - std::chrono::hours(2) || from > clock() + std::chrono::hours(2)) return false;
    }
  return true;
}

void Server::check_number(const quota::Op& op, std::uint64_t before, bool based) {
  if (op.seq != before + 1 && !(based && op.seq > before))
    violation_(fmt::format("I3: incarnation {} partition {}: #{} was applied after #{}", op.incarnation,
                           op.partition, op.seq, before));
  const quota::Op* logged = logged_(op.incarnation, op.partition, op.seq);
  if (logged == nullptr) return;
  bool same = logged->subject_key == op.subject_key && logged->accounts.size() == op.accounts.size();
  for (std::size_t i = 0; same && i < op.accounts.size(); ++i) {
    const quota::OpAccount &a = op.accounts[i], &b = logged->accounts[i];
    same = a.field == b.field && a.uses == b.uses && a.returned == b.returned && a.forget == b.forget;
  }
  if (!same)
    violation_(
        fmt::format("I3: incarnation {} partition {}: #{} was sent with other contents than journalled",
                    op.incarnation, op.partition, op.seq));
}

void Server::check_grants(const quota::Op& op, const quota::OpReply& reply) {
  if (reply.states.size() != op.accounts.size())
    return violation_(
        fmt::format("reply with {} states to {} accounts", reply.states.size(), op.accounts.size()));
  for (std::size_t i = 0; i < op.accounts.size(); ++i) {
    const quota::OpAccount& account = op.accounts[i];
    const quota::LeaseState& state = reply.states[i];
    // Calls let through without tokens (on outage: allow) are more use than lent, by configuration.
    if (state.over && account.limit != quota::kUnlimited &&
        scenario_.ledger.on_outage != quota::OutagePolicy::allow)
      violation_(fmt::format("over: {} {} settled more than was lent", op.subject_key, account.field));
    if (state.granted == 0 || state.limit == quota::kUnlimited) continue;
    const Backend::Sums sums =
        backend_->sums({op.subject_key, account.field}, {account.window, account.bucket});
    if (sums.used + sums.lent > state.limit)
      violation_(fmt::format("I1: {} {} used {} + lent {} > limit {}", op.subject_key, account.field,
                             sums.used, sums.lent, state.limit));
    if (reply.fenced || reply.clock_off)
      violation_(fmt::format("granted behind the fence: {} {}", op.subject_key, account.field));
  }
}

quota::OpReply Server::replay(const quota::Replay& replay, quota::SendContext context) {
  ++operations_;
  const quota::Op& op = replay.op;
  const std::uint64_t before = backend_->hwm(op.partition, op.incarnation);
  quota::OpReply reply = backend_->replay(replay, seen(std::move(context)));
  if (reply.status == quota::OpStatus::applied) {
    check_number(op, before, replay.base);
    Applied& applied = applied_[{op.incarnation, op.partition}];
    applied = {std::max(applied.highest, op.seq), queue_.now()};
    sender_numbers_[{op.incarnation, op.partition}] = op.seq;
    maybe_save();
  }
  trace_.line(queue_.now(), "store replay {}/{} #{} {} -> {} hwm {}", op.incarnation, op.partition, op.seq,
              op.subject_key, static_cast<int>(reply.status), reply.hwm);
  return reply;
}

quota::PingReply Server::ping(const quota::Ping& ping, quota::SendContext context) {
  ++operations_;
  quota::PingReply reply = backend_->ping(ping, seen(std::move(context)));
  trace_.line(queue_.now(), "store ping {}/{} acked {} peers {} -> {} hwm {} expiry {}", ping.incarnation,
              ping.partition, ping.acked, ping.peers.size(), reply.open ? "open" : "fenced", reply.hwm,
              reply.session_expiry.count());
  if (scenario_.control == Control::no_dedupe && reply.hwm > 0)
    reply.hwm = sender_numbers_[{ping.incarnation, ping.partition}];
  return reply;
}

void Server::maybe_save() {
  if (operations_ % scenario_.save_every != 0) return;
  if (copies_.size() >= kCopies) {
    // Every second time the oldest but one goes, so that a very old copy survives for a while.
    auto victim = copies_.begin() + (next_copy_ % 2 == 0 ? 1 : 0);
    backend_->forget(victim->number);
    copies_.erase(victim);
  }
  backend_->save(next_copy_);
  copies_.push_back({next_copy_++, queue_.now()});
}

void Server::new_run() {
  run_ = fmt::format("run{}", ++runs_);
  ++generation_;
}

std::optional<Duration> Server::fall_back(Random& random) {
  new_run();
  if (copies_.empty()) return std::nullopt;
  const std::size_t chosen = random.one_in(4) ? random.below(copies_.size()) : copies_.size() - 1;
  const Duration age = queue_.now() - copies_[chosen].at;
  backend_->restore(copies_[chosen].number);
  // What was written after the copy no longer exists anywhere.
  while (copies_.size() > chosen + 1) {
    backend_->forget(copies_.back().number);
    copies_.pop_back();
  }
  return age;
}

void Server::flush() {
  backend_->flush();
  sender_numbers_.clear();
}

bool Server::unsettled() const {
  for (const auto& [key, applied] : applied_) {
    // After 48 h without a session the store forgets numbers on purpose: what they counted has left every window.
    if (queue_.now() - applied.at > std::chrono::hours(47)) continue;
    if (backend_->hwm(key.second, key.first) < applied.highest) return true;
  }
  return false;
}

void Server::journal_lost(quota::Incarnation incarnation) {
  std::erase_if(applied_, [&](const auto& entry) { return entry.first.first == incarnation; });
  // From now on the store alone knows what that proxy used: no older copy may come back, no flush may happen.
  for (const Copy& copy : copies_) backend_->forget(copy.number);
  copies_.clear();
  flush_barred_until_ = queue_.now() + scenario_.window_max + scenario_.lease.session_ttl + Seconds(70);
}

}  // namespace tollgate::sim
