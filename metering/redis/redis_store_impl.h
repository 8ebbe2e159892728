// The inside of RedisStore: its state, shared by redis_store.cc (leases: ops, replays, pings) and
// redis_store_queries.cc (reads, changes, scans). Included by these two files only.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "metering/redis/redis_store.h"
#include "metering/redis/script_messages.h"
#include "metering/redis/subscription.h"
#include "metering/redis/topology.h"

namespace tollgate::redis {

// A partition is told up only while its Link is. `generation` counts the times it went down: a reply to what was sent
// in an earlier one is nobody's any more.
class RedisStore::Impl {
 public:
  Impl(event_base* base, RedisStoreOptions options, LeaseStoreEvents& events,
       std::function<bool(unsigned partition)> mine);
  ~Impl();

  void start();

  // ---- leases
  // How a reply of one message is read and told. Called while the partition is in the generation of the sending.
  using Told = std::function<void(Reply& reply)>;
  void send(unsigned partition, const Script& script, const ScriptCall& call, Told told);
  const Scripts& scripts() const { return options_.scripts; }
  LeaseStoreEvents& events() { return events_; }

  // ---- queries
  struct Query {
    unsigned partition = 0;
    std::shared_ptr<const std::string> command;
    MonotonicTime deadline;
    Milliseconds timeout{0};
    bool durable = false;
    std::function<void(Result<Reply*>)> done;
    int redirections = 0;
    bool follow = true;  // where a redirection leads
  };
  void ask(unsigned partition, std::shared_ptr<const std::string> command, Milliseconds timeout, bool durable,
           std::function<void(Result<Reply*>)> done);
  void run(unsigned partition, const Script& script,
           const std::function<ScriptCall(const std::string& run)>& call, Milliseconds timeout, bool durable,
           std::function<void(Result<Reply*>)> done);
  Topology& topology() { return topology_; }
  const RedisStoreOptions& options() const { return options_; }

  bool up(unsigned partition) const { return partitions_[partition].up; }
  bool all_up() const;
  bool listening() const;
  const std::string& last_error() const { return error_.empty() ? topology_.last_error() : error_; }
  const Counters& counters() const;
  void failed(unsigned partition, const std::string& what);  // an error that applied nothing

  std::function<void(Duration)> round_trip_;

 private:
  struct Partition {
    bool mine = false;
    bool up = false;
    std::uint64_t generation = 0;
    MonotonicTime up_at;  // not told up again before
  };
  struct Message {
    unsigned partition = 0;
    std::uint64_t generation = 0;
    std::shared_ptr<const std::string> command;
    MonotonicTime sent;
    Told told;
    bool asked = false;  // went where an ASK led
  };

  void transmit(std::shared_ptr<Message> message, Link& link, bool asking);
  void answered(const std::shared_ptr<Message>& message, const StoreUrl& from, Result<Reply*> reply);
  void query(std::shared_ptr<Query> query, Link* link, bool asking);
  // Everything under way in the partition is forgotten; it comes up again, where its Link is, after `pause`.
  void bounce(unsigned partition, Milliseconds pause, const std::string& why);
  void take_down(unsigned partition);
  void bring_up();  // all that may be told up
  void link_changed(Link& link, bool up);
  void listen_to(const StoreUrl& server, ConnectionOptions options);
  static void up_event(int, short, void* self);
  static void refused_event(int, short, void* self);

  event_base* base_;
  RedisStoreOptions options_;
  LeaseStoreEvents& events_;
  Random random_;
  std::array<Partition, quota::kPartitions> partitions_;
  mutable Counters counters_;
  std::string error_;           // the last one that is no connection's
  int sending_ = 0;             // inside send(): nothing may be told
  std::set<unsigned> refused_;  // bounced while sending
  event *up_event_ = nullptr, *refused_event_ = nullptr;
  std::map<std::string, std::unique_ptr<Subscription>> subscriptions_;  // by server
  Topology topology_;                                                   // last: destroyed first
};

}  // namespace tollgate::redis
