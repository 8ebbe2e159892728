#include "proxy/cli/lease_worker.h"

#include <event2/event.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "metering/base/check.h"
#include "metering/seats/recorder.h"

namespace tollgate::cli {
namespace {

MonotonicTime now() {
  return redis::Connection::now();
}

// When a seat was taken or left, for the journal.
Milliseconds calendar_now() {
  return std::chrono::floor<Milliseconds>(std::chrono::system_clock::now().time_since_epoch());
}

timeval timeval_of(Duration duration) {
  auto us = std::chrono::ceil<std::chrono::microseconds>(std::max(duration, Duration::zero())).count();
  return {.tv_sec = us / 1'000'000, .tv_usec = us % 1'000'000};
}

// A one-shot timer of a libevent loop that ends with its object.
class OneShot {
 public:
  OneShot(event_base* base, Duration after, std::function<void()> expired) : expired_(std::move(expired)) {
    event_ = evtimer_new(base, &OneShot::on_timer, this);
    CHECK(event_ != nullptr, "a timer can be made");
    const timeval time = timeval_of(after);
    evtimer_add(event_, &time);
  }
  ~OneShot() { event_free(event_); }
  OneShot(const OneShot&) = delete;
  OneShot& operator=(const OneShot&) = delete;

 private:
  static void on_timer(int, short, void* self) {
    auto expired = std::move(static_cast<OneShot*>(self)->expired_);
    expired();  // may destroy this object
  }
  event* event_;
  std::function<void()> expired_;
};

}  // namespace

LeaseShared::LeaseShared(journal::Journal& own_journal, unsigned workers)
    : journal(own_journal), table({.cells = own_journal.cells(), .workers = workers}) {
  for (unsigned i = 0; i < workers; ++i) places.push_back(std::make_unique<Place>());
}

bool LeaseShared::post(unsigned worker, std::function<void(LeaseWorker&)> task) {
  Place* place = places[worker].get();
  return place->mailbox.post([place, task = std::move(task)] {
    if (place->worker != nullptr) task(*place->worker);
  });
}

class LeaseWorker::Impl final : public quota::OwnerPort, public redis::LeaseStoreEvents {
 public:
  Impl(LeaseWorker& self, event_base* base, LeaseShared& shared, LeaseWorkerOptions options)
      : base_(base),
        shared_(shared),
        options_(std::move(options)),
        store_(base, options_.store, *this, [this](unsigned p) { return mine(p); }),
        engine_(shared.table, store_, shared.journal.op_log(options_.index), options_.engine),
        ledger_(shared.table, *this, now, options_.ledger),
        redis_seats_(store_),
        seat_store_(redis_seats_, calendar_now,
                    [&stream = shared.journal.stream(options_.index)](const usage::SeatEntry& entry) {
                      return stream.append(entry);
                    }),
        seats_(seat_store_, now, options_.seats) {
    engine_timer_ = evtimer_new(base, &Impl::on_engine_timer, this);
    seat_timer_ = evtimer_new(base, &Impl::on_seat_timer, this);
    CHECK(engine_timer_ != nullptr && seat_timer_ != nullptr, "a timer can be made");
    set_pools(options_.pools);
    store_.observe_round_trips(options_.observe_round_trip);
    shared_.places[options_.index]->worker = &self;
    shared_.places[options_.index]->mailbox.attach(base);
    store_.start();
    enter([] {});
  }
  ~Impl() override {
    shared_.places[options_.index]->worker = nullptr;
    shared_.places[options_.index]->mailbox.detach();
    shared_.table.leave(options_.index);
    for (unsigned p = 0; p < quota::kPartitions; ++p)
      if (mine(p)) shared_.up[p] = shared_.agreed[p] = false;
    event_free(engine_timer_);
    event_free(seat_timer_);
  }

  bool mine(unsigned partition) const { return shared_.owner_of(partition) == options_.index; }

  // Every way into the engine: when the outermost returns, what is due is done and the timer is set anew.
  template <class Action>
  void enter(Action&& action) {
    ++depth_;
    action();
    if (--depth_ > 0) return;
    note_agreed();
    const MonotonicTime at = now();
    const timeval wait = timeval_of(engine_.tick(at) - at);
    evtimer_add(engine_timer_, &wait);
  }
  // Until every partition has been found open once after a break, what is found open is passed on.
  void note_agreed() {
    using State = quota::LeaseEngine::PartitionStatus::State;
    for (auto p = waiting_.begin(); p != waiting_.end();) {
      const State state = engine_.status(*p).state;
      const bool agreed = shared_.up[*p] && (state == State::open || state == State::absent);
      if (agreed) shared_.agreed[*p] = true;
      p = agreed ? waiting_.erase(p) : std::next(p);
    }
  }
  // Runs action(engine of the owner) there; false: that worker has ended.
  bool at_owner(unsigned partition, std::function<void(Impl&)> action) {
    if (mine(partition)) {
      action(*this);
      return true;
    }
    return shared_.post(shared_.owner_of(partition),
                        [action = std::move(action)](LeaseWorker& owner) { action(*owner.impl_); });
  }

  // ---- quota::OwnerPort
  void request(quota::AccountRef account, std::uint32_t units, std::uint64_t rule_limit,
               quota::LeaseEngine::Done done) override {
    const unsigned partition = account->subject->partition;
    if (mine(partition))
      return enter([&] { engine_.request(std::move(account), units, rule_limit, now(), std::move(done)); });
    const unsigned asker = options_.index;
    auto answer = [&shared = shared_, asker, done](quota::LeaseEngine::Answer said) {
      shared.post(asker, [done, said](LeaseWorker&) { done(said); });
    };
    const bool posted = at_owner(partition, [account, units, rule_limit, answer](Impl& owner) {
      owner.enter([&] { owner.engine_.request(account, units, rule_limit, now(), answer); });
    });
    if (!posted) done(quota::LeaseEngine::Answer::unavailable);
  }
  void prefetch(quota::AccountRef account) override {
    at_owner(account->subject->partition,
             [account](Impl& owner) { owner.enter([&] { owner.engine_.prefetch(account, now()); }); });
  }
  void limit_changed(quota::AccountRef account, std::uint64_t rule_limit) override {
    at_owner(account->subject->partition, [account, rule_limit](Impl& owner) {
      owner.enter([&] { owner.engine_.limit_changed(account, rule_limit, now()); });
    });
  }
  void take_back(quota::AccountRef account, std::int64_t bucket, std::uint32_t units) override {
    at_owner(account->subject->partition, [account, bucket, units](Impl& owner) {
      owner.enter([&] { owner.engine_.take_back(account, bucket, units, now()); });
    });
  }
  void settle(std::string subject_key, std::function<void(bool)> done) override {
    const unsigned partition = quota::partition_of(subject_key);
    if (mine(partition)) return enter([&] { engine_.settle(subject_key, false, now(), std::move(done)); });
    const unsigned asker = options_.index;
    auto answer = [&shared = shared_, asker, done](bool settled) {
      shared.post(asker, [done, settled](LeaseWorker&) { done(settled); });
    };
    const bool posted = at_owner(partition, [subject_key, answer](Impl& owner) {
      owner.enter([&] { owner.engine_.settle(subject_key, false, now(), answer); });
    });
    if (!posted) done(false);
  }
  bool store_up(unsigned partition) const override {
    return shared_.up[partition].load(std::memory_order_relaxed);
  }
  void read(std::vector<quota::AccountCharge> accounts,
            std::function<void(Result<std::vector<quota::LeaseState>>&&)> done) override {
    store_.read(std::move(accounts), std::move(done));
  }
  void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
            quota::Ledger::ListDone done) override {
    store_.list(std::move(subject_key), std::move(prefix), window, bucket, std::move(done));
  }
  std::shared_ptr<void> timer(Milliseconds after, std::function<void()> expired) override {
    return std::make_shared<OneShot>(base_, after, std::move(expired));
  }

  // ---- redis::LeaseStoreEvents
  void on_up(unsigned partition, const std::string& run) override {
    waiting_.insert(partition);
    shared_.up[partition] = true;
    enter([&] { engine_.on_up(partition, run, now()); });
  }
  void on_down(unsigned partition) override {
    shared_.up[partition] = shared_.agreed[partition] = false;
    waiting_.erase(partition);
    enter([&] { engine_.on_down(partition, now()); });
  }
  void on_op(unsigned partition, std::uint64_t seq, quota::OpReply&& reply, MonotonicTime sent) override {
    for (const quota::LeaseState& state : reply.states)
      if (state.over)
        options_.log("error",
                     fmt::format("partition {}: more calls were made than had been lent; they are counted. "
                                 "The store and a journal must both have lost data",
                                 partition));
    enter([&] { engine_.on_op(partition, seq, reply, sent, now()); });
  }
  void on_replay(unsigned partition, std::uint64_t seq, quota::OpReply&& reply, MonotonicTime sent) override {
    enter([&] { engine_.on_replay(partition, seq, reply, sent, now()); });
  }
  void on_ping(unsigned partition, quota::PingReply&& reply, MonotonicTime sent) override {
    enter([&] { engine_.on_ping(partition, reply, sent, now()); });
  }
  void on_error(unsigned partition, const std::string& what) override {
    if (what != last_error_) {
      last_error_ = what;
      options_.log("warning", fmt::format("the quota store refuses: {}", what));
    }
    enter([&] { engine_.on_error(partition, now()); });
  }
  // The listening worker hears for all.
  void on_message(const quota::StoreModel::Message& message) override {
    using Kind = quota::StoreModel::Message::Kind;
    at_owner(message.partition, [message](Impl& owner) {
      owner.enter([&] {
        switch (message.kind) {
          case Kind::recall:
            return owner.engine_.on_recall(message.account.subject_key, message.account.field, now());
          case Kind::policy:
            return owner.engine_.on_policy(message.account.subject_key, message.account.field, now());
          case Kind::room:
            return owner.engine_.on_room(message.account.subject_key, message.account.field, now());
          case Kind::fence:
            return owner.engine_.on_fence(message.partition, now());
        }
      });
    });
  }

  // While nobody listened, somebody may have raised a fence, or made room where we remember a refusal.
  void on_subscribed() override {
    for (unsigned i = 0; i < shared_.places.size(); ++i)
      shared_.post(i, [](LeaseWorker& worker) {
        Impl& owner = *worker.impl_;
        owner.enter([&] {
          for (unsigned p = 0; p < quota::kPartitions; ++p)
            if (owner.mine(p)) owner.engine_.on_listening(p, now());
        });
      });
  }

  void settle_all(bool give_up, std::function<void(bool)> done) {
    enter([&] {
      if (give_up) return engine_.drain(now(), std::move(done));
      engine_.settle("", false, now(), std::move(done));
    });
  }
  Milliseconds clock_disagreement() const {
    Milliseconds worst{0};
    for (unsigned p = 0; p < quota::kPartitions; ++p) {
      if (!mine(p) || !shared_.table.partition(p).clock.known()) continue;
      const Milliseconds here = shared_.table.partition(p).clock.disagreement();
      if (std::abs(here.count()) > std::abs(worst.count())) worst = here;
    }
    return worst;
  }

  void set_pools(std::vector<seats::Pool> pools) {
    const bool any = !pools.empty();
    seats_.configure(std::move(pools));
    if (any)
      look_after_seats();
    else
      evtimer_del(seat_timer_);
  }
  void look_after_seats() {
    const MonotonicTime next = seats_.tick();
    const timeval wait = timeval_of(next - now());
    evtimer_add(seat_timer_, &wait);
  }
  static void on_seat_timer(int, short, void* self) { static_cast<Impl*>(self)->look_after_seats(); }

  static void on_engine_timer(int, short, void* self) {
    static_cast<Impl*>(self)->enter([] {});
  }

  event_base* base_;
  LeaseShared& shared_;
  LeaseWorkerOptions options_;
  redis::RedisStore store_;
  quota::LeaseEngine engine_;
  quota::LeaseLedger ledger_;
  redis::RedisSeats redis_seats_;
  seats::SeatRecorder seat_store_;
  seats::SeatLedger seats_;
  event* engine_timer_ = nullptr;
  event* seat_timer_ = nullptr;
  unsigned depth_ = 0;
  std::set<unsigned> waiting_;  // partitions that are up and not yet known to be agreed on
  std::string last_error_;
};

LeaseWorker::LeaseWorker(event_base* base, LeaseShared& shared, LeaseWorkerOptions options)
    : impl_(std::make_unique<Impl>(*this, base, shared, std::move(options))) {}
LeaseWorker::~LeaseWorker() = default;

void LeaseWorker::charge(std::span<const quota::AccountCharge> charges, ChargeDone done) {
  impl_->ledger_.charge(charges, std::move(done));
}
void LeaseWorker::give_back(std::span<const quota::AccountCharge> charges, const quota::Receipt& receipt) {
  impl_->ledger_.give_back(charges, receipt);
}
void LeaseWorker::read(std::vector<quota::AccountCharge> accounts, ReadDone done) {
  impl_->ledger_.read(std::move(accounts), std::move(done));
}
void LeaseWorker::list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
                       ListDone done) {
  impl_->ledger_.list(std::move(subject_key), std::move(prefix), window, bucket, std::move(done));
}
quota::LeaseLedger& LeaseWorker::ledger() {
  return impl_->ledger_;
}
redis::RedisStore& LeaseWorker::store() {
  return impl_->store_;
}
seats::SeatLedger& LeaseWorker::seats() {
  return impl_->seats_;
}
seats::SeatStore& LeaseWorker::seat_store() {
  return impl_->seat_store_;
}
void LeaseWorker::set_pools(std::vector<seats::Pool> pools) {
  impl_->set_pools(std::move(pools));
}
const quota::LeaseEngine& LeaseWorker::engine() const {
  return impl_->engine_;
}
Milliseconds LeaseWorker::fence_wait() const {
  return impl_->engine_.fence_open_since(now());
}
Milliseconds LeaseWorker::clock_disagreement() const {
  return impl_->clock_disagreement();
}
void LeaseWorker::tick() {
  impl_->ledger_.tick();
}
void LeaseWorker::settle_all(bool give_up, std::function<void(bool)> done) {
  impl_->settle_all(give_up, std::move(done));
}

}  // namespace tollgate::cli
