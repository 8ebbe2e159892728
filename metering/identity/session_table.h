// The sessions that one proxy knows, shared by its workers. A copy of what the store holds, which is looked
// at again after a while, so that a session that ended at another proxy ends here too; and enough to go on by
// while the store is away.
//
//   bind ──> current ──(recheck later)──> stale ──confirm──> current
//               │                           │
//               └──── end (logged out) ─────┴──> ended ──(1 s later)──> absent: the store is asked again
//
//   unpublished: the store could not be told of a bind or an end. Until it has been, what is known here wins
//   over what it says, so that a session that ended while it was away does not come back with it.
//
// Bounded: when a shard is full, what was used longest ago makes room, and is asked of the store again.
// Threads: any. One lock of a 64th part of the table for each call; nothing is done under it but the look-up.
#pragma once
#include <array>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "metering/identity/session.h"

namespace tollgate::identity {

struct SessionTimes {
  Milliseconds idle;     // a session that is not used for so long ends
  Milliseconds recheck;  // what is known is believed for so long without asking the store
};

class SessionTable {
 public:
  SessionTable(SessionSecret secret, std::size_t capacity);

  const SessionSecret& secret() const { return secret_; }

  enum class State : std::uint8_t { absent, current, stale, ended };
  struct Found {
    State state = State::absent;
    std::shared_ptr<const SessionRecord> record;  // current and stale
  };
  // A use of the session, when it is found.
  Found find(const SessionKey& key, UnixTime now, const SessionTimes& times);

  // A log-in was seen here; replaces what was there. The same for the end of one: kept for as long as the
  // session might have lasted, as what was known of it.
  void bind(const SessionKey& key, std::shared_ptr<const SessionRecord> record, UnixTime now);
  void end(const SessionKey& key, UnixTime now);
  // Could the store be told? Of a key that has made room meanwhile: nothing happens.
  void set_published(const SessionKey& key, bool published);

  // What the store said. Answers what holds now (nullptr: nobody's session).
  struct Verdict {
    std::shared_ptr<const SessionRecord> record;
    bool publish = false;  // the store has lost it, or was never told: write it there, if nothing is there
    bool touch = false;    // its expiry in the store should be moved on: once an eighth of `idle`
  };
  Verdict confirmed(const SessionKey& key, std::shared_ptr<const SessionRecord> record, UnixTime now,
                    const SessionTimes& times);
  Verdict missing(const SessionKey& key, UnixTime now, const SessionTimes& times);  // nothing is there
  void ended_elsewhere(const SessionKey& key, UnixTime now);
  // It did not answer: what is known goes on for another `recheck`. nullopt: nothing is known here.
  std::optional<std::shared_ptr<const SessionRecord>> unreachable(const SessionKey& key, UnixTime now);

  // For publishing again. nullopt: has made room; nullptr: ended.
  std::optional<std::shared_ptr<const SessionRecord>> peek(const SessionKey& key) const;

  std::size_t size() const;

 private:
  struct Entry {
    std::shared_ptr<const SessionRecord> record;  // nullptr: ended
    UnixTime used{}, checked{}, confirmed{}, touched{};
    bool published = true;
    std::list<SessionKey>::iterator place;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<SessionKey, Entry, SessionKeyHash> entries;  // guarded by mutex
    std::list<SessionKey> order;                                    // the latest use first; guarded by mutex
  };
  static constexpr std::size_t kShards = 64;
  Shard& shard_of(const SessionKey& key) { return shards_[key.back() % kShards]; }
  const Shard& shard_of(const SessionKey& key) const { return shards_[key.back() % kShards]; }
  Entry& put(Shard& shard, const SessionKey& key);

  SessionSecret secret_;
  std::size_t shard_capacity_;
  std::array<Shard, kShards> shards_;
};

}  // namespace tollgate::identity
