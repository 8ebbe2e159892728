// The lease protocol on a real Redis against the plainest model there is: the list of every admission with its moment.
// Three proxies, three virtual days: lost requests and replies, late copies, crashes, session lapses, a Redis that falls back
// to an older copy of itself or to nothing. No 24 hours ever hold more than the limit; in the end Redis' totals are the
// truth. The seed is printed with a failure; TOLLGATE_ORACLE_RUNS asks for more runs.
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>

#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "tests/metering/redis/support/script_client.h"

namespace tollgate::redis {
namespace {

using quota::BucketUse;
using quota::Incarnation;
using quota::Op;
using quota::OpStatus;
using quota::SendContext;
using namespace std::chrono_literals;

constexpr Milliseconds kStart{1'763'820'000'000};
constexpr quota::WindowShape kDay{86'400'000ms, 60'000ms};
constexpr Milliseconds kSession = 15min;
constexpr std::uint64_t kLimit = 60;
constexpr std::size_t kUsers = 3;

// What is switched off to see that the oracle would notice.
struct Protections {
  bool replay = true;
  bool date_uses = true;    // false: uses are dated at their grant
  bool void_lapsed = true;  // false: tokens outlive their session
};

struct World {
  explicit World(std::uint64_t seed, Protections with) : random(seed), client(server), protections(with) {
    for (std::size_t user = 0; user < kUsers; ++user) {
      subjects.push_back(quota::subject_key({"acme", std::nullopt, "user" + std::to_string(user)}));
      admitted.emplace_back();
    }
    client.set_clock(now);
  }
  void admit(std::size_t user) {
    std::deque<Milliseconds>& list = admitted[user];
    list.push_back(now);
    std::uint64_t in_window = 0;
    for (const Milliseconds at : list) in_window += at > now - kDay.window;
    worst = std::max(worst, in_window);
    reached |= in_window == kLimit;
  }
  SendContext context() { return {run, now + Milliseconds(random.below(1'000)) - 500ms, kSession, 10s, 20}; }

  Random random;
  testing::Server server;
  testing::ScriptClient client;
  Protections protections;
  Milliseconds now = kStart;
  std::string run = "run0";
  std::vector<std::string> subjects;
  std::vector<std::deque<Milliseconds>> admitted;
  std::uint64_t worst = 0;
  bool reached = false;
  // Copies to fall back to.
  std::vector<std::pair<std::string, std::string>> dumps;
};

// A proxy in its simplest form: one op at a time for each user, everything journalled; what a crash leaves is the journal and
// the counters.
class Proxy {
 public:
  Proxy(World& world, Incarnation incarnation) : world_(world), incarnation_(incarnation), leases_(kUsers) {}

  void call(std::size_t user) {
    lapse(user);
    Lease& lease = leases_[user];
    if (lease.tokens == 0) exchange(user, 1);
    lapse(user);
    if (lease.tokens == 0) return;
    --lease.tokens;
    const Milliseconds dated = world_.protections.date_uses ? world_.now : lease.granted_at;
    ++lease.uses[kDay.bucket_of(dated)];
    world_.admit(user);
  }
  // Sends what is to be said of a user; once more what was not answered.
  void exchange(std::size_t user, std::uint32_t need, bool give_up = false) {
    const unsigned partition = quota::partition_of(world_.subjects[user]);
    Log& log = logs_[partition];
    if (log.acked == log.ops.size())
      log.ops.push_back(make(user, partition, log.ops.size() + 1, need, give_up));
    send(partition);
  }
  void ping(unsigned partition) {
    Log& log = logs_[partition];
    auto reply = world_.client.ping({incarnation_, partition, log.acked, log.peers}, world_.context());
    log.peers = reply.peers;
    if (!world_.protections.replay) {
      // Goes on as if nothing were missing: numbers from where the store is, and votes.
      if (reply.hwm < log.acked) drop_lost(log, reply.hwm);
      world_.client.ping({incarnation_, partition, 0, {}}, world_.context());
      return;
    }
    while (reply.hwm < log.acked) {
      const Op& op = log.ops[reply.hwm];
      const std::size_t user = user_of(op.subject_key);
      const std::uint64_t held = leases_[user].outstanding;
      ASSERT_EQ(world_.client.replay({op, {held}, leases_[user].session, false}, world_.context()).status,
                OpStatus::applied);
      ++replayed;
      ++reply.hwm;
    }
    reply = world_.client.ping({incarnation_, partition, log.acked, {}}, world_.context());
    log.session = std::max(log.session, reply.session_expiry);
  }
  // Memory is gone; the counters and the journal are not.
  void crash() {
    for (Lease& lease : leases_) {
      lease.tokens = 0;
      lease.forget = true;
    }
  }
  bool settled() const {
    for (const auto& [partition, log] : logs_)
      if (log.acked != log.ops.size()) return false;
    for (const Lease& lease : leases_)
      if (!lease.uses.empty() || lease.outstanding != 0) return false;
    return true;
  }
  std::uint64_t replayed = 0, gaps = 0, over = 0;

 private:
  struct Lease {
    std::uint64_t tokens = 0, outstanding = 0;
    std::map<std::int64_t, std::int64_t> uses;
    Milliseconds session{0}, granted_at{0};
    bool forget = false;
  };
  struct Log {
    std::vector<Op> ops;
    std::uint64_t acked = 0;
    Milliseconds session{0};
    std::vector<quota::Ping::Peer> peers;
  };

  std::size_t user_of(const std::string& subject) const {
    return static_cast<std::size_t>(std::ranges::find(world_.subjects, subject) - world_.subjects.begin());
  }
  // Tokens of a session that is over are void before anything else happens.
  void lapse(std::size_t user) {
    Lease& lease = leases_[user];
    if (lease.tokens > 0 && world_.now >= lease.session && world_.protections.void_lapsed) {
      voided_[user] += lease.tokens;
      lease.tokens = 0;
    }
  }
  Op make(std::size_t user, unsigned partition, std::uint64_t seq, std::uint32_t need, bool give_up) {
    Lease& lease = leases_[user];
    lapse(user);
    quota::OpAccount account{.field = "daily", .window = kDay.window, .bucket = kDay.bucket, .limit = kLimit};
    for (const auto& [bucket, units] : lease.uses) account.uses.push_back({bucket, units});
    lease.uses.clear();
    account.returned = std::exchange(voided_[user], 0);
    if (give_up) account.returned += std::exchange(lease.tokens, 0);
    account.forget = std::exchange(lease.forget, false);
    account.need = need;
    account.want = need == 0 ? 0 : need + 9;
    return {incarnation_, partition, seq, world_.subjects[user], {std::move(account)}};
  }
  void send(unsigned partition) {
    Log& log = logs_[partition];
    const Op op = log.ops[log.acked];
    Random& random = world_.random;
    if (random.one_in(20)) {
      if (random.one_in(2)) ghosts_.push_back(op);  // it will arrive late
      return;
    }
    if (!ghosts_.empty() && random.one_in(4)) {
      world_.client.apply(ghosts_.front(), world_.context());
      ghosts_.pop_front();
    }
    const quota::OpReply reply = world_.client.apply(op, world_.context());
    if (random.one_in(20)) return;  // the reply is lost
    if (reply.status == OpStatus::gap) {
      ++gaps;
      ping(partition);
      return;
    }
    ++log.acked;
    if (random.one_in(30)) ghosts_.push_back(op);  // a copy on its way
    const std::size_t user = user_of(op.subject_key);
    Lease& lease = leases_[user];
    const quota::LeaseState& state = reply.states[0];
    over += state.over;
    // Tokens are what is lent and neither used nor void: the books of both sides tell the same.
    std::uint64_t spent = voided_[user];
    for (const auto& [bucket, units] : lease.uses) spent += static_cast<std::uint64_t>(units);
    if (state.outstanding > spent + lease.tokens) lease.granted_at = world_.now;
    lease.tokens = state.outstanding > spent ? state.outstanding - spent : 0;
    lease.outstanding = state.outstanding;
    lease.session = std::max(lease.session, reply.session_expiry);
    lapse(user);
  }
  void drop_lost(Log& log, std::uint64_t hwm) {
    log.ops.resize(hwm);
    log.acked = hwm;
  }

  World& world_;
  Incarnation incarnation_;
  std::vector<Lease> leases_;
  std::map<unsigned, Log> logs_;
  std::map<std::size_t, std::uint64_t> voided_;
  std::deque<Op> ghosts_;
};

struct Outcome {
  std::uint64_t worst = 0, replayed = 0, failovers = 0, gaps = 0, over = 0;
  bool reached = false, exact = true;
};

class History {
 public:
  History(std::uint64_t seed, Protections with) : world_(seed, with) {
    for (const Incarnation incarnation : {11U, 22U, 33U}) proxies_.emplace_back(world_, incarnation);
    join();
  }

  Outcome days(Milliseconds length, Milliseconds pause = 10h) {
    const Milliseconds end = kStart + length;
    Milliseconds next_copy = kStart;
    while (world_.now < end && !::testing::Test::HasFatalFailure()) {
      Random& random = world_.random;
      world_.now += Milliseconds(random.one_in(150) ? random.below(static_cast<std::uint64_t>(pause.count()))
                                                    : random.below(240'000));
      world_.client.set_clock(world_.now);
      if (world_.now >= next_copy) {
        copy();
        next_copy = world_.now + Milliseconds(random.below(1'800'000));
      }
      Proxy& proxy = proxies_[random.below(3)];
      const std::size_t user = random.below(kUsers);
      for (std::uint64_t calls = random.below(5); calls > 0; --calls) proxy.call(user);
      if (random.one_in(6)) proxy.exchange(user, 0, random.one_in(2));
      if (random.one_in(4)) proxy.ping(quota::partition_of(world_.subjects[user]));
      if (random.one_in(200)) proxy.crash();
      if (random.one_in(150)) fail_over(random.one_in(4));
    }
    heal();
    return outcome_;
  }

 private:
  void copy() {
    world_.dumps.clear();
    for (const Reply& key : world_.client.command({"KEYS", "*"}).elements)
      if (key.text != "clock")
        world_.dumps.emplace_back(key.text, world_.client.command({"DUMP", key.text}).text);
  }
  void fail_over(bool flush) {
    ++outcome_.failovers;
    world_.client.command({"FLUSHALL"});
    if (!flush)
      for (const auto& [key, dump] : world_.dumps) world_.client.command({"RESTORE", key, "0", dump});
    else
      world_.dumps.clear();
    world_.client.set_clock(world_.now);
    world_.run = "run" + std::to_string(outcome_.failovers);
    join();
  }
  // Every proxy connects anew, replays and votes.
  void join() {
    for (int round = 0; round < 2; ++round)
      for (Proxy& proxy : proxies_)
        for (const std::string& subject : world_.subjects) proxy.ping(quota::partition_of(subject));
  }
  void heal() {
    for (int round = 0; round < 400; ++round) {
      bool done = true;
      for (Proxy& proxy : proxies_) {
        for (std::size_t user = 0; user < kUsers; ++user)
          if (!proxy.settled()) proxy.exchange(user, 0, true);
        done = done && proxy.settled();
      }
      if (done) break;
    }
    for (std::size_t user = 0; user < kUsers; ++user) {
      std::uint64_t truth = 0;
      for (const Milliseconds at : world_.admitted[user]) truth += kDay.live(kDay.bucket_of(at), world_.now);
      const auto states = world_.client.read({{.key = {world_.subjects[user], "daily"},
                                               .limit = kLimit,
                                               .window = kDay.window,
                                               .bucket = kDay.bucket}});
      if (states[0].used != truth || states[0].lent_to_others != 0) outcome_.exact = false;
    }
    outcome_.worst = world_.worst;
    outcome_.reached = world_.reached;
    for (const Proxy& proxy : proxies_) {
      outcome_.replayed += proxy.replayed;
      outcome_.gaps += proxy.gaps;
      outcome_.over += proxy.over;
    }
  }

  World world_;
  std::deque<Proxy> proxies_;
  Outcome outcome_;
};

int runs() {
  const char* asked = std::getenv("TOLLGATE_ORACLE_RUNS");
  return asked == nullptr ? 6 : std::atoi(asked);
}

TEST(LeaseOracle, NoDayHoldsMoreThanTheLimitAndTotalsAreTheTruth) {
  std::uint64_t failovers = 0, replayed = 0;
  for (int seed = 1; seed <= runs(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Outcome outcome = History(static_cast<std::uint64_t>(seed), {}).days(72h);
    ASSERT_LE(outcome.worst, kLimit);
    EXPECT_TRUE(outcome.reached) << "the limit was never reached: the run proves nothing";
    EXPECT_TRUE(outcome.exact) << "after settling, Redis' total is not the true count";
    EXPECT_EQ(outcome.over, 0U);
    failovers += outcome.failovers;
    replayed += outcome.replayed;
  }
  EXPECT_GT(failovers, 20U);
  EXPECT_GT(replayed, 100U);
}

// Negative controls: the oracle sees what each protection prevents.
int violations(Protections with) {
  int count = 0;
  for (std::uint64_t seed = 1; seed <= 12 && count == 0; ++seed)
    count += History(seed, with).days(72h).worst > kLimit;
  return count;
}

TEST(LeaseOracle, TokensThatOutliveTheirSessionWouldBeSeen) {
  std::uint64_t seen = 0;
  for (std::uint64_t seed = 1; seed <= 12 && seen == 0; ++seed) {
    const Outcome outcome = History(seed, {.void_lapsed = false}).days(1'000h, 60h);
    seen += outcome.over + (outcome.worst > kLimit);
  }
  EXPECT_GT(seen, 0U);
}

TEST(LeaseOracle, UsesDatedAtTheirGrantWouldBeSeen) {
  EXPECT_GT(violations({.date_uses = false}), 0);
}

TEST(LeaseOracle, FailoverWithoutReplayWouldBeSeen) {
  EXPECT_GT(violations({.replay = false}), 0);
}

}  // namespace
}  // namespace tollgate::redis
