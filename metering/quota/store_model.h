// The store in plain memory: the twin of the scripts on Redis, decision by decision and byte by byte. What the
// simulator runs against, and what the differential test holds against a real Redis.
//
//   StoreModel store([&] { return now; });
//   OpReply reply = store.apply(op, context);
//
// State, as on Redis (metering/quota/keys.h):
//   q:{pNNN}:...   per subject: field -> record (record.h, with leases)
//   h:{pNNN}       per partition: applied number, session expiry and vote of each incarnation; `run` that may grant;
//                  `t` newest time seen; fence: run, raised or last held up at, voters expected; `keep` longest window
//                  seen, where it is longer than 48 h: members are forgotten that long after their last session
//   o:{pNNN}       overrides and temporary grants
//
// The order inside apply(), which the script follows: number (duplicate, gap) -> now = max(clock, t) -> session ->
// per account: decode, prune, settle uses (also when fenced), returns -> grants if neither fenced nor clock_off, all or
// nothing over the `need`s of the op, then wants -> write. A refused need that would fit if others gave back what is
// lent to them recalls it. Duplicates and gaps write nothing; a duplicate shows the leases as they stand.
//
// A clock that jumped: where the store's clock and the sender's estimate are further apart than kClockGuard, `now` is
// the earlier of the two, for sessions, buckets and `t` alike, so nothing is freed too early while they disagree, nor
// later because `t` had run ahead. The reply names the store's clock all the same.
//
// How much is granted to one account, with avail = limit - used - lent to all, holders = other incarnations with tokens:
//   need > avail: nothing (for any account of the op)
//   else max(need, min(want, fair)) with fair = avail / (1 + min(holders, 11)), at least 1: most of many holders are idle;
//   and where want > need, generously even beyond want, until this incarnation holds min(lease_max, avail / (8 * (1 +
//   holders))); never more than avail
// Avail is what fits under the limit; where a record already names kLeasesMax other holders it is 0. A replayed fact that
// finds no place among them is counted as used at once, so that it is not lost.
//
// One thread. Copyable: a copy is a replica or a snapshot to restore.
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/quota/lease_protocol.h"

namespace tollgate::quota {

// A limit of one account kept in the store: wins over the rule's. Text form in o:{pNNN}: see format()/parse().
//   "1500"                                  the limit is 1500
//   "-;+200@1764000000000"                  the rule's limit, and 200 more until that moment (ms, store's clock)
//   "1500;+200@1764000000000;+50@1764100000000"
//   "*"                                     no limit: counted, never refused
struct LimitOverride {
  static constexpr std::uint64_t kLimitMax = 1ULL << 53;  // the scripts count in doubles
  static constexpr std::size_t kGrantsMax = 64;

  std::optional<std::uint64_t> limit;  // beyond kLimitMax: none, and written as "*"
  struct Grant {
    std::uint64_t extra = 0;
    Milliseconds until{0};
    bool operator==(const Grant&) const = default;
  };
  std::vector<Grant> grants;

  std::uint64_t effective(std::uint64_t rule_limit, Milliseconds now) const;
  bool empty() const { return !limit && grants.empty(); }
  std::string format() const;  // "" when empty()
  // Only what format() writes; at most kGrantsMax grants. nullopt for anything else.
  static std::optional<LimitOverride> parse(std::string_view text);
  bool operator==(const LimitOverride&) const = default;
};

class StoreModel {
 public:
  // What the scripts publish; `partition` is set in all. recall: to one incarnation, the account of which somebody lacks
  // tokens. policy: a limit changed, or counts were reset. fence: somebody waits for votes in a partition. room: settled
  // units that never happened have left the window before their time, so a fits_at told earlier may be too late.
  struct Message {
    enum class Kind : std::uint8_t { recall, policy, fence, room } kind = Kind::recall;
    Incarnation to = 0;  // recall
    unsigned partition = 0;
    AccountKey account;  // recall, policy, room
    bool operator==(const Message&) const = default;
  };

  explicit StoreModel(std::function<Milliseconds()> clock);

  OpReply apply(const Op& op, const SendContext& context);
  OpReply replay(const Replay& replay, const SendContext& context);  // states empty
  PingReply ping(const Ping& ping, const SendContext& context);

  // States of accounts without charging; `used` includes neither leases nor what proxies have not settled.
  std::vector<LeaseState> read(const std::vector<AccountCharge>& accounts);
  std::vector<Ledger::Listed> list(const std::string& subject_key, const std::string& prefix,
                                   Milliseconds window, Milliseconds bucket);
  // Tells all (policy), and recalls what is lent when it may be more than the new limit has room for.
  void set_override(const AccountKey& account, const std::optional<LimitOverride>& value);
  std::optional<LimitOverride> get_override(const AccountKey& account) const;
  void reset(
      const AccountKey& account);  // forgets what was counted; leases stay charged until they are settled

  // Messages published since the last call.
  std::vector<Message> take_messages();
  // How many proxies listen: what PUBLISH answers when a fence is raised.
  void set_listeners(std::uint32_t count) { listeners_ = count; }
  void flush();                                     // FLUSHALL: everything is gone, run ids stay
  std::string record(const AccountKey& key) const;  // bytes; "" when there is none
  std::uint64_t hwm(unsigned partition, Incarnation incarnation) const;
  // h:{pNNN} field by field, as the scripts write it.
  std::map<std::string, std::string> partition_fields(unsigned partition) const;
  // For oracles: units counted and lent, after pruning, with the clock as it is.
  struct Sums {
    std::uint64_t used = 0, lent = 0;
  };
  Sums sums(const AccountKey& key, const WindowShape& shape);

 private:
  struct Member {
    std::uint64_t applied = 0;
    Milliseconds expiry{0};
    std::string vote;
  };
  struct Partition {
    std::map<Incarnation, Member> members;
    std::string run;  // may grant
    Milliseconds newest{0};
    std::string fence_run;  // raised for this run; "" when none
    Milliseconds fence_at{0};
    std::uint32_t fence_voters = 0;
    Milliseconds keep{0};  // 0: no window longer than 48 h seen
  };
  struct Settling;

  Milliseconds expiry_of(const Partition& partition, Incarnation incarnation) const;
  AccountRecord load(const std::string& subject_key, const std::string& field, const WindowShape& shape,
                     const Partition& partition, Milliseconds now) const;
  void store(const std::string& subject_key, const std::string& field, const AccountRecord& record);
  std::uint64_t effective_limit(const AccountKey& key, std::uint64_t rule_limit, Milliseconds now) const;
  void recall(const Partition& partition, const AccountKey& account, const AccountRecord& record,
              Incarnation but, Milliseconds now);
  void grant(std::vector<Settling>& accounts, const Op& op, const SendContext& context,
             const Partition& partition, Milliseconds now, Milliseconds session_expiry);
  bool opens(Partition& partition, const SendContext& context, Milliseconds now);

  std::function<Milliseconds()> clock_;
  std::uint32_t listeners_ = 1;
  std::map<unsigned, Partition> partitions_;
  std::map<std::string, std::map<std::string, std::string>> subjects_;  // key -> field -> record
  std::map<std::string, std::string> overrides_;                        // "<subject_key> <field>" -> text
  std::vector<Message> messages_;
};

}  // namespace tollgate::quota
