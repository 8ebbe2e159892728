// Two promises about the keys of a subject on a real Redis: how much memory they take, and how long they live.
#include <gtest/gtest.h>

#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "tests/metering/redis/support/script_client.h"

namespace tollgate::redis {
namespace {

using quota::Op;
using quota::OpStatus;
using quota::SendContext;
using namespace std::chrono_literals;

constexpr Milliseconds kStart{1'763'820'000'000};

constexpr const char* kObjects[] = {"Case", "Contact", "Account"};

// One proxy that settles the calls of users on three objects, in virtual time.
class Traffic {
 public:
  Traffic() : client_(server_) {}

  // Calls on one object; the lease that is lent stays unless it is handed back.
  void settle(const std::string& user, const char* object, Milliseconds now,
              std::vector<quota::BucketUse> uses, bool hand_back) {
    client_.set_clock(now);
    Op op;
    op.incarnation = 0x89ABCDEF;
    op.subject_key = quota::subject_key({"acme", std::nullopt, user});
    op.partition = quota::partition_of(op.subject_key);
    op.seq = ++seq_[op.partition];
    const SendContext context{"run", now, 15min, 10s, 400};
    if (op.seq == 1) {
      ASSERT_TRUE(client_.ping({op.incarnation, op.partition, 0, {}}, context).open);
    }
    op.accounts.push_back({.field = std::string("daily|") + object,
                           .window = 24h,
                           .bucket = 60s,
                           .limit = 100'000,
                           .uses = std::move(uses),
                           .returned = hand_back ? 100'000U : 0U,
                           .want = hand_back ? 0U : 20U});
    const auto reply = client_.apply(op, context);
    ASSERT_EQ(reply.status, OpStatus::applied);
    ASSERT_EQ(reply.states[0].outstanding > 0, !hand_back);
  }
  std::int64_t memory(const std::string& user) {
    return client_
        .command({"MEMORY", "USAGE", quota::subject_key({"acme", std::nullopt, user}), "SAMPLES", "0"})
        .integer;
  }
  std::string encoding(const std::string& user) {
    return client_.command({"OBJECT", "ENCODING", quota::subject_key({"acme", std::nullopt, user})}).text;
  }

 private:
  testing::Server server_;
  testing::ScriptClient client_;
  std::map<unsigned, std::uint64_t> seq_;
};

// Mean over users, whose calls fall differently.
template <class Day>
std::int64_t memory_per_user(Day&& day) {
  Traffic traffic;
  std::int64_t sum = 0;
  for (int user = 0; user < 4; ++user) {
    Random random(static_cast<std::uint64_t>(user) + 1);
    const std::string name = "user" + std::to_string(user);
    day(traffic, name, random);
    sum += traffic.memory(name);
    EXPECT_EQ(traffic.encoding(name), "listpack") << "hash-max-listpack-value must hold the records";
  }
  std::printf("  %lld bytes a user\n", static_cast<long long>(sum / 4));
  return sum / 4;
}

TEST(StoreMemory, LightUserOfThirtyCallsADayTakesAtMost300Bytes) {
  EXPECT_LE(memory_per_user([](Traffic& traffic, const std::string& user, Random& random) {
              for (int call = 0; call < 30; ++call) {
                const Milliseconds now = kStart + call * 16min + Milliseconds(random.below(600'000));
                // Seldom used leases are handed back.
                traffic.settle(user, kObjects[call % 3], now, {{now / 60s, 1}}, true);
              }
            }),
            300);
}

TEST(StoreMemory, UserOfFortyBurstsAnObjectInEightHoursTakesAtMost800BytesWithALeaseEach) {
  EXPECT_LE(memory_per_user([](Traffic& traffic, const std::string& user, Random& random) {
              for (int burst = 0; burst < 40; ++burst) {
                Milliseconds now = kStart + burst * 12min + Milliseconds(random.below(500'000));
                for (const char* object : kObjects) {
                  std::map<std::int64_t, std::int64_t> counts;
                  for (int call = 0; call < 25; ++call)
                    ++counts[(now += Milliseconds(random.below(2'000))) / 60s];
                  std::vector<quota::BucketUse> uses;
                  for (const auto& [bucket, units] : counts) uses.push_back({bucket, units});
                  traffic.settle(user, object, now, std::move(uses), false);
                }
              }
            }),
            800);
}

TEST(StoreMemory, UserOfAThousandCallsAnObjectAroundTheClockTakesAtMost1500BytesWithALeaseEach) {
  EXPECT_LE(memory_per_user([](Traffic& traffic, const std::string& user, Random& random) {
              for (int call = 0; call < 1'000; ++call) {
                const Milliseconds now = kStart + call * 86s + Milliseconds(random.below(60'000));
                for (const char* object : kObjects)
                  traffic.settle(user, object, now, {{now / 60s, 1}}, false);
              }
            }),
            1'500);
}

// ---- time to live, against the server's own clock

struct Window {
  Milliseconds window, bucket;
};

class Life {
 public:
  Life() : client_(server_, false) {
    const Reply time = client_.command({"TIME"});
    now_ = Milliseconds(std::stoll(time.elements[0].text) * 1'000);
    subject_ = quota::subject_key({"acme", std::nullopt, "ann"});
    partition_ = quota::partition_of(subject_);
    client_.ping({7, partition_, 0, {}}, context());
  }
  SendContext context() const { return {"run", now_, 15min, 10s, 400}; }
  Milliseconds now() const { return now_; }

  quota::OpReply op(const Window& of, const std::string& field, std::int64_t used, std::uint32_t want,
                    std::uint64_t returned = 0) {
    Op op{7, partition_, ++seq_, subject_, {}};
    op.accounts.push_back({.field = field,
                           .window = of.window,
                           .bucket = of.bucket,
                           .limit = 1'000,
                           .returned = returned,
                           .want = want});
    if (used > 0) op.accounts[0].uses = {{now_ / of.bucket, used}};
    return client_.apply(op, context());
  }
  Milliseconds left() { return Milliseconds(client_.command({"PTTL", subject_}).integer); }
  testing::ScriptClient& client() { return client_; }
  const std::string& subject() const { return subject_; }
  unsigned partition() const { return partition_; }
  std::uint64_t next_seq() { return ++seq_; }

 private:
  testing::Server server_;
  testing::ScriptClient client_;
  Milliseconds now_{0};
  std::string subject_;
  unsigned partition_ = 0;
  std::uint64_t seq_ = 0;
};

// What may pass between the script's clock and PTTL.
constexpr Milliseconds kMeanwhile = 60s;

TEST(KeyLife, UsesOutliveTheirWindow) {
  for (const Window of : {Window{1s, 100ms}, Window{1h, 2'500ms}, Window{24h, 60s}, Window{744h, 60s}}) {
    Life life;
    life.op(of, "a", 3, 0);
    EXPECT_GT(life.left(), of.window + of.bucket - kMeanwhile);
  }
}

TEST(KeyLife, LeaseOutlivesItsSessionOneMoreTouchAndAWindow) {
  for (const Window of : {Window{1s, 100ms}, Window{1h, 2'500ms}, Window{24h, 60s}, Window{744h, 60s}}) {
    Life life;
    const auto reply = life.op(of, "a", 0, 5);
    ASSERT_GT(reply.states[0].outstanding, 0U);
    // Pings renew the session until the lease is touched again, at the latest after max(session, window).
    EXPECT_GT(life.left(), 15min + std::max<Milliseconds>(15min, of.window) + of.window - kMeanwhile);
  }
}

TEST(KeyLife, ShortAccountNeverShortensTheLifeOfALongOne) {
  Life life;
  life.op({744h, 60s}, "monthly", 3, 0);
  const Milliseconds before = life.left();
  life.op({1s, 100ms}, "burst", 3, 5);
  life.op({1s, 100ms}, "burst", 1, 0, 400);
  EXPECT_GT(life.left(), before - kMeanwhile);
}

TEST(KeyLife, EveryTouchKeepsTheKeyAliveWhateverItsAge) {
  Life life;
  life.op({24h, 60s}, "daily", 0, 5);
  life.client().command({"PEXPIRE", life.subject(), "100000"});  // as if a day had passed
  life.op({24h, 60s}, "daily", 1, 0);
  EXPECT_GT(life.left(), 24h);
}

TEST(KeyLife, ReplayedFactsOutliveTheirWindowToo) {
  Life life;
  quota::Replay replay;
  replay.op = {7, life.partition(), life.next_seq(), life.subject(), {}};
  replay.op.accounts.push_back(
      {.field = "daily", .window = 24h, .bucket = 60s, .limit = 1'000, .uses = {{life.now() / 60s, 2}}});
  replay.outstanding = {10};
  replay.session_expiry = life.now() + 10min;
  ASSERT_EQ(life.client().replay(replay, life.context()).status, OpStatus::applied);
  EXPECT_GT(life.left(), 10min + 6h + 24h - kMeanwhile);
}

TEST(KeyLife, PartitionAndOverridesNeverExpire) {
  Life life;
  life.op({1s, 100ms}, "burst", 1, 1);
  life.client().set_override({life.subject(), "burst"}, quota::LimitOverride{.limit = 5, .grants = {}});
  EXPECT_EQ(life.client().command({"PTTL", partition_key(life.partition())}).integer, -1);
  EXPECT_EQ(life.client().command({"PTTL", override_key(life.partition())}).integer, -1);
}

}  // namespace
}  // namespace tollgate::redis
