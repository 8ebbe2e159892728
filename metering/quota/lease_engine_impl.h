// Inside of LeaseEngine. What it knows of accounts, subjects and partitions, and the three parts of its work:
//
//   lease_engine.cc    requests: what waits, what an op carries, the queue of subjects, looking after idle ones
//   lease_ops.cc       making ops, and their replies: tokens, refusals, denials, who is answered
//   lease_session.cc   joining, pings, sessions, the fence, replays, going down
//
// States of a partition: as drawn in lease_engine.h, but for the fence: `fenced` is joined (what the store holds is
// complete, so uses are settled) and not yet allowed to be lent anything.
//
// Answers are collected while the state changes and given at the very end of the outermost entry (Entry), so whatever
// they call finds everything in order.
#pragma once
#include <array>
#include <deque>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "metering/base/check.h"
#include "metering/base/random.h"
#include "metering/quota/lease_engine.h"

namespace tollgate::quota {

using SettleDone = std::function<void(bool)>;

class LeaseEngine::Impl {
 public:
  Impl(LeaseTable& table, LeaseStore& store, OpLog& log, const LeaseOptions& options);

  // An account as the engine knows it.
  struct Held {
    AccountRef account;
    bool give_up = false;  // unused tokens go back with the next op
    bool prefetch = false;
    bool tell = false;     // the store is told the limit, whatever else there is to say
    bool doubted = false;  // heard since the op under way was made: what it is refused may not hold any more
    // Own tokens that went back with the op under way, to be asked for anew with it.
    std::uint32_t in_the_way = 0;
    unsigned tries = 0;          // refusals in a row for which others were told to hand back
    MonotonicTime not_before{};  // a pause between them
    MonotonicTime reported{};    // last op that carried it
  };
  struct Waiting {
    AccountRef account;
    std::uint32_t units = 0;
    Done done;
  };
  struct Subject {
    std::uint64_t number = 0;       // in the order in which they were learnt
    LeaseSubject* named = nullptr;  // lives while we hold one of its accounts
    std::string key;
    std::vector<Held> accounts;
    std::vector<Waiting> waiting;     // in the order in which they came
    std::vector<SettleDone> settles;  // wait for an op that is still to be made
    bool flush = false;               // the next op carries everything countable
    bool again = false;               // something came up while an op was under way
    bool in_flight = false, queued = false, blocked = false;
    MonotonicTime look_at = kNever;  // key in due_
  };
  // What is walked through is walked in an order that no address decides: equal histories give equal ops.
  struct ByNumber {
    bool operator()(const Subject* a, const Subject* b) const { return a->number < b->number; }
    bool operator()(const std::pair<MonotonicTime, Subject*>& a,
                    const std::pair<MonotonicTime, Subject*>& b) const {
      return a.first != b.first ? a.first < b.first : a.second->number < b.second->number;
    }
  };
  struct InFlight {
    Op op;
    Subject* subject = nullptr;
    std::vector<AccountRef> accounts;  // of op.accounts
    std::vector<SettleDone> settles;
    std::uint32_t session = 0;  // in which it was made
    bool sent = false;          // on the present connection
    bool sent_before = false;
  };
  enum class State : std::uint8_t { absent, waiting, joining, replaying, fenced, open };
  struct Partition {
    unsigned number = 0;
    State state = State::absent;
    bool up = false;
    bool awake = false;      // in awake_
    bool old = false;        // something of an earlier process, or of before a new run, is to be brought in
    bool lapsed = false;     // tokens of an earlier session may lie about
    bool recovered = false;  // cells of an earlier process are dated
    std::string run, session_run;
    std::uint64_t next_seq = 1, acked = 0, journaled_before = 0;
    std::deque<InFlight> in_flight;  // numbers acked + 1 ... next_seq - 1
    std::deque<Subject*> ready;
    std::vector<Subject*> blocked;  // wait for the permission to ask for tokens
    std::set<Subject*, ByNumber> subjects;
    std::vector<Ping::Peer> peers;
    bool ping_again = false;  // told of a fence while the ping was on its way
    bool ping_under_way = false;
    MonotonicTime ping_at = kNever;
    Duration ping_pause{0};
    MonotonicTime listening_since{};  // messages before it may have been missed
    MonotonicTime heard_at{};         // last reply, or the first message after a quiet time
    MonotonicTime fenced_since = kNever;
    MonotonicTime no_grants_before{};  // clocks disagree, the log is full
    MonotonicTime no_ops_before{};     // the log is full
    MonotonicTime clock_off_since = kNever;
    std::uint64_t replayed = 0, replay_batch_end = 0;  // numbers: last answered, last sent
    std::uint64_t replay_awaited = 0;
  };

  static constexpr MonotonicTime kNever = MonotonicTime::max();

  // All entries of LeaseEngine go through one of these.
  class Entry {
   public:
    explicit Entry(Impl& impl) : impl_(impl) { ++impl_.depth_; }
    ~Entry() {
      if (impl_.depth_ == 1) impl_.give_answers();
      --impl_.depth_;
    }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    Impl& impl_;
  };

  // ---- lease_engine.cc
  void request(AccountRef account, std::uint32_t units, std::uint64_t rule_limit, MonotonicTime now,
               Done done);
  void settle(Partition& p, Subject& subject, bool give_up, MonotonicTime now, SettleDone done);
  void settle_all(bool give_up, MonotonicTime now, SettleDone done);
  Subject& learn(const AccountRef& account, MonotonicTime now);
  Held& held(Subject& subject, const Account& account);
  void learn_all(Partition& p, MonotonicTime now);
  Subject* find(const std::string& key);
  void queue(Subject& subject, MonotonicTime now);
  void pump(Partition& p, MonotonicTime now);
  void look_at(Subject& subject, MonotonicTime when);
  Duration until_look(const Subject& subject, MonotonicTime now) const;
  struct Unsettled {
    Duration age{0};          // of the oldest use that no op has reported; 0 when there is none
    std::size_t buckets = 0;  // in which such uses are
  };
  Unsettled unsettled(const Held& one, MonotonicTime now) const;
  Duration kept_unused(const Account& account) const;
  bool cells_scarce() const;  // more than half of the cells are taken
  void look(Subject& subject, MonotonicTime now);
  bool business(const Subject& subject, bool give_up) const;
  void retire_idle(Partition& p, Subject& subject, MonotonicTime now);
  void limit_changed(const AccountRef& account, MonotonicTime now);
  void forget_refusal(Subject& subject, Held& one);
  LeaseEngine::PartitionStatus status(const Partition& p) const;
  MonotonicTime tick(MonotonicTime now);
  void give_answers();

  // ---- lease_ops.cc
  bool make_op(Partition& p, Subject& subject, MonotonicTime now);  // false: the log is full
  void send(Partition& p, InFlight& flight, MonotonicTime now);
  bool voided(const Partition& p, const Account& account) const;
  void on_op(Partition& p, std::uint64_t seq, const OpReply& reply, MonotonicTime sent, MonotonicTime now);
  void acknowledge(Partition& p, Subject& subject, const InFlight& flight, std::size_t index,
                   const LeaseState& state, bool could_grant, Milliseconds store_now, MonotonicTime now);
  void refused(Subject& subject, Held& one, const OpAccount& asked, const LeaseState& state,
               Milliseconds store_now, MonotonicTime now);
  void deny(Account& account, std::uint32_t units, Milliseconds fits_at, Milliseconds until,
            Milliseconds store_now);
  void answer(Subject& subject, const Account* account, Answer answer, std::uint32_t at_least = 0);

  // ---- lease_session.cc
  void on_up(Partition& p, std::string run, MonotonicTime now);
  void on_down(Partition& p, MonotonicTime now);
  void on_ping(Partition& p, const PingReply& reply, MonotonicTime sent, MonotonicTime now);
  void on_replay(Partition& p, std::uint64_t seq, const OpReply& reply, MonotonicTime sent,
                 MonotonicTime now);
  void on_error(Partition& p, MonotonicTime now);
  void on_fence(Partition& p, MonotonicTime now);
  void ensure_joined(Partition& p, MonotonicTime now);
  void rejoin(Partition& p, MonotonicTime now, Duration pause);
  void ping(Partition& p, MonotonicTime now);
  void recover_old(Partition& p, MonotonicTime now);
  void replay_more(Partition& p, MonotonicTime now);
  void resend(Partition& p, MonotonicTime now);
  void check_lapse(Partition& p, MonotonicTime now);
  void forget_stale_clock(Partition& p, MonotonicTime now);
  void end_session(Partition& p);
  void heard(Partition& p, Milliseconds store_now, MonotonicTime sent, MonotonicTime now);
  void renew(Partition& p, Milliseconds expiry, MonotonicTime now);
  void enter(Partition& p, State state, MonotonicTime now);
  void wake(Partition& p);  // tick looks at it until it is absent with nothing left to do
  void tick(Partition& p, MonotonicTime now);
  MonotonicTime next_due(const Partition& p) const;
  bool wanted(const Partition& p) const;

  // Joined, or so new that the ping and the first ops may share a round trip.
  bool may_send(const Partition& p) const;
  bool may_ask(const Partition& p, MonotonicTime now) const;
  bool awaits(const Partition& p) const;
  bool clock_known(const Partition& p) const;
  Milliseconds store_hi(const Partition& p, MonotonicTime now) const;
  SendContext context(const Partition& p, MonotonicTime now) const;
  PartitionState& shared(const Partition& p) const { return table_.partition(p.number); }
  Partition& partition_of(const Subject& subject) { return *partitions_[subject.named->partition]; }
  Partition& partition(unsigned number) {
    CHECK(number < kPartitions && partitions_[number], "a partition of this engine");
    return *partitions_[number];
  }
  StoreClock& clock_of_run(const std::string& run);

  LeaseTable& table_;
  LeaseStore& store_;
  OpLog& log_;
  const LeaseOptions& options_;
  LeaseCounters counters_;
  Random random_;
  std::array<std::unique_ptr<Partition>, kPartitions> partitions_;
  std::unordered_map<const LeaseSubject*, std::unique_ptr<Subject>> subjects_;
  std::unordered_map<std::string_view, Subject*> by_key_;
  std::set<std::pair<MonotonicTime, Subject*>, ByNumber> due_;
  std::map<std::string, std::unique_ptr<StoreClock>>
      clocks_;  // by run: several partitions live on one server
  std::vector<Partition*> awake_;
  std::vector<std::function<void()>> answers_;
  std::uint64_t subjects_learnt_ = 0;
  std::uint64_t unacknowledged_ = 0;
  unsigned depth_ = 0;
  unsigned sweep_next_ = 0;
  MonotonicTime sweep_at_{};
};

}  // namespace tollgate::quota
