// How a partition comes to flow, stays so, and stops: lease_engine.h, drawing of the states.
#include <algorithm>
#include <limits>

#include "metering/quota/lease_engine_impl.h"

namespace tollgate::quota {
namespace {

constexpr Milliseconds kFencePauseMin{50}, kErrorPauseMin{100}, kPauseMax{1'000};
constexpr Milliseconds kSilence{5'000};  // a connection that swallows messages: everything is sent again
constexpr std::uint64_t kReplayBatch = 256;
// A quarter of the wait, 2.5 s where nothing else is configured: longer than any reconnect takes once the store is there.
constexpr int kSettleShare = 4;
// Of the same wait, the longest pause after an error: a replay that gets something through now and then holds the fence up.
constexpr int kPauseShare = 4;

}  // namespace

// ---- questions

bool LeaseEngine::Impl::wanted(const Partition& p) const {
  return !p.subjects.empty() || !p.in_flight.empty();
}

bool LeaseEngine::Impl::awaits(const Partition& p) const {
  return p.up && (p.ping_under_way || p.state == State::replaying ||
                  (!p.in_flight.empty() && p.in_flight.front().sent));
}

bool LeaseEngine::Impl::may_send(const Partition& p) const {
  if (!clock_known(p)) return false;
  if (!p.in_flight.empty() && !p.in_flight.back().sent) return false;  // what is older goes first
  if (p.state == State::open || p.state == State::fenced) return true;
  // Nothing was ever journalled here, so there is nothing to replay: the answer to the ping cannot change the op.
  return p.state == State::joining && p.ping_under_way && p.acked == 0 && p.journaled_before == 0 && !p.old;
}

bool LeaseEngine::Impl::may_ask(const Partition& p, MonotonicTime now) const {
  return may_send(p) && p.state != State::fenced && now >= p.no_grants_before;
}

StoreClock& LeaseEngine::Impl::clock_of_run(const std::string& run) {
  std::unique_ptr<StoreClock>& clock = clocks_[run];
  if (!clock) clock = std::make_unique<StoreClock>();
  return *clock;
}

bool LeaseEngine::Impl::clock_known(const Partition& p) const {
  if (shared(p).clock.known()) return true;
  auto found = clocks_.find(p.run);
  return found != clocks_.end() && found->second->known();
}

Milliseconds LeaseEngine::Impl::store_hi(const Partition& p, MonotonicTime now) const {
  const StoreClock& own = shared(p).clock;
  return own.known() ? own.hi(now) : clocks_.at(p.run)->hi(now);
}

SendContext LeaseEngine::Impl::context(const Partition& p, MonotonicTime now) const {
  SendContext context;
  context.run = p.run;
  if (const StoreClock& own = shared(p).clock; own.known())
    context.clock = own.estimate(now);
  else if (clock_known(p))
    context.clock = clocks_.at(p.run)->estimate(now);
  context.session_ttl = options_.session_ttl;
  context.fence_wait = options_.fence_wait;
  context.fence_settle = options_.fence_wait / kSettleShare;
  context.lease_max = options_.lease_max;
  return context;
}

// ---- sessions and the clock

void LeaseEngine::Impl::heard(Partition& p, Milliseconds store_now, MonotonicTime sent, MonotonicTime now) {
  p.heard_at = now;
  // Who joins again during a step knows better from the others of the run than to take the first time told for the truth.
  StoreClock &own = shared(p).clock, &of_run = clock_of_run(p.run);
  of_run.observe(store_now, sent, now);
  if (own.known() || std::chrono::abs(of_run.disagreement()) <= kClockGuard)
    own.observe(store_now, sent, now);
  // Also when it has nothing to do with an op: what is off later is off for another reason.
  if ((own.known() ? own : of_run).disagreement() == Milliseconds(0)) p.clock_off_since = kNever;
}

void LeaseEngine::Impl::check_lapse(Partition& p, MonotonicTime now) {
  const std::int64_t expiry = shared(p).session_expiry_ms.load();
  if (expiry == 0 || !clock_known(p) || store_hi(p, now).count() < expiry) return;
  end_session(p);
  forget_stale_clock(p, now);
}

// After hours of silence two clocks may have drifted so far apart that the store would call ours wrong and lend nothing:
// then it is asked for the time before anything else.
void LeaseEngine::Impl::forget_stale_clock(Partition& p, MonotonicTime now) {
  PartitionState& state = shared(p);
  auto stale = [now](const StoreClock& clock) {
    return clock.known() && clock.hi(now) - clock.lo(now) > kClockGuard / 2;
  };
  StoreClock& of_run = clock_of_run(p.run);
  if (stale(of_run)) of_run.reset();
  if (state.session_expiry_ms.load() != 0 || !stale(state.clock)) return;
  state.clock.reset();
  if (p.state == State::open || p.state == State::fenced) p.ping_at = MonotonicTime{};
}

// Tokens of before are void from here on. They are handed back with the next op of their subject.
void LeaseEngine::Impl::end_session(Partition& p) {
  PartitionState& state = shared(p);
  if (options_.unsafe.keep_lapsed_tokens) {
    state.session_expiry_ms.store(std::numeric_limits<std::int64_t>::max());
    return;
  }
  if (wanted(p)) ++counters_.lapses;
  state.session.fetch_add(1);
  state.session_expiry_ms.store(0);
  // Nothing is lent by the old reckoning any more, so a clock that was stepped can be believed.
  StoreClock& of_run = clock_of_run(p.run);
  if ((state.clock.known() ? state.clock : of_run).disagreement() != Milliseconds(0)) {
    state.clock.reset();
    of_run.reset();
    p.ping_at = MonotonicTime{};
  }
  p.lapsed = true;
}

// Never longer than what we asked for counts by our own clock: a store whose clock was stepped forward may have forgotten
// the lease by the time it is set right. The store's word of the same run never falls behind an earlier one.
void LeaseEngine::Impl::renew(Partition& p, Milliseconds expiry, MonotonicTime now) {
  if (!clock_known(p)) return;
  PartitionState& state = shared(p);
  const std::int64_t hi = store_hi(p, now).count();
  std::int64_t until = std::min(expiry.count(), hi + options_.session_ttl.count());
  if (p.session_run == p.run) until = std::max(until, state.session_expiry_ms.load());
  p.session_run = p.run;
  if (until > hi) {
    state.session_expiry_ms.store(until);
  } else if (state.session_expiry_ms.load() != 0) {
    end_session(p);
  }
}

// ---- up and down

void LeaseEngine::Impl::enter(Partition& p, State state, MonotonicTime now) {
  p.state = state;
  if (state != State::absent) wake(p);
  if ((state == State::fenced || state == State::replaying) && p.fenced_since == kNever) p.fenced_since = now;
  if (state == State::open || state == State::absent) p.fenced_since = kNever;
}

void LeaseEngine::Impl::wake(Partition& p) {
  if (std::exchange(p.awake, true)) return;
  awake_.push_back(&p);
}

void LeaseEngine::Impl::ensure_joined(Partition& p, MonotonicTime now) {
  if (p.state != State::absent && p.state != State::waiting) return;
  if (!p.up) return enter(p, State::waiting, now);
  forget_stale_clock(p, now);
  enter(p, State::joining, now);
  ping(p, now);
}

void LeaseEngine::Impl::rejoin(Partition& p, MonotonicTime now, Duration pause) {
  for (InFlight& flight : p.in_flight) flight.sent = false;
  p.ping_under_way = false;
  p.replay_awaited = 0;
  forget_stale_clock(p, now);
  enter(p, State::joining, now);
  p.ping_at = now + pause;
  if (pause == Duration(0)) ping(p, now);
}

void LeaseEngine::Impl::on_up(Partition& p, std::string run, MonotonicTime now) {
  check_lapse(p, now);
  const bool other_run = !p.run.empty() && run != p.run;
  wake(p);
  p.up = true;
  p.run = std::move(run);
  p.heard_at = now;
  p.ping_pause = Duration(0);
  for (InFlight& flight : p.in_flight) flight.sent = false;
  // Another server, or the same one started anew, may lack what is in our journal, even of accounts long idle.
  if (other_run && p.next_seq > 1) p.old = true;
  // Also where nothing is held: what has to be agreed on is agreed on before a call waits for it.
  rejoin(p, now, Duration(0));
}

void LeaseEngine::Impl::on_down(Partition& p, MonotonicTime now) {
  check_lapse(p, now);
  p.up = false;
  p.ping_under_way = false;
  p.ping_at = kNever;
  p.replay_awaited = 0;
  p.blocked.clear();
  for (InFlight& flight : p.in_flight) {
    flight.sent = false;
    for (SettleDone& done : flight.settles) answers_.push_back([done = std::move(done)] { done(false); });
    flight.settles.clear();
  }
  for (Subject* subject : p.subjects) {
    subject->blocked = false;
    answer(*subject, nullptr, Answer::unavailable);
    for (SettleDone& done : subject->settles) answers_.push_back([done = std::move(done)] { done(false); });
    subject->settles.clear();
  }
  enter(p, wanted(p) ? State::waiting : State::absent, now);
}

void LeaseEngine::Impl::on_error(Partition& p, MonotonicTime now) {
  check_lapse(p, now);
  p.heard_at = now;
  if (!p.up || p.state == State::absent || p.state == State::waiting) return;
  for (Subject* subject : p.subjects) answer(*subject, nullptr, Answer::unavailable);
  // One pause for all messages of a pipeline.
  if (p.state == State::joining && !p.ping_under_way && p.ping_at > now) return;
  // Short enough for a replay to go on before the fence opens over it.
  const Duration most = std::min<Duration>(kPauseMax, options_.fence_wait / kPauseShare);
  p.ping_pause = std::clamp<Duration>(p.ping_pause * 2, std::min<Duration>(kErrorPauseMin, most), most);
  rejoin(p, now, p.ping_pause);
}

void LeaseEngine::Impl::on_fence(Partition& p, MonotonicTime now) {
  check_lapse(p, now);
  if (!p.up) return;
  // Also where nothing is held at present: the others wait until everybody who listens has voted.
  if (p.state == State::absent)
    ensure_joined(p, now);
  else if (p.ping_under_way)
    p.ping_again = true;  // its answer may be older than what we were told
  else if (p.state == State::open || p.state == State::fenced)
    ping(p, now);
}

// ---- pings

void LeaseEngine::Impl::ping(Partition& p, MonotonicTime now) {
  p.ping_at = kNever;
  if (!p.up || p.ping_under_way) return;
  Ping message;
  message.incarnation = options_.incarnation;
  message.partition = p.number;
  message.acked = p.acked;
  message.peers = p.peers;
  if (!awaits(p)) p.heard_at = now;
  p.ping_under_way = true;
  ++counters_.pings;
  store_.send(message, context(p, now));
}

void LeaseEngine::Impl::on_ping(Partition& p, const PingReply& reply, MonotonicTime sent, MonotonicTime now) {
  check_lapse(p, now);
  if (!p.ping_under_way) return;
  p.ping_under_way = false;
  const bool again = std::exchange(p.ping_again, false);
  heard(p, reply.now, sent, now);
  if (!p.up || p.state == State::absent || p.state == State::waiting || p.state == State::replaying) return;
  p.peers = reply.peers;
  std::erase_if(p.peers, [&](const Ping::Peer& peer) { return peer.incarnation == options_.incarnation; });
  renew(p, reply.session_expiry, now);
  if (!p.recovered) recover_old(p, now);
  if (reply.hwm < p.acked) {
    for (InFlight& flight : p.in_flight) flight.sent = false;
    if (p.state == State::open || p.state == State::fenced) ++counters_.gaps;
    p.replayed = reply.hwm;
    enter(p, State::replaying, now);
    return replay_more(p, now);
  }
  // Ops of ours that were not yet durable when the machine lost power: their numbers are used up.
  if (reply.hwm >= p.next_seq && p.in_flight.empty()) {
    p.acked = reply.hwm;
    p.next_seq = reply.hwm + 1;
  }
  p.old = false;
  if (reply.open) {
    p.ping_pause = Duration(0);
    enter(p, State::open, now);
    p.ping_at = now + options_.ping_interval * static_cast<std::int64_t>(90 + random_.below(21)) / 100;
  } else {
    p.ping_pause = std::clamp<Duration>(p.ping_pause * 2, kFencePauseMin, kPauseMax);
    enter(p, State::fenced, now);
    p.ping_at = again ? now : now + p.ping_pause;
  }
  resend(p, now);
  if (std::exchange(p.lapsed, false))
    for (Subject* subject : p.subjects)
      if (std::ranges::any_of(subject->accounts, [&](const Held& one) { return voided(p, *one.account); }))
        queue(*subject, now);
  if (p.state == State::open)
    for (Subject* subject : std::exchange(p.blocked, {})) {
      subject->blocked = false;
      queue(*subject, now);
    }
  pump(p, now);
}

void LeaseEngine::Impl::resend(Partition& p, MonotonicTime now) {
  for (InFlight& flight : p.in_flight)
    if (!flight.sent) send(p, flight, now);
}

// ---- what an earlier process left

// Called once the store's clock is known: uses that no bucket claims are dated now, and everything unsettled is
// reported. Tokens of before are void.
void LeaseEngine::Impl::recover_old(Partition& p, MonotonicTime now) {
  p.recovered = true;
  learn_all(p, now);
  const Milliseconds hi = store_hi(p, now);
  for (Subject* subject : p.subjects) {
    for (Held& one : subject->accounts) {
      Account& account = *one.account;
      if (!account.forget) continue;
      LeaseCell& cell = *account.cell;
      const std::int64_t bucket = account.shape.bucket_of(hi);
      if (cell.pending_seq() > p.journaled_before) cell.undo_snapshot(bucket);
      cell.recover(bucket, account.limited);
    }
    queue(*subject, now);
  }
}

// ---- replays

void LeaseEngine::Impl::replay_more(Partition& p, MonotonicTime now) {
  if (p.replayed >= p.acked) {
    enter(p, State::joining, now);
    return ping(p, now);
  }
  const SendContext with = context(p, now);
  const Milliseconds expiry(shared(p).session_expiry_ms.load());
  std::uint64_t expected = p.replayed + 1, after = p.replayed;
  p.replay_awaited = 0;
  p.heard_at = now;
  auto replay = [&](const Op& op) {
    Replay message{op, {}, expiry, op.seq != expected};
    for (const OpAccount& account : op.accounts) {
      const AccountRef held = table_.find({op.subject_key, account.field});
      message.outstanding.push_back(held && held->limited ? held->cell->outstanding() : 0);
    }
    expected = op.seq + 1;
    p.replay_batch_end = op.seq;
    ++p.replay_awaited;
    ++counters_.replays;
    store_.send(message, with);
  };
  while (p.replay_awaited == 0 && after < p.acked && !options_.unsafe.no_replay) {
    const std::uint64_t up_to = std::min(after + kReplayBatch, p.acked);
    const std::uint64_t kept = log_.read(p.number, after, up_to, replay);
    after = std::max(up_to, std::min(kept > 0 ? kept - 1 : 0, p.acked));
  }
  if (p.replay_awaited > 0) return;
  // The log keeps none of these numbers any more: what they counted has left every window.
  Op nothing;
  nothing.incarnation = options_.incarnation;
  nothing.partition = p.number;
  nothing.seq = p.acked;
  nothing.subject_key = "q:" + hash_tag(p.number) + ":";
  expected = 0;
  replay(nothing);
}

void LeaseEngine::Impl::on_replay(Partition& p, std::uint64_t seq, const OpReply& reply, MonotonicTime sent,
                                  MonotonicTime now) {
  check_lapse(p, now);
  if (p.state != State::replaying) return;
  heard(p, reply.now, sent, now);
  if (reply.status == OpStatus::gap) {
    ++counters_.gaps;
    return rejoin(p, now, kFencePauseMin);
  }
  renew(p, reply.session_expiry, now);
  p.replayed = std::max(p.replayed, seq);
  if (p.replayed >= p.replay_batch_end) replay_more(p, now);
}

// ---- time

void LeaseEngine::Impl::tick(Partition& p, MonotonicTime now) {
  check_lapse(p, now);
  if (!p.up) return;
  if (awaits(p) && now - p.heard_at >= kSilence) rejoin(p, now, Duration(0));
  if (p.ping_at <= now) {
    // As long as clocks disagree it is asked on: nobody else would find out that they agree again.
    if (p.state == State::open && !wanted(p) && shared(p).clock.disagreement() == Milliseconds(0))
      enter(p, State::absent, now), p.ping_at = kNever;
    else
      ping(p, now);
  }
  if (now >= p.no_grants_before)
    for (Subject* subject : may_ask(p, now) ? std::exchange(p.blocked, {}) : std::vector<Subject*>{}) {
      subject->blocked = false;
      queue(*subject, now);
    }
  if (!p.ready.empty() && now >= p.no_ops_before) pump(p, now);
}

MonotonicTime LeaseEngine::Impl::next_due(const Partition& p) const {
  if (!p.up) return kNever;
  MonotonicTime due = p.ping_at;
  if (awaits(p)) due = std::min(due, p.heard_at + kSilence);
  if (!p.blocked.empty() && p.state == State::open) due = std::min(due, p.no_grants_before);
  if (!p.ready.empty() && may_send(p) && unacknowledged_ < options_.max_unacknowledged)
    due = std::min(due, p.no_ops_before);
  return due;
}

}  // namespace tollgate::quota
