// One worker's way to the sessions that all proxies share (flow::SessionStore on Redis).
//
//   l:{p017}:5d0c...   "1<record>"  PX min(idle, what is left of max_age), moved on while the session is used
//                      "0"          it ended: kept for as long as a proxy may remember it unused
//
//   find ──> GET ──┬─ a record ─> known; PEXPIRE once an eighth of idle
//                  ├─ "0" ──────> ended
//                  ├─ nothing ──> known here and fresh: the store has lost it, SET NX; else nobody's
//                  └─ no answer ─> what is known here goes on; else unavailable
//   bind ──> SET    end ──> SET "0"    no answer: told again every second until the store has heard it
//
// Questions about one session that come together are one GET. What nobody knows is remembered for a second.
// While the store is away, a log-in or log-out holds on this proxy alone; the others hear of it when it is
// back.
//
// Threads: the worker's. Answers that would come after its end are dropped.
#pragma once
#include <atomic>
#include <unordered_map>
#include <vector>

#include "metering/redis/redis_store.h"
#include "proxy/flow/sessions.h"

namespace tollgate::cli {

struct SessionCounters {
  std::atomic<std::uint64_t> binds{0}, ends{0}, lookups{0}, unknown{0}, failures{0}, unpublished{0};
};

class SessionWorker final : public flow::SessionStore {
 public:
  // Both outlive this.
  SessionWorker(redis::RedisStore& store, SessionCounters& counters, Milliseconds timeout);
  ~SessionWorker() override;

  void find(const std::shared_ptr<const flow::Snapshot>& snapshot, const identity::SessionKey& key,
            UnixTime now, Found done) override;
  void bind(const std::shared_ptr<const flow::Snapshot>& snapshot, const identity::SessionKey& key,
            std::shared_ptr<const identity::SessionRecord> record, UnixTime now, Written done) override;
  void end(const std::shared_ptr<const flow::Snapshot>& snapshot, const identity::SessionKey& key,
           UnixTime now, Written done) override;
  void tick(UnixTime now) override;

 private:
  using Answer = std::function<void(Result<redis::Reply*>)>;
  using Snapshot = std::shared_ptr<const flow::Snapshot>;
  void command(const identity::SessionKey& key, const std::vector<std::string_view>& words, Answer done);
  flow::SessionAnswer judge(const Snapshot& snapshot, const identity::SessionKey& key, UnixTime now,
                            const Result<redis::Reply*>& reply);
  // record nullptr: it ended.
  void publish(const Snapshot& snapshot, const identity::SessionKey& key,
               std::shared_ptr<const identity::SessionRecord> record, UnixTime now, bool only_if_absent,
               Written done);
  void show_unpublished();
  void note_unknown(const identity::SessionKey& key, UnixTime now);

  redis::RedisStore& store_;
  SessionCounters& counters_;
  Milliseconds timeout_;
  std::unordered_map<identity::SessionKey, std::vector<Found>, identity::SessionKeyHash> asked_;
  std::unordered_map<identity::SessionKey, UnixTime, identity::SessionKeyHash> unknown_;  // since when
  std::unordered_map<identity::SessionKey, Snapshot, identity::SessionKeyHash> unpublished_;
  std::size_t shown_unpublished_ = 0;  // this worker's part of the counter
  std::shared_ptr<void> alive_;
};

}  // namespace tollgate::cli
