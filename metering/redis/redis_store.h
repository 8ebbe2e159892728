// The store on real Redis: one server, Sentinel, or Cluster, over TCP, TLS or a unix socket. Carries the messages of
// metering/quota/lease_protocol.h as scripts (op.lua, replay.lua, ping.lua), and the reads and changes of the admin API.
//
//   RedisStore store(base, options, [&](LeaseStoreEvents& e) ...);  store.start();
//
//               single / sentinel                          cluster
//   store ── connection (worker) ── primary     store ─┬─ connection ── node a: slots 0..5460
//                                                      ├─ connection ── node b
//                                                      └─ slot map: 256 partitions -> node, from CLUSTER SLOTS
//
// A partition is up when its server is connected, is a primary, and its run id is known (INFO server); then on_up is
// called with the run id, and again whenever server or run id change. When a connection ends, or a reply is MOVED, ASK,
// TRYAGAIN, CLUSTERDOWN, READONLY, or the stall time-out passes, everything sent and not answered in that partition is
// forgotten, on_down is called, and the topology is looked up again. The engine resends; numbers make that harmless.
//   - Sentinel: every (re)connection asks the sentinels (SENTINEL get-master-addr-by-name) and verifies ROLE.
//   - Cluster: MOVED updates the map at once and reloads it; ASK is followed with ASKING for that message.
// Errors that apply nothing (LOADING, OOM, MISCONF, NOREPLICAS, BUSY, a script error) go to on_error.
// NOSCRIPT: the script is loaded and the same message sent again, before anything later of that connection.
//
// Durability `wait`: after each pipeline one WAIT (all connected replicas, at least min_replicas) follows; replies are
// held until it answers. If too few replicas confirmed in time, the partition goes down and up again: the engine resends,
// gets duplicates, and waits again; no grant is used before it is confirmed.
//
// During the move of a slot between nodes, scripts whose keys are neither all here nor all there get TRYAGAIN: the
// partition goes down and up every 25..50 ms until the slot has moved; leases serve meanwhile.
//
// Pub/sub: a second connection listens to q:recall:<incarnation>, q:policy, q:room and q:fence (message bodies: partition, subject
// key and field, see scripts); only where `subscribe` is set (one store of the process). In a Cluster one to each primary:
// PUBLISH counts the listeners of its own node only, and the fence waits for as many votes as there were listeners.
//
// Rights that a user of the server needs: docs/guide.md, "The store"; an integration test holds them against ACL LOG.
//
// Threads: everything on the loop's thread. Neither events nor answers may destroy the store. Events are never told
// from inside send().
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "metering/quota/lease_engine.h"
#include "metering/quota/store_model.h"
#include "metering/redis/connection.h"
#include "metering/redis/reply.h"
#include "metering/redis/script_messages.h"
#include "metering/redis/scripts.h"

struct event_base;

namespace tollgate::redis {

enum class Durability : std::uint8_t { replay, wait };

struct RedisStoreOptions {
  ConnectionOptions connection;  // url may name Sentinel or Cluster: store_url.h
  Durability durability = Durability::replay;
  std::uint32_t min_replicas = 1;  // wait: fewer confirmations are none
  Milliseconds wait_timeout{100};
  Milliseconds timeout{50};  // reads of the hot path's side (usage)
  Milliseconds admin_timeout{2'000};
  bool subscribe = false;
  quota::Incarnation incarnation = 0;  // whose recalls to listen to
  Scripts scripts = Scripts::standard();
};

// What the store tells its owner. The partition events go to the engine that owns the partition.
class LeaseStoreEvents {
 public:
  virtual ~LeaseStoreEvents() = default;
  virtual void on_up(unsigned partition, const std::string& run) = 0;
  virtual void on_down(unsigned partition) = 0;
  virtual void on_op(unsigned partition, std::uint64_t seq, quota::OpReply&& reply, MonotonicTime sent) = 0;
  virtual void on_replay(unsigned partition, std::uint64_t seq, quota::OpReply&& reply,
                         MonotonicTime sent) = 0;
  virtual void on_ping(unsigned partition, quota::PingReply&& reply, MonotonicTime sent) = 0;
  virtual void on_error(unsigned partition, const std::string& what) = 0;
  // subscribe only. Messages may come more than once (Cluster: from every primary), and not at all while the second
  // connection is down: on_subscribed is called whenever it listens (again). Forget denials and vote in all partitions.
  virtual void on_message(const quota::StoreModel::Message& message) = 0;
  virtual void on_subscribed() {}
};

class RedisStore final : public quota::LeaseStore {
 public:
  struct Counters {
    std::uint64_t commands = 0, replies = 0, errors = 0;
    std::uint64_t reconnects = 0, script_loads = 0, redirections = 0, wait_misses = 0;
    std::uint64_t messages = 0;
  };
  // Only partitions for which `mine` says true are reported and sent.
  RedisStore(event_base* base, RedisStoreOptions options, LeaseStoreEvents& events,
             std::function<bool(unsigned partition)> mine);
  ~RedisStore() override;
  void start();

  void send(const quota::Op& op, const quota::SendContext& context) override;
  void send(const quota::Replay& replay, const quota::SendContext& context) override;
  void send(const quota::Ping& ping, const quota::SendContext& context) override;

  // Reads, without charging. Any partition.
  using States = std::function<void(Result<std::vector<quota::LeaseState>>&&)>;
  void read(std::vector<quota::AccountCharge> accounts, States done);
  void list(std::string subject_key, std::string prefix, Milliseconds window, Milliseconds bucket,
            quota::Ledger::ListDone done);
  // For reconciliation: every account of the store whose subject key matches, with its buckets. Scans; off the hot path.
  struct StoredAccount {
    quota::AccountKey key;
    std::string record;  // bytes: quota::AccountRecord::decode
  };
  void scan(std::function<void(Result<std::vector<StoredAccount>>&&)> done);

  // ---- changes by administrators; all proxies obey from the next op on and are told by pub/sub at once.
  using Changed = std::function<void(Result<void>)>;
  using OverrideRead = std::function<void(Result<std::optional<quota::LimitOverride>>)>;
  void set_override(const quota::AccountKey& account, std::optional<quota::LimitOverride> value,
                    Changed done);
  void get_override(const quota::AccountKey& account, OverrideRead done);
  void reset(std::vector<quota::AccountKey> accounts, Changed done);

  // A command on one key that lies in the slot of a partition, for what is no quota. `done` once, perhaps at once; an
  // error when there is no answer within `timeout` (the command may have been obeyed all the same). What the server
  // refuses is a reply that is_error().
  void command(unsigned partition, const std::vector<std::string_view>& words, Milliseconds timeout,
               std::function<void(Result<Reply*>)> done);
  // A script on keys of one partition that is told the run id of the server it goes to, so that a redirection is an error.
  // `done` once, perhaps at once; nothing is known after an error.
  void run(unsigned partition, const Script& script,
           const std::function<ScriptCall(const std::string& run)>& call, Milliseconds timeout, bool durable,
           std::function<void(Result<Reply*>)> done);
  const RedisStoreOptions& options() const;

  bool up(unsigned partition) const;
  bool all_up() const;     // of `mine`
  bool listening() const;  // to all channels, everywhere; subscribe only
  const std::string& last_error() const;
  const Counters& counters() const;
  void observe_round_trips(std::function<void(Duration)> observer);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::redis
