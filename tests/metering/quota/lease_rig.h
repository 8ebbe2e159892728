// Proxies and one store in memory for the tests of the lease engine. Messages lie on a wire until they are delivered, so
// a test decides what is lost, late, or said twice. Time moves only when told to.
#pragma once
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>

#include "metering/quota/keys.h"
#include "metering/quota/lease_engine.h"
#include "metering/quota/store_model.h"

namespace tollgate::quota {

inline const std::string kAnn = subject_key({"acme", {}, "ann"}), kBob = subject_key({"acme", {}, "bob"});
inline const unsigned kOfAnn = partition_of(kAnn);

// The journal of a proxy; it can be full.
class MemoryLog final : public OpLog {
 public:
  bool full = false;
  std::uint64_t dropped_below = 0;
  std::map<unsigned, std::map<std::uint64_t, Op>> ops;

  bool append(const Op& op) override {
    if (full) return false;
    EXPECT_TRUE(ops[op.partition].emplace(op.seq, op).second) << "a number twice: " << op.seq;
    return true;
  }
  std::uint64_t read(unsigned partition, std::uint64_t after, std::uint64_t up_to,
                     const std::function<void(const Op&)>& visit) override {
    for (const auto& [seq, op] : ops[partition])
      if (seq > after && seq <= up_to && seq >= dropped_below) visit(op);
    return std::max(after + 1, dropped_below);
  }
  std::uint64_t last_seq(unsigned partition) override {
    return ops[partition].empty() ? 0 : ops[partition].rbegin()->first;
  }
};

class World;

class Proxy final : public LeaseStore {
 public:
  Proxy(World& world, Incarnation incarnation, LeaseOptions options);

  void send(const Op& op, const SendContext& context) override { put(Kind::op, op, {}, {}, context); }
  void send(const Replay& replay, const SendContext& context) override {
    put(Kind::replay, {}, replay, {}, context);
  }
  void send(const Ping& ping, const SendContext& context) override { put(Kind::ping, {}, {}, ping, context); }

  enum class Kind { op, replay, ping };
  struct Sent {
    Kind kind;
    Op op;
    Replay replay;
    Ping ping;
    SendContext context;
    MonotonicTime at;
  };
  void put(Kind kind, Op op, Replay replay, Ping ping, SendContext context);
  bool deliver();  // the oldest message, and its reply; false: none
  void arrive(const Sent& message, bool answer);

  // kill -9 and a new process on what the old one left.
  void restart();
  void up();
  void down();

  AccountRef account(const std::string& field = "daily", Milliseconds window = std::chrono::hours(24),
                     bool limited = true, const std::string& subject = kAnn);
  // As a ledger does: from what is here, else by asking, until there is an answer. The store's answer is awaited.
  bool call(const AccountRef& account, std::uint64_t limit, std::uint32_t units = 1);
  // The first step of it: asks and leaves the answer to the test.
  void ask(const AccountRef& account, std::uint64_t limit, std::uint32_t units = 1);

  World& world;
  Incarnation incarnation;
  LeaseOptions options;
  std::unique_ptr<LeaseCell[]> cells;
  MemoryLog log;
  std::unique_ptr<LeaseTable> table;
  std::unique_ptr<LeaseEngine> engine;
  std::deque<Sent> wire;
  std::vector<Sent> history;  // everything ever sent
  bool hold = false;          // messages stay on the wire
  unsigned drop_replies = 0;  // as many replies are lost, with the connection
  bool errors = false;        // the server answers everything with an error
  unsigned error_every = 0;   // or each so manieth message
  unsigned delivered = 0;
  std::vector<LeaseEngine::Answer> answers;
  std::uint64_t admitted = 0;
};

class World {
 public:
  World() : store([this] { return clock; }) {}

  // So many calls more than the rule's limit for a while.
  void grant_ann(std::uint64_t extra, Milliseconds length) {
    LimitOverride grant;
    grant.grants.push_back({extra, clock + length});
    store.set_override({kAnn, "daily"}, grant);
  }

  Proxy& add(LeaseOptions options = {}) {
    proxies.push_back(std::make_unique<Proxy>(*this, static_cast<Incarnation>(proxies.size() + 1), options));
    store.set_listeners(static_cast<std::uint32_t>(proxies.size()));
    return *proxies.back();
  }
  // Delivers until nothing moves any more. Time stands still.
  void run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (auto& proxy : proxies) {
        while (proxy->deliver()) moved = true;
        proxy->engine->tick(now);
        if (!proxy->hold && !proxy->wire.empty()) moved = true;
      }
      for (const auto& message : store.take_messages()) {
        moved = true;
        for (auto& proxy : proxies) {
          if (deaf) continue;
          using Kind = StoreModel::Message::Kind;
          if (message.kind == Kind::recall && message.to == proxy->incarnation)
            proxy->engine->on_recall(message.account.subject_key, message.account.field, now);
          if (message.kind == Kind::policy)
            proxy->engine->on_policy(message.account.subject_key, message.account.field, now);
          if (message.kind == Kind::room)
            proxy->engine->on_room(message.account.subject_key, message.account.field, now);
          if (message.kind == Kind::fence) proxy->engine->on_fence(message.partition, now);
        }
      }
    }
  }
  void advance(Duration by, Duration step = Milliseconds(100)) {
    run();
    for (Duration passed{0}; passed < by; passed += step) {
      now += std::min(step, by - passed);
      clock += std::chrono::duration_cast<Milliseconds>(std::min(step, by - passed));
      run();
    }
  }

  MonotonicTime now{std::chrono::hours(5)};
  Milliseconds clock{1'764'000'000'000};
  StoreModel store;
  std::string run_id = "run-1";
  bool deaf = false;  // nobody hears what the store publishes
  std::vector<std::unique_ptr<Proxy>> proxies;

  StoreModel::Sums sums(const std::string& field = "daily", Milliseconds window = std::chrono::hours(24)) {
    return store.sums({kAnn, field}, {window, default_bucket(window)});
  }
};

inline Proxy::Proxy(World& in, Incarnation own, LeaseOptions with)
    : world(in), incarnation(own), options(with), cells(std::make_unique<LeaseCell[]>(64)) {
  options.incarnation = own;
  options.seed = own;
  restart();
}

inline void Proxy::restart() {
  engine.reset();
  wire.clear();
  answers.clear();
  table = std::make_unique<LeaseTable>(TableOptions{{cells.get(), 64}, 1});
  engine = std::make_unique<LeaseEngine>(*table, *this, log, options);
  up();
}

inline void Proxy::up() {
  for (unsigned p = 0; p < kPartitions; ++p)
    if (engine->owns(p)) engine->on_up(p, world.run_id, world.now);
}

inline void Proxy::down() {
  wire.clear();
  for (unsigned p = 0; p < kPartitions; ++p)
    if (engine->owns(p)) engine->on_down(p, world.now);
}

inline void Proxy::put(Kind kind, Op op, Replay replay, Ping ping, SendContext context) {
  wire.push_back({kind, std::move(op), std::move(replay), std::move(ping), std::move(context), world.now});
  history.push_back(wire.back());
}

inline bool Proxy::deliver() {
  if (hold || wire.empty()) return false;
  const Sent message = wire.front();
  wire.pop_front();
  ++delivered;
  if (errors || (error_every > 0 && delivered % error_every == 0)) {
    engine->on_error(kOfAnn, world.now);
    return true;
  }
  arrive(message, drop_replies == 0);
  if (drop_replies > 0 && --drop_replies == 0) {
    down();
    up();
  }
  return true;
}

inline void Proxy::arrive(const Sent& message, bool answer) {
  SendContext context = message.context;
  if (message.kind == Kind::op) {
    const OpReply reply = world.store.apply(message.op, context);
    if (answer) engine->on_op(message.op.partition, message.op.seq, reply, message.at, world.now);
  } else if (message.kind == Kind::replay) {
    const OpReply reply = world.store.replay(message.replay, context);
    if (answer)
      engine->on_replay(message.replay.op.partition, message.replay.op.seq, reply, message.at, world.now);
  } else {
    const PingReply reply = world.store.ping(message.ping, context);
    if (answer) engine->on_ping(message.ping.partition, reply, message.at, world.now);
  }
}

inline AccountRef Proxy::account(const std::string& field, Milliseconds window, bool limited,
                                 const std::string& subject) {
  auto found = table->find_or_create({subject, field}, {window, default_bucket(window)}, limited);
  EXPECT_TRUE(found.has_value());
  return *found;
}

inline void Proxy::ask(const AccountRef& account, std::uint64_t limit, std::uint32_t units) {
  const std::uint32_t held = tokens_valid(*account, table->partition(account->subject->partition), world.now);
  engine->request(account, units - std::min(units, held), limit, world.now,
                  [this](LeaseEngine::Answer answer) { answers.push_back(answer); });
}

inline bool Proxy::call(const AccountRef& account, std::uint64_t limit, std::uint32_t units) {
  for (int tries = 0; tries < 10; ++tries) {
    std::int64_t bucket = 0;
    if (admit(*account, table->partition(account->subject->partition), units, world.now, bucket) ==
        Admission::admitted) {
      admitted += units;
      return true;
    }
    const std::size_t before = answers.size();
    ask(account, limit, units);
    for (int waited = 0; waited < 20 && answers.size() == before; ++waited)
      world.advance(Milliseconds(10), Milliseconds(10));
    if (answers.size() == before || answers.back() != LeaseEngine::Answer::granted) return false;
  }
  return false;
}

}  // namespace tollgate::quota
