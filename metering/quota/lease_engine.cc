#include "metering/quota/lease_engine.h"

#include <algorithm>

#include "metering/quota/lease_engine_impl.h"

namespace tollgate::quota {
namespace {

// One less than a cell keeps: the last may be begun before we look.
constexpr auto kBucketsApart = static_cast<std::int64_t>(kClosedBuckets) - 1;
constexpr Milliseconds kLookMin{10}, kSweepEvery{1'000};
constexpr int kKeptWindows = 3;
// In a flush interval, so that waiting for the end of one adds little to it.
constexpr int kFlushBuckets = 10;
constexpr unsigned kSweeps = 16, kJoinsAtOnce = 8;

}  // namespace

LeaseEngine::Impl::Impl(LeaseTable& table, LeaseStore& store, OpLog& log, const LeaseOptions& options)
    : table_(table), store_(store), log_(log), options_(options), random_(options.seed) {
  CHECK(options.incarnation > 0 && options.engines > 0 && options.index < options.engines, "who this is");
  for (unsigned number = options.index; number < kPartitions; number += options.engines) {
    partitions_[number] = std::make_unique<Partition>();
    Partition& p = *partitions_[number];
    p.number = number;
    p.journaled_before = p.acked = log.last_seq(number);
    p.next_seq = p.acked + 1;
    p.old = p.acked > 0;
    table.each_subject(number, [&](LeaseSubject& subject) {
      for (const AccountRef& account : subject.accounts) p.old = p.old || account->forget;
    });
    if (p.old) wake(p);
    // Sessions are counted from 1: no token that an earlier process left is of any of ours.
    if (shared(p).session.load() == 0) shared(p).session.store(1);
  }
}

void LeaseEngine::Impl::give_answers() {
  while (!answers_.empty())
    for (const std::function<void()>& answer : std::exchange(answers_, {})) answer();
}

// ---- what is known

LeaseEngine::Impl::Subject& LeaseEngine::Impl::learn(const AccountRef& account, MonotonicTime now) {
  std::unique_ptr<Subject>& subject = subjects_[account->subject];
  if (!subject) {
    subject = std::make_unique<Subject>();
    subject->number = ++subjects_learnt_;
    subject->named = account->subject;
    subject->key = subject->named->key;
    by_key_[subject->key] = subject.get();
    partition_of(*subject).subjects.insert(subject.get());
  }
  if (std::ranges::none_of(subject->accounts, [&](const Held& one) { return one.account == account; })) {
    subject->accounts.push_back({.account = account, .reported = now});
    look_at(*subject, std::min(subject->look_at, now + until_look(*subject, now)));
  }
  return *subject;
}

LeaseEngine::Impl::Held& LeaseEngine::Impl::held(Subject& subject, const Account& account) {
  auto found =
      std::ranges::find_if(subject.accounts, [&](const Held& one) { return one.account.get() == &account; });
  CHECK(found != subject.accounts.end(), "an account in an op is known");
  return *found;
}

void LeaseEngine::Impl::learn_all(Partition& p, MonotonicTime now) {
  std::vector<AccountRef> accounts;
  table_.each_subject(p.number, [&](LeaseSubject& subject) {
    auto known = subjects_.find(&subject);
    if (known == subjects_.end() || known->second->accounts.size() != subject.accounts.size())
      accounts.insert(accounts.end(), subject.accounts.begin(), subject.accounts.end());
  });
  for (const AccountRef& account : accounts) learn(account, now);
}

LeaseEngine::Impl::Subject* LeaseEngine::Impl::find(const std::string& key) {
  auto found = by_key_.find(key);
  return found == by_key_.end() ? nullptr : found->second;
}

// ---- the queue

void LeaseEngine::Impl::queue(Subject& subject, MonotonicTime now) {
  if (subject.in_flight) {
    subject.again = true;
    return;
  }
  Partition& p = partition_of(subject);
  ensure_joined(p, now);
  if (subject.queued) return;
  subject.queued = subject.named->queued = true;
  p.ready.push_back(&subject);
}

void LeaseEngine::Impl::pump(Partition& p, MonotonicTime now) {
  while (!p.ready.empty() && may_send(p) && now >= p.no_ops_before &&
         unacknowledged_ < options_.max_unacknowledged) {
    Subject& subject = *p.ready.front();
    p.ready.pop_front();
    subject.queued = subject.named->queued = false;
    if (subject.in_flight) {
      subject.again = true;
    } else if (!make_op(p, subject, now)) {
      p.no_ops_before = now + options_.recheck_interval;
      queue(subject, now);
    }
  }
}

// ---- requests

void LeaseEngine::Impl::request(AccountRef account, std::uint32_t units, std::uint64_t rule_limit,
                                MonotonicTime now, Done done) {
  auto say = [&](Answer answer) { answers_.push_back([done = std::move(done), answer] { done(answer); }); };
  if (account->retired.load()) return say(Answer::granted);  // looked up again by whoever asks
  Subject& subject = learn(account, now);
  Partition& p = partition_of(subject);
  check_lapse(p, now);
  account->limit = rule_limit;
  if (!p.up || now < p.no_ops_before || now < p.no_grants_before) return say(Answer::unavailable);
  if (account->limited && units > kTokensMax / 2) return say(Answer::refused);
  // Nothing lacking: the tokens came in meanwhile, or were lost to another; one more makes an answer of it.
  subject.waiting.push_back({account, std::max(units, 1U), std::move(done)});
  queue(subject, now);
  pump(p, now);
}

void LeaseEngine::Impl::forget_refusal(Subject& subject, Held& one) {
  one.doubted = subject.in_flight;
  AccountView view = one.account->view();
  view.denied_until = view.fits_at = Milliseconds(0);
  view.denied_units = 0;
  one.account->set_view(view);
}

void LeaseEngine::Impl::limit_changed(const AccountRef& account, MonotonicTime now) {
  if (account->retired.load()) return;
  Subject& subject = learn(account, now);
  Held& one = held(subject, *account);
  forget_refusal(subject, one);
  one.tries = 0;
  one.not_before = MonotonicTime{};
  one.give_up = one.tell = account->limited;
  queue(subject, now);
  pump(partition_of(subject), now);
}

bool LeaseEngine::Impl::business(const Subject& subject, bool give_up) const {
  return subject.in_flight || std::ranges::any_of(subject.accounts, [&](const Held& one) {
           const Account& account = *one.account;
           return account.cell->unsettled() > 0 || account.cell->pending_seq() != 0 || account.forget ||
                  !account.given_back.empty() || (give_up && account.cell->available() > 0);
         });
}

void LeaseEngine::Impl::settle(Partition& p, Subject& subject, bool give_up, MonotonicTime now,
                               SettleDone done) {
  if (!p.up || !business(subject, give_up)) {
    const bool settled = !business(subject, give_up);
    answers_.push_back([done = std::move(done), settled] { done(settled); });
    return;
  }
  subject.flush = true;
  if (give_up)
    for (Held& one : subject.accounts) one.give_up = one.account->limited;
  subject.settles.push_back(std::move(done));
  queue(subject, now);
  pump(p, now);
}

void LeaseEngine::Impl::settle_all(bool give_up, MonotonicTime now, SettleDone done) {
  struct Shared {
    std::size_t open = 1;
    bool all = true;
    SettleDone done;
  };
  auto shared = std::make_shared<Shared>();
  shared->done = std::move(done);
  auto one_done = [shared](bool settled) {
    shared->all = shared->all && settled;
    if (--shared->open == 0) shared->done(shared->all);
  };
  for (auto& p : partitions_) {
    if (!p) continue;
    check_lapse(*p, now);
    learn_all(*p, now);
    for (Subject* subject : p->subjects) {
      if (!business(*subject, give_up)) continue;
      ++shared->open;
      settle(*p, *subject, give_up, now, one_done);
    }
  }
  answers_.push_back([one_done] { one_done(true); });
}

// ---- looking after subjects

void LeaseEngine::Impl::look_at(Subject& subject, MonotonicTime when) {
  if (subject.look_at != kNever) due_.erase({subject.look_at, &subject});
  subject.look_at = when;
  if (when != kNever) due_.insert({when, &subject});
}

// A bucket is old when it has been over for long: nothing is gained by telling parts of it. A long one is not waited
// for.
LeaseEngine::Impl::Unsettled LeaseEngine::Impl::unsettled(const Held& one, MonotonicTime now) const {
  const Account& account = *one.account;
  if (!account.cell->dirty()) return {};
  const Duration reported = now - one.reported;
  const Partition& p = *partitions_[account.partition];
  if (!clock_known(p)) return {reported, 0};
  const Milliseconds hi = store_hi(p, now);
  const auto uses = account.cell->unmoved_uses(account.shape.bucket_of(hi));
  if (uses.empty()) return {reported, 0};
  if (account.shape.bucket > options_.flush_interval / kFlushBuckets) return {reported, uses.size()};
  return {std::clamp<Duration>(hi - (uses.front().bucket + 1) * account.shape.bucket, Duration(0), reported),
          uses.size()};
}

// How long a lease that nobody uses is held on to: who comes back need not wait. Shorter where cells are scarce.
Duration LeaseEngine::Impl::kept_unused(const Account& account) const {
  const Milliseconds window = std::max(options_.flush_interval, account.shape.window);
  return cells_scarce() ? window : kKeptWindows * window;
}

bool LeaseEngine::Impl::cells_scarce() const {
  return table_.accounts() > table_.capacity() / 2;
}

// Until a subject may need us, if nobody asks before: a cell keeps kClosedBuckets apart, so one that can have filled all
// but one is looked at.
Duration LeaseEngine::Impl::until_look(const Subject& subject, MonotonicTime now) const {
  Duration least = options_.flush_interval;
  for (const Held& one : subject.accounts) {
    const Account& account = *one.account;
    const Unsettled unsettled = this->unsettled(one, now);
    const auto buckets =
        static_cast<std::int64_t>(std::min<std::size_t>(unsettled.buckets, kBucketsApart - 1));
    least = std::min<Duration>(least, account.shape.bucket * (kBucketsApart - buckets));
    if (account.cell->dirty()) least = std::min<Duration>(least, options_.flush_interval - unsettled.age);
    if (!account.given_back.empty() || account.refill_asked.load(std::memory_order_relaxed))
      least = std::min<Duration>(least, options_.recheck_interval);
    if (one.not_before > now) least = std::min(least, one.not_before - now);
  }
  return std::max<Duration>(least, kLookMin);
}

void LeaseEngine::Impl::look(Subject& subject, MonotonicTime now) {
  Partition& p = partition_of(subject);
  check_lapse(p, now);
  look_at(subject, kNever);
  bool ask = !subject.waiting.empty();
  for (Held& one : subject.accounts) {
    Account& account = *one.account;
    const LeaseCell& cell = *account.cell;
    const Duration elapsed = now - one.reported;
    const bool outdated = account.outdated.load(std::memory_order_relaxed);
    const Unsettled unsettled = this->unsettled(one, now);
    const bool crowded = unsettled.buckets > static_cast<std::size_t>(kBucketsApart);
    if (cell.dirty() && (outdated || crowded || unsettled.age >= options_.flush_interval))
      ask = subject.flush = true;
    // A word now and then keeps the store from forgetting it. A limit that the rule does not name may fall without a word
    // to us, and so may any of which we have heard nothing since we were deaf.
    const bool may_fall = one.reported < p.listening_since || one.account->view().limit != account.limit;
    const bool silent =
        !cell.dirty() &&
        elapsed >= std::max<Duration>(options_.flush_interval, account.shape.window / (may_fall ? 4 : 1));
    const bool unused = silent && clock_known(p) &&
                        store_hi(p, now) - Milliseconds(account.last_used_ms.load()) >= kept_unused(account);
    if (cell.outstanding() > 0 && cell.pending_seq() == 0) {
      if (outdated || unused) ask = one.give_up = true;
      if (silent) ask = one.tell = true;
    }
    if (account.forget || !account.given_back.empty() || voided(p, account)) ask = true;
    if (!one.prefetch) account.refill_asked.store(false, std::memory_order_relaxed);
  }
  if (ask && p.up) {
    queue(subject, now);
    pump(p, now);
  }
  look_at(subject, now + until_look(subject, now));
  retire_idle(p, subject, now);
}

// Accounts with nothing lent, nothing unsettled, no calls for a while and no refusal that still holds; then the subject that
// has none left.
void LeaseEngine::Impl::retire_idle(Partition& p, Subject& subject, MonotonicTime now) {
  if (subject.in_flight || subject.queued || subject.blocked || !subject.waiting.empty() ||
      !subject.settles.empty())
    return;
  std::erase_if(subject.accounts, [&](const Held& one) {
    const Account& account = *one.account;
    const LeaseCell& cell = *account.cell;
    if (cell.unsettled() > 0 || cell.outstanding() > 0 || cell.available() > 0 || cell.pending_seq() != 0)
      return false;
    if (account.forget || !account.given_back.empty()) return false;
    const bool lately = clock_known(p) && store_hi(p, now).count() - account.last_used_ms.load() <
                                              options_.flush_interval.count();
    const bool refuses = clock_known(p) && store_hi(p, now) < account.view().denied_until && !cells_scarce();
    if (!account.outdated.load() && (lately || refuses || now - one.reported < options_.flush_interval))
      return false;
    table_.retire(one.account);
    return true;
  });
  if (!subject.accounts.empty()) return;
  look_at(subject, kNever);
  p.subjects.erase(&subject);
  by_key_.erase(subject.key);
  const LeaseSubject* named = subject.named;
  subjects_.erase(named);
}

MonotonicTime LeaseEngine::Impl::tick(MonotonicTime now) {
  unsigned joins = 0;
  for (std::size_t i = 0; i < awake_.size(); ++i) {  // only grows meanwhile
    Partition& p = *awake_[i];
    tick(p, now);
    joins += p.state == State::joining || p.state == State::replaying ? 1 : 0;
  }
  while (!due_.empty() && due_.begin()->first <= now) look(*due_.begin()->second, now);
  if (now >= sweep_at_) {
    sweep_at_ = now + kSweepEvery;
    for (auto& p : partitions_)
      if (p && p->number / options_.engines % kSweeps == sweep_next_) learn_all(*p, now);
    sweep_next_ = (sweep_next_ + 1) % kSweeps;
  }
  MonotonicTime due = now + kSweepEvery;
  for (std::size_t i = 0; i < awake_.size(); ++i) {
    Partition& p = *awake_[i];
    if (p.old && p.up && p.state == State::absent && joins < kJoinsAtOnce) {
      ++joins;
      ensure_joined(p, now);
    }
    due = std::min(due, next_due(p));
  }
  std::erase_if(awake_, [](Partition* p) {
    p->awake = p->state != State::absent || p->old || p->ping_under_way || !p->ready.empty();
    return !p->awake;
  });
  if (!due_.empty()) due = std::min(due, due_.begin()->first);
  return due;
}

LeaseEngine::PartitionStatus LeaseEngine::Impl::status(const Partition& p) const {
  using Shown = PartitionStatus::State;
  PartitionStatus status;
  switch (p.state) {
    case State::absent:
      status.state = Shown::absent;
      break;
    case State::waiting:
      status.state = Shown::waiting;
      break;
    case State::joining:
    case State::fenced:
      status.state = Shown::joining;
      break;
    case State::replaying:
      status.state = Shown::replaying;
      break;
    case State::open:
      status.state = Shown::open;
      break;
  }
  status.next_seq = p.next_seq;
  status.acknowledged = p.acked;
  status.unacknowledged = p.in_flight.size();
  status.fenced = p.state == State::fenced;
  return status;
}

// ---- entries

LeaseEngine::LeaseEngine(LeaseTable& table, LeaseStore& store, OpLog& log, LeaseOptions options)
    : options_(std::move(options)), impl_(std::make_unique<Impl>(table, store, log, options_)) {}

LeaseEngine::~LeaseEngine() = default;

void LeaseEngine::request(AccountRef account, std::uint32_t units, std::uint64_t rule_limit,
                          MonotonicTime now, Done done) {
  Impl::Entry entry(*impl_);
  impl_->request(std::move(account), units, rule_limit, now, std::move(done));
}

void LeaseEngine::prefetch(AccountRef account, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  if (account->retired.load()) return;
  Impl::Subject& subject = impl_->learn(account, now);
  Impl::Partition& p = impl_->partition_of(subject);
  impl_->check_lapse(p, now);
  if (!account->limited || !p.up) return;
  impl_->held(subject, *account).prefetch = true;
  impl_->queue(subject, now);
  impl_->pump(p, now);
}

void LeaseEngine::limit_changed(AccountRef account, std::uint64_t rule_limit, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  impl_->check_lapse(impl_->partition(account->subject->partition), now);
  account->limit = rule_limit;
  impl_->limit_changed(account, now);
}

void LeaseEngine::take_back(AccountRef account, std::int64_t bucket, std::uint32_t units, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  if (account->retired.load()) {
    auto again = impl_->table_.find_or_create({account->subject->key, account->field}, account->shape,
                                              account->limited);
    if (!again) return;  // no place for it: they stay counted, which is the safe side
    account = *std::move(again);
  }
  Impl::Subject& subject = impl_->learn(account, now);
  account->given_back.push_back({bucket, -std::int64_t{units}});
  impl_->look_at(subject, std::min(subject.look_at, now + options_.recheck_interval));
}

void LeaseEngine::settle(const std::string& subject_key, bool give_up, MonotonicTime now,
                         std::function<void(bool)> done) {
  Impl::Entry entry(*impl_);
  if (subject_key.empty()) return impl_->settle_all(give_up, now, std::move(done));
  Impl::Partition& p = impl_->partition(partition_of(subject_key));
  impl_->check_lapse(p, now);
  for (const AccountRef& account : impl_->table_.of_subject(subject_key)) impl_->learn(account, now);
  if (Impl::Subject* subject = impl_->find(subject_key))
    return impl_->settle(p, *subject, give_up, now, std::move(done));
  impl_->answers_.push_back([done = std::move(done)] { done(true); });
}

void LeaseEngine::drain(MonotonicTime now, std::function<void(bool)> done) {
  settle("", true, now, std::move(done));
}

void LeaseEngine::on_up(unsigned partition, std::string run, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  impl_->on_up(impl_->partition(partition), std::move(run), now);
}

void LeaseEngine::on_down(unsigned partition, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  impl_->on_down(impl_->partition(partition), now);
}

void LeaseEngine::on_op(unsigned partition, std::uint64_t seq, const OpReply& reply, MonotonicTime sent,
                        MonotonicTime now) {
  Impl::Entry entry(*impl_);
  impl_->on_op(impl_->partition(partition), seq, reply, sent, now);
}

void LeaseEngine::on_replay(unsigned partition, std::uint64_t seq, const OpReply& reply, MonotonicTime sent,
                            MonotonicTime now) {
  Impl::Entry entry(*impl_);
  impl_->on_replay(impl_->partition(partition), seq, reply, sent, now);
}

void LeaseEngine::on_ping(unsigned partition, const PingReply& reply, MonotonicTime sent, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  impl_->on_ping(impl_->partition(partition), reply, sent, now);
}

void LeaseEngine::on_error(unsigned partition, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  impl_->on_error(impl_->partition(partition), now);
}

void LeaseEngine::on_recall(const std::string& subject_key, const std::string& field, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  Impl::Subject* subject = impl_->find(subject_key);
  if (subject == nullptr) return;
  Impl::Partition& p = impl_->partition_of(*subject);
  impl_->check_lapse(p, now);
  for (Impl::Held& one : subject->accounts) {
    if (one.account->field != field || !one.account->limited) continue;
    const bool needed = std::ranges::any_of(
        subject->waiting, [&](const Impl::Waiting& waiting) { return waiting.account == one.account; });
    if (needed) continue;  // calls here lack tokens themselves
    ++impl_->counters_.recalls;
    one.give_up = true;
    one.prefetch = false;
    impl_->queue(*subject, now);
  }
  impl_->pump(p, now);
}

void LeaseEngine::on_policy(const std::string& subject_key, const std::string& field, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  impl_->check_lapse(impl_->partition(partition_of(subject_key)), now);
  for (const AccountRef& account : impl_->table_.of_subject(subject_key))
    if (field.empty() || account->field == field) impl_->limit_changed(account, now);
}

void LeaseEngine::on_room(const std::string& subject_key, const std::string& field, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  Impl::Subject* subject = impl_->find(subject_key);
  if (subject == nullptr) return;
  impl_->check_lapse(impl_->partition_of(*subject), now);
  for (Impl::Held& one : subject->accounts)
    if (one.account->field == field) impl_->forget_refusal(*subject, one);
}

void LeaseEngine::on_listening(unsigned partition, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  Impl::Partition& p = impl_->partition(partition);
  impl_->check_lapse(p, now);
  p.listening_since = now;
  for (Impl::Subject* subject : p.subjects)
    for (Impl::Held& one : subject->accounts) impl_->forget_refusal(*subject, one);
  if (p.state != Impl::State::absent) impl_->on_fence(p, now);
}

void LeaseEngine::on_fence(unsigned partition, MonotonicTime now) {
  Impl::Entry entry(*impl_);
  impl_->on_fence(impl_->partition(partition), now);
}

MonotonicTime LeaseEngine::tick(MonotonicTime now) {
  Impl::Entry entry(*impl_);
  return impl_->tick(now);
}

const LeaseCounters& LeaseEngine::counters() const {
  return impl_->counters_;
}

LeaseEngine::PartitionStatus LeaseEngine::status(unsigned partition) const {
  return impl_->status(impl_->partition(partition));
}

Milliseconds LeaseEngine::fence_open_since(MonotonicTime now) const {
  MonotonicTime first = now;
  for (const auto& p : impl_->partitions_)
    if (p) first = std::min(first, p->fenced_since);
  return std::chrono::duration_cast<Milliseconds>(now - first);
}

bool LeaseEngine::idle() const {
  return impl_->unacknowledged_ == 0 && std::ranges::all_of(impl_->partitions_, [](const auto& p) {
           return !p || (p->ready.empty() && p->blocked.empty());
         });
}

}  // namespace tollgate::quota
