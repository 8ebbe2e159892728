// Making ops, and what follows from their replies.
#include <algorithm>
#include <cmath>

#include "metering/quota/lease_engine_impl.h"

namespace tollgate::quota {
namespace {

constexpr Milliseconds kClockPause{1'000};
// Free units of which fewer are not fetched ahead of need: half the proxies that the calls seem to go round, within these.
constexpr double kScarceMin = 2, kScarceMax = 8;
constexpr std::uint64_t kGrowthMin = 16;  // a lease may grow to this, however little is free
constexpr double kRateKept = 0.5;         // weight of what was measured before

// Uses of the cell and units that never happened, ascending, each bucket once.
std::vector<BucketUse> merged(std::vector<BucketUse> uses, const std::vector<BucketUse>& given_back) {
  uses.insert(uses.end(), given_back.begin(), given_back.end());
  std::ranges::stable_sort(uses, {}, &BucketUse::bucket);
  std::vector<BucketUse> sums;
  for (const BucketUse& use : uses) {
    if (!sums.empty() && sums.back().bucket == use.bucket)
      sums.back().units += use.units;
    else
      sums.push_back(use);
  }
  std::erase_if(sums, [](const BucketUse& use) { return use.units == 0; });
  return sums;
}

// Negative controls of the simulator (LeaseOptions::unsafe): dates that free units too early.
void misdate(std::vector<BucketUse>& uses, const Account& account, const LeaseOptions::Unsafe& unsafe) {
  for (BucketUse& use : uses) {
    if (use.units < 0) continue;
    if (unsafe.charge_at_grant && account.rate_at.count() > 0)
      use.bucket = std::min(use.bucket, account.shape.bucket_of(account.rate_at));
    if (unsafe.wall_clock)
      use.bucket = account.shape.bucket_of(use.bucket * account.shape.bucket - 2 * kClockGuard);
  }
  uses = merged(std::move(uses), {});
}

std::uint64_t admitted(const OpAccount& account) {
  std::uint64_t units = 0;
  for (const BucketUse& use : account.uses)
    units += use.units > 0 ? static_cast<std::uint64_t>(use.units) : 0;
  return units;
}

bool gives_back(const OpAccount& account) {
  return std::ranges::any_of(account.uses, [](const BucketUse& use) { return use.units < 0; });
}

// Tokens a second since the last op that carried the account, smoothed with what was before.
void measure(Account& account, std::uint64_t used, Milliseconds now) {
  account.taken_since += used;
  if (account.rate_at == Milliseconds(0)) {
    account.rate_at = now;
    account.taken_since = 0;
    return;
  }
  const double elapsed = static_cast<double>((now - account.rate_at).count()) / 1'000;
  if (elapsed < 1) return;
  const double present = static_cast<double>(account.taken_since) / elapsed;
  account.rate = kRateKept * account.rate + (1 - kRateKept) * present;
  account.rate_at = now;
  account.taken_since = 0;
}

// No more than that part of what was granted is left.
bool below(const Account& account, std::uint32_t part) {
  return account.cell->available() <= account.view().lease / part;
}

// What was neither used nor lent when the store last said.
std::uint64_t roomy(const Account& account) {
  const AccountView view = account.view();
  const std::uint64_t charged = view.used + view.lent_to_others + account.cell->outstanding();
  return view.limit > charged ? view.limit - charged : 0;
}

// So little is free that tokens fetched ahead of need would only have to be recalled by others who have some: the more of
// them there are for every call of ours, the sooner.
bool scarce(const Account& account) {
  const AccountView view = account.view();
  if (view.lent_to_others == 0) return false;
  const double ours = account.rate * static_cast<double>(account.shape.window.count()) / 1'000;
  const double all = static_cast<double>(std::max<std::uint64_t>(view.used, 1));
  const double too_few = std::clamp(all / (2 * std::max(ours, 1.0)), kScarceMin, kScarceMax);
  return static_cast<double>(roomy(account)) < too_few;
}

// A lease that was spent is followed by one of twice its size, up to an eighth of what was free, a quarter where nobody else
// holds any; one that was not is filled up.
std::uint64_t growth(const Account& account, std::uint64_t left) {
  const AccountView view = account.view();
  const std::uint64_t most = std::max(kGrowthMin, roomy(account) / (view.lent_to_others == 0 ? 4 : 8));
  const std::uint64_t more =
      below(account, 4) ? 2 * view.lease : view.lease - std::min<std::uint64_t>(left, view.lease);
  return std::min(more, most);
}

void show(Account& account, const OpAccount& asked, const LeaseState& state, bool gained) {
  AccountView view = account.view();
  view.used = state.used;
  view.lent_to_others = state.lent_to_others;
  view.limit = state.limit;
  view.rule_limit = asked.limit;
  view.next_free_at = state.next_free_at;
  view.next_free_units = state.next_free_units;
  if (gained || asked.returned > 0) view.lease = account.cell->available();
  // A refusal reckoned with what we held and had used: handing that back made room.
  if (gained || asked.returned > 0 || gives_back(asked)) {
    view.denied_until = view.fits_at = Milliseconds(0);
    view.denied_units = 0;
  }
  account.set_view(view);
}

// All that the limit allows is used or held here: beyond what is held nothing fits until the oldest bucket leaves.
bool exhausted(const Account& account, const LeaseState& state) {
  return account.limited && state.lent_to_others == 0 && state.next_free_at > Milliseconds(0) &&
         state.used + state.outstanding >= state.limit;
}

}  // namespace

bool LeaseEngine::Impl::voided(const Partition& p, const Account& account) const {
  return account.limited && !options_.unsafe.keep_lapsed_tokens && account.cell->available() > 0 &&
         account.session.load() != shared(p).session.load();
}

bool LeaseEngine::Impl::make_op(Partition& p, Subject& subject, MonotonicTime now) {
  const Milliseconds hi = store_hi(p, now);
  const bool allowed = may_ask(p, now);
  InFlight flight;
  flight.op.incarnation = options_.incarnation;
  flight.op.partition = p.number;
  flight.op.seq = p.next_seq;
  flight.op.subject_key = subject.named->key;
  flight.session = shared(p).session.load();
  bool held_back = false, blocking = false;
  for (Held& one : subject.accounts) {
    Account& account = *one.account;
    LeaseCell& cell = *account.cell;
    const bool asking = allowed && now >= one.not_before;
    OpAccount asked;
    bool waited_for = false;
    std::uint64_t lacking = 0;
    for (const Waiting& waiting : subject.waiting) {
      if (waiting.account != one.account) continue;
      if (!waited_for && account.limited) asked.need = waiting.units;
      waited_for = true;
      lacking += waiting.units;
    }
    if (waited_for && account.limited && !asking) {
      held_back = held_back || !allowed;
      waited_for = false;
      asked.need = 0;
    }
    // Asked only because nobody had told the time yet.
    if (waited_for && !account.limited && shared(p).clock.known() && !cell.dirty()) {
      answer(subject, &account, Answer::granted);
      waited_for = false;
    }
    const bool own =
        one.give_up && one.tries > 0;  // our own tokens stand in the way of what is needed at once
    const bool back = voided(p, account) || (one.give_up && (asked.need == 0 || own));
    // What is lacking is lacking beyond these: without them all of it is needed.
    one.in_the_way = own && asked.need > 0 && !voided(p, account) ? cell.available() : 0;
    asked.need += one.in_the_way;
    const bool countable = cell.dirty() && (account.limited || subject.flush || waited_for);
    const bool refill = one.prefetch || (subject.flush && countable);
    if (account.limited && (asked.need > 0 || (refill && asking && !back && !scarce(account)))) {
      const std::uint64_t left = back ? 0 : cell.available();
      const auto aim = static_cast<std::uint64_t>(
          std::ceil(account.rate * static_cast<double>(options_.lease_horizon.count()) / 1'000));
      // At least one more than needed: only then the store is generous.
      const std::uint64_t useful = std::max<std::uint64_t>(
          {lacking, aim > left ? aim - left : 0, asked.need + 1ULL, growth(account, left)});
      const std::uint64_t most =
          std::max<std::uint64_t>(asked.need, std::min<std::uint64_t>(options_.lease_max, kTokensMax - left));
      asked.want = static_cast<std::uint32_t>(std::min(useful, most));
      // Others have handed back what they held, so the store sees nobody to share with. They call as well: were all of it
      // taken, each of them would have it recalled in turn, for one call.
      const std::uint64_t handed_back = one.tries > 0 ? account.view().lent_to_others : 0;
      if (handed_back > 0)
        asked.want =
            std::clamp(static_cast<std::uint32_t>(std::min<std::uint64_t>(handed_back / 2, kTokensMax)),
                       asked.need, asked.want);
    }
    const bool something = asked.need > 0 || asked.want > 0 || waited_for || one.tell || account.forget ||
                           countable || !account.given_back.empty() || (back && cell.available() > 0);
    if (!something || cell.pending_seq() != 0) continue;
    blocking = blocking || asked.need > 0;
    asked.field = account.field;
    asked.window = account.shape.window;
    asked.bucket = account.shape.bucket;
    asked.limit = account.limited ? account.limit : kUnlimited;
    asked.forget = account.forget;
    const std::int64_t bucket = account.shape.bucket_of(hi);
    cell.snapshot(p.next_seq, bucket, back && account.limited);
    asked.uses = merged(cell.pending_uses(bucket), account.given_back);
    misdate(asked.uses, account, options_.unsafe);
    asked.returned = cell.pending_returned();
    flight.op.accounts.push_back(std::move(asked));
    flight.accounts.push_back(one.account);
  }
  if (held_back && !subject.blocked) {
    subject.blocked = true;
    p.blocked.push_back(&subject);
  }
  if (flight.accounts.empty()) {
    subject.flush = false;
    for (Held& one : subject.accounts) one.give_up = false;
    for (SettleDone& done : std::exchange(subject.settles, {}))
      answers_.push_back([done = std::move(done)] { done(true); });
    return true;
  }
  if (!log_.append(flight.op)) {
    for (const AccountRef& account : flight.accounts)
      account->cell->undo_snapshot(account->shape.bucket_of(hi));
    ++counters_.log_failures;
    answer(subject, nullptr, Answer::unavailable);
    return false;
  }
  for (const AccountRef& account : flight.accounts) {
    account->given_back.clear();
    Held& one = held(subject, *account);
    one.reported = now;
    one.tell = one.doubted = false;
  }
  for (Held& one : subject.accounts) one.give_up = false;
  ++p.next_seq;
  ++counters_.ops;
  if (blocking) ++counters_.blocking_ops;
  ++unacknowledged_;
  subject.flush = false;
  subject.in_flight = true;
  subject.named->in_flight = flight.op.seq;
  flight.subject = &subject;
  flight.settles = std::exchange(subject.settles, {});
  p.in_flight.push_back(std::move(flight));
  send(p, p.in_flight.back(), now);
  return true;
}

void LeaseEngine::Impl::send(Partition& p, InFlight& flight, MonotonicTime now) {
  if (!awaits(p)) p.heard_at = now;
  if (flight.sent_before) ++counters_.resent;
  flight.sent = flight.sent_before = true;
  store_.send(flight.op, context(p, now));
}

void LeaseEngine::Impl::on_op(Partition& p, std::uint64_t seq, const OpReply& reply, MonotonicTime sent,
                              MonotonicTime now) {
  check_lapse(p, now);
  if (p.in_flight.empty() || seq < p.in_flight.front().op.seq || !p.in_flight.front().sent)
    return;  // a late ghost
  if (seq > p.in_flight.back().op.seq) return;
  heard(p, reply.now, sent, now);
  const bool next = seq == p.in_flight.front().op.seq;
  if (reply.status == OpStatus::gap && next) ++counters_.gaps;
  // The store has forgotten something, or a reply was lost on the way: the ping tells which.
  if (reply.status == OpStatus::gap || !next) return rejoin(p, now, Duration(0));
  renew(p, reply.session_expiry, now);
  if (p.state == State::open)
    p.ping_at = now + options_.ping_interval * static_cast<std::int64_t>(90 + random_.below(21)) / 100;
  p.acked = seq;
  InFlight flight = std::move(p.in_flight.front());
  p.in_flight.pop_front();
  --unacknowledged_;
  CHECK(reply.states.size() == flight.accounts.size(), "one state an account");
  Subject& subject = *flight.subject;
  subject.in_flight = false;
  subject.named->in_flight = 0;
  subject.named->settled_at = now;
  for (SettleDone& done : flight.settles) answers_.push_back([done = std::move(done)] { done(true); });

  if (reply.fenced) {
    ++counters_.fenced;
    if (p.state == State::open || p.state == State::joining) {
      if (p.state == State::open) enter(p, State::fenced, now);
      ping(p, now);
    }
  }
  if (reply.clock_off) {
    ++counters_.clock_off;
    if (p.clock_off_since == kNever) p.clock_off_since = now;
    p.no_grants_before = now + kClockPause;
    answer(subject, nullptr, Answer::unavailable);
  } else {
    p.clock_off_since = kNever;
  }
  const bool could_grant = reply.status == OpStatus::applied && !reply.fenced && !reply.clock_off;
  for (std::size_t i = 0; i < flight.accounts.size(); ++i)
    acknowledge(p, subject, flight, i, reply.states[i], could_grant, reply.now, now);
  if (subject.again || !subject.waiting.empty() || !subject.settles.empty()) queue(subject, now);
  subject.again = false;
  look_at(subject, now + until_look(subject, now));
  if (p.clock_off_since != kNever && now - p.clock_off_since >= options_.session_ttl) {
    // It will not go away by itself: as if the session had lapsed, so that the store's clock can be believed.
    end_session(p);
    p.clock_off_since = kNever;
    return rejoin(p, now, Duration(0));
  }
  pump(p, now);
}

void LeaseEngine::Impl::acknowledge(Partition& p, Subject& subject, const InFlight& flight, std::size_t index,
                                    const LeaseState& state, bool could_grant, Milliseconds store_now,
                                    MonotonicTime now) {
  Account& account = *flight.accounts[index];
  const OpAccount& asked = flight.op.accounts[index];
  Held& one = held(subject, account);
  const std::uint32_t before = account.cell->available();
  // Before the tokens are there: none of an earlier session are left, the op has taken them along.
  if (account.limited && flight.session == shared(p).session.load()) account.session.store(flight.session);
  account.cell->acknowledge(account.limited ? state.outstanding : 0);
  account.forget = false;
  const bool gained = state.granted > 0 || account.cell->available() > before;
  if (state.over) ++counters_.over;
  if (gained) ++counters_.refills;
  measure(account, admitted(asked), store_now);
  show(account, asked, state, gained);
  if (exhausted(account, state) && !one.doubted)
    deny(account, 1, state.next_free_at, state.next_free_at, store_now);
  one.prefetch = false;
  // More is lent than the limit has room for: a grant has ended, or the limit was lowered. What is not used goes back.
  if (account.limited && state.used + state.lent_to_others + state.outstanding > state.limit &&
      account.cell->available() > 0)
    one.give_up = subject.again = true;
  if (gained) account.refill_asked.store(false);
  if (!account.limited) return answer(subject, &account, Answer::granted);
  if (asked.need == 0) return;
  if (gained) {
    one.tries = 0;
    return answer(subject, &account, Answer::granted);
  }
  if (could_grant) refused(subject, one, asked, state, store_now, now);
}

void LeaseEngine::Impl::refused(Subject& subject, Held& one, const OpAccount& asked, const LeaseState& state,
                                Milliseconds store_now, MonotonicTime now) {
  const std::uint64_t charged = state.used + state.lent_to_others + state.outstanding;
  // Only another account of the op lacked room: asked for again without that one.
  if (state.fits_at == Milliseconds(0) && charged + asked.need <= state.limit) return;
  if (state.fits_at == Milliseconds(0) && one.tries < options_.recall_tries &&
      (state.lent_to_others > 0 || (state.outstanding > 0 && one.tries == 0))) {
    ++one.tries;
    if (state.lent_to_others > 0)
      one.not_before = now + options_.recall_pause;
    else
      one.give_up = true;
    return;
  }
  one.tries = 0;
  ++counters_.denials;
  const bool believed = state.fits_at != Milliseconds(0) && !one.doubted;
  deny(*one.account, asked.need, state.fits_at,
       believed ? state.fits_at : store_now + options_.recheck_interval, store_now);
  answer(subject, one.account.get(), Answer::refused, asked.need - one.in_the_way);
}

void LeaseEngine::Impl::deny(Account& account, std::uint32_t units, Milliseconds fits_at, Milliseconds until,
                             Milliseconds store_now) {
  AccountView view = account.view();
  view.fits_at = fits_at;
  view.denied_units = units;
  view.denied_until = std::min(until, store_now + options_.denial_max);
  account.set_view(view);
}

// Answers whoever waits for this account (nullptr: for any of the subject), if it lacks at least that many units.
void LeaseEngine::Impl::answer(Subject& subject, const Account* account, Answer answer,
                               std::uint32_t at_least) {
  std::erase_if(subject.waiting, [&](Waiting& waiting) {
    if ((account != nullptr && waiting.account.get() != account) || waiting.units < at_least) return false;
    answers_.push_back([done = std::move(waiting.done), answer] { done(answer); });
    return true;
  });
}

}  // namespace tollgate::quota
