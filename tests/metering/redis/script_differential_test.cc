// The lease scripts on a real Redis against StoreModel: the same random history gives the same replies, the same bytes,
// the same h:{p} and the same messages, after every step. Virtual time; seed and step are printed with every failure.
#include <gtest/gtest.h>

#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "metering/quota/store_model.h"
#include "tests/metering/redis/support/script_client.h"

namespace tollgate::redis {
namespace {

using quota::AccountCharge;
using quota::AccountKey;
using quota::BucketUse;
using quota::Incarnation;
using quota::LimitOverride;
using quota::Op;
using quota::OpStatus;
using quota::Ping;
using quota::Replay;
using quota::SendContext;
using quota::StoreModel;
using testing::account;
using namespace std::chrono_literals;

constexpr Milliseconds kStart{1'763'820'000'000};
constexpr Incarnation kProxies[] = {7, 90'000, 4'294'967'295U, 123'456'789};

struct Coverage {
  std::uint64_t applied = 0, duplicates = 0, gaps = 0, fenced = 0, clock_off = 0, granted = 0, refused = 0,
                over = 0;
  std::uint64_t replayed = 0, pings = 0, opened = 0, recalls = 0, policies = 0, fences = 0, rooms = 0,
                never = 0, later = 0;
  std::uint64_t merged = 0;
};

class Differential {
 public:
  explicit Differential(std::uint64_t seed)
      : random_(seed), client_(server_), listener_(server_), model_([this] { return now_; }) {
    for (const char* user : {"ann", "bob"}) {
      accounts_.push_back(account(user, "daily", 300, 1, 24h, 60s));
      accounts_.push_back(account(user, "burst", 40, 1, 10s, 100ms));
      accounts_.push_back(account(user, "hourly", 150, 1, 1h, 2'500ms));
      accounts_.push_back(account(user, "monthly", 20'000, 1, 744h, 60s));
      accounts_.push_back(account(user, "#|Case|read", quota::kUnlimited, 1, 24h, 60s));
    }
    client_.set_clock(now_);
  }

  void step() {
    advance();
    const std::uint64_t dice = random_.below(1'000);
    if (dice < 640)
      op();
    else if (dice < 740)
      replay();
    else if (dice < 900)
      ping();
    else if (dice < 930)
      override_limit();
    else if (dice < 940)
      reset();
    else if (dice < 975)
      read();
    else if (dice < 985)
      list();
    else if (dice < 987)
      flush();
    else if (dice < 993)
      save_or_restore();
    else if (dice < 997)
      run_ = "run" + std::to_string(random_.below(3));
    else
      change_bucket();
    if (::testing::Test::HasFatalFailure()) return;
    compare_state();
  }
  const Coverage& coverage() const { return coverage_; }

 private:
  void advance() {
    constexpr std::uint64_t kMs[] = {1, 300, 5'000, 70'000, 400'000, 4'000'000, 40'000'000, 200'000'000};
    const std::uint64_t dice = random_.below(1'000);
    const std::size_t scale = dice < 300   ? 0
                              : dice < 450 ? 1
                              : dice < 600 ? 2
                              : dice < 850 ? 3
                              : dice < 950 ? 4
                              : dice < 992 ? 5
                              : dice < 999 ? 6
                                           : 7;
    now_ += Milliseconds(random_.below(kMs[scale] + 1));
    if (random_.one_in(100)) now_ -= Milliseconds(random_.below(20'000));
    client_.set_clock(now_);
  }

  SendContext context() {
    const Milliseconds skew = random_.one_in(20) ? Milliseconds(random_.below(10'000)) - 5s
                                                 : Milliseconds(random_.below(400)) - 200ms;
    return {.run = run_,
            .clock = now_ + skew,
            .session_ttl = random_.one_in(4) ? 60s : 900s,
            .fence_wait = random_.one_in(10) ? 0s : 10s,
            .lease_max = random_.one_in(4) ? 0U : 40U,
            .fence_settle = random_.one_in(2) ? 0s : 2s};
  }

  const AccountCharge& any_account() { return accounts_[random_.below(accounts_.size())]; }

  std::vector<BucketUse> uses(const AccountCharge& of) {
    std::vector<BucketUse> out;
    const std::int64_t current = now_ / of.bucket;
    const std::uint64_t count = random_.one_in(3) ? 0 : 1 + random_.below(4);
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t far = random_.below(20);
      const std::uint64_t back = far < 12 ? random_.below(3)
                                 : far < 16
                                     ? random_.below(25)
                                     : random_.below(static_cast<std::uint64_t>(of.window / of.bucket) + 30);
      const std::int64_t bucket = current + (random_.one_in(20) ? 1 : 0) - static_cast<std::int64_t>(back);
      const auto units =
          static_cast<std::int64_t>(random_.one_in(10) ? 1 + random_.below(300) : 1 + random_.below(6));
      out.push_back({bucket, random_.one_in(6) ? -units : units});
    }
    std::ranges::sort(out, {}, &BucketUse::bucket);
    return out;
  }

  Op next_op(Incarnation from) {
    Op op;
    const AccountCharge& first = any_account();
    op.incarnation = from;
    op.subject_key = first.key.subject_key;
    op.partition = quota::partition_of(op.subject_key);
    const std::uint64_t hwm = model_.hwm(op.partition, from);
    op.seq = random_.one_in(12) && hwm > 0 ? 1 + random_.below(hwm) : hwm + 1 + (random_.one_in(25) ? 1 : 0);
    for (const AccountCharge& one : accounts_) {
      if (one.key.subject_key != op.subject_key || (one.key != first.key && !random_.one_in(3))) continue;
      quota::OpAccount& asked = op.accounts.emplace_back();
      asked.field = one.key.field;
      asked.window = one.window;
      asked.bucket = one.bucket;
      asked.limit = one.limit;
      asked.uses = uses(one);
      asked.returned = random_.one_in(3) ? random_.below(20) : 0;
      asked.forget = random_.one_in(30);
      if (one.limit == quota::kUnlimited || random_.one_in(3)) continue;
      asked.need = static_cast<std::uint32_t>(random_.one_in(10) ? random_.below(500) : random_.below(8));
      asked.want = asked.need + static_cast<std::uint32_t>(random_.below(30));
    }
    return op;
  }

  void op() {
    const Op op = next_op(kProxies[random_.below(4)]);
    const SendContext with = context();
    const auto mine = client_.apply(op, with), theirs = model_.apply(op, with);
    compare(mine, theirs);
    coverage_.applied += mine.status == OpStatus::applied;
    coverage_.duplicates += mine.status == OpStatus::duplicate;
    coverage_.gaps += mine.status == OpStatus::gap;
    coverage_.fenced += mine.fenced;
    coverage_.clock_off += mine.clock_off;
    for (std::size_t i = 0; i < mine.states.size(); ++i) {
      coverage_.granted += mine.states[i].granted > 0;
      coverage_.over += mine.states[i].over;
      coverage_.never += mine.states[i].fits_at == Milliseconds::max();
      coverage_.later += mine.states[i].fits_at > mine.now && mine.states[i].fits_at < Milliseconds::max();
      coverage_.refused += op.accounts[i].need > 0 && mine.states[i].granted == 0 && !mine.fenced;
    }
  }

  void replay() {
    Replay replay;
    replay.op = next_op(kProxies[random_.below(4)]);
    for (std::size_t i = 0; i < replay.op.accounts.size(); ++i)
      replay.outstanding.push_back(random_.one_in(2) ? 0 : random_.below(50));
    replay.session_expiry = random_.one_in(8) ? 0ms : now_ + Milliseconds(random_.below(1'000'000)) - 100s;
    replay.base = random_.one_in(10);
    const SendContext with = context();
    compare(client_.replay(replay, with), model_.replay(replay, with));
    ++coverage_.replayed;
  }

  void ping() {
    Ping ping;
    ping.incarnation = kProxies[random_.below(4)];
    ping.partition = quota::partition_of(any_account().key.subject_key);
    ping.acked = model_.hwm(ping.partition, ping.incarnation) + (random_.one_in(8) ? 1 : 0);
    for (Incarnation peer : kProxies)
      if (random_.one_in(6)) ping.peers.push_back({peer, now_ + Milliseconds(random_.below(60'000)) - 10s});
    const SendContext with = context();
    const auto mine = client_.ping(ping, with), theirs = model_.ping(ping, with);
    ASSERT_EQ(mine.open, theirs.open);
    ASSERT_EQ(mine.hwm, theirs.hwm);
    ASSERT_EQ(mine.now, theirs.now);
    ASSERT_EQ(mine.session_expiry, theirs.session_expiry);
    ASSERT_EQ(mine.peers, theirs.peers);
    ++coverage_.pings;
    coverage_.opened += mine.open;
  }

  void override_limit() {
    const AccountKey key = any_account().key;
    std::optional<LimitOverride> value;
    if (!random_.one_in(3)) {
      value.emplace();
      if (random_.one_in(2)) value->limit = random_.one_in(5) ? quota::kUnlimited : random_.below(400);
      for (std::uint64_t i = random_.below(3); i > 0; --i)
        value->grants.push_back({random_.below(100), now_ + Milliseconds(random_.below(2'000'000))});
    }
    client_.set_override(key, value);
    model_.set_override(key, value);
    const auto stored = parse_override(client_.command(
        {"HGET", redis::override_key(quota::partition_of(key.subject_key)), redis::override_field(key)}));
    ASSERT_TRUE(stored.has_value());
    ASSERT_EQ(*stored, model_.get_override(key));
  }

  void reset() {
    const AccountKey key = any_account().key;
    client_.reset(key);
    model_.reset(key);
  }

  void read() {
    std::vector<AccountCharge> asked;
    const std::string& subject = any_account().key.subject_key;
    for (const AccountCharge& one : accounts_)
      if (one.key.subject_key == subject) asked.push_back(one);
    ASSERT_EQ(client_.read(asked), model_.read(asked));
  }

  void list() {
    const AccountCharge& one = any_account();
    const std::string prefix = random_.one_in(2) ? "#|" : "";
    const auto mine = client_.list(one.key.subject_key, prefix, one.window, one.bucket);
    const auto theirs = model_.list(one.key.subject_key, prefix, one.window, one.bucket);
    ASSERT_EQ(mine.size(), theirs.size());
    for (std::size_t i = 0; i < mine.size(); ++i) {
      ASSERT_EQ(mine[i].field, theirs[i].field);
      ASSERT_EQ(mine[i].used, theirs[i].used);
    }
  }

  void flush() {
    client_.command({"FLUSHALL"});
    client_.set_clock(now_);
    model_.flush();
  }

  // A failover to a copy that is behind.
  void save_or_restore() {
    if (!saved_ || random_.one_in(2)) {
      dumps_.clear();
      for (const Reply& key : client_.command({"KEYS", "*"}).elements)
        if (key.text != "clock") dumps_.emplace_back(key.text, client_.command({"DUMP", key.text}).text);
      saved_.emplace(model_);
      return;
    }
    client_.command({"FLUSHALL"});
    for (const auto& [key, dump] : dumps_) ASSERT_EQ(client_.command({"RESTORE", key, "0", dump}).text, "OK");
    client_.set_clock(now_);
    model_ = *saved_;
  }

  void change_bucket() {
    constexpr Milliseconds kBuckets[] = {60s, 30s, 45s, 300s};
    accounts_[random_.below(2) * 5].bucket = kBuckets[random_.below(4)];  // the daily ones
  }

  static void compare(const quota::OpReply& mine, const quota::OpReply& theirs) {
    ASSERT_EQ(mine.status, theirs.status);
    ASSERT_EQ(mine.fenced, theirs.fenced);
    ASSERT_EQ(mine.clock_off, theirs.clock_off);
    ASSERT_EQ(mine.hwm, theirs.hwm);
    ASSERT_EQ(mine.now, theirs.now);
    ASSERT_EQ(mine.session_expiry, theirs.session_expiry);
    ASSERT_EQ(mine.states.size(), theirs.states.size());
    for (std::size_t i = 0; i < mine.states.size(); ++i) {
      const quota::LeaseState &a = mine.states[i], &b = theirs.states[i];
      ASSERT_EQ(a.outstanding, b.outstanding) << i;
      ASSERT_EQ(a.granted, b.granted) << i;
      ASSERT_EQ(a.used, b.used) << i;
      ASSERT_EQ(a.lent_to_others, b.lent_to_others) << i;
      ASSERT_EQ(a.limit, b.limit) << i;
      ASSERT_EQ(a.next_free_at, b.next_free_at) << i;
      ASSERT_EQ(a.next_free_units, b.next_free_units) << i;
      ASSERT_EQ(a.fits_at, b.fits_at) << i;
      ASSERT_EQ(a.over, b.over) << i;
    }
  }

  void compare_state() {
    const auto mine = listener_.take(), theirs = model_.take_messages();
    ASSERT_EQ(mine, theirs);
    for (const StoreModel::Message& message : mine) {
      coverage_.recalls += message.kind == StoreModel::Message::Kind::recall;
      coverage_.policies += message.kind == StoreModel::Message::Kind::policy;
      coverage_.rooms += message.kind == StoreModel::Message::Kind::room;
      coverage_.fences += message.kind == StoreModel::Message::Kind::fence;
    }
    std::string before;
    for (const AccountCharge& one : accounts_) {
      if (one.key.subject_key == before) continue;
      before = one.key.subject_key;
      const unsigned partition = quota::partition_of(before);
      ASSERT_EQ(client_.hash(redis::partition_key(partition)), model_.partition_fields(partition));
      const auto records = client_.hash(before);
      for (const AccountCharge& other : accounts_) {
        if (other.key.subject_key != before) continue;
        const auto found = records.find(other.key.field);
        const std::string bytes = found == records.end() ? "" : found->second;
        ASSERT_EQ(bytes, model_.record(other.key)) << other.key.field;
        coverage_.merged += bytes.size() > 31 + 20 + 2 * 120;
      }
    }
  }

  Random random_;
  testing::Server server_;
  testing::ScriptClient client_;
  testing::Listener listener_;
  Milliseconds now_ = kStart;
  std::string run_ = "run0";
  StoreModel model_;
  std::optional<StoreModel> saved_;
  std::vector<std::pair<std::string, std::string>> dumps_;
  std::vector<AccountCharge> accounts_;
  Coverage coverage_;
};

TEST(ScriptsAndStoreModel, SameHistoryGivesSameRepliesBytesAndMessages) {
  for (std::uint64_t seed : {1, 2, 3, 4}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Differential run(seed);
    for (int step = 0; step < 4'000; ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      run.step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    // The run was worth something: every ending happened.
    const Coverage& seen = run.coverage();
    EXPECT_GT(seen.applied, 1'000U);
    EXPECT_GT(seen.duplicates, 100U);
    EXPECT_GT(seen.gaps, 50U);
    EXPECT_GT(seen.fenced, 20U);
    EXPECT_GT(seen.clock_off, 20U);
    EXPECT_GT(seen.granted, 200U);
    EXPECT_GT(seen.refused, 100U);
    EXPECT_GT(seen.never, 10U);
    EXPECT_GT(seen.later, 20U);
    EXPECT_GT(seen.over, 20U);
    EXPECT_GT(seen.replayed, 200U);
    EXPECT_GT(seen.opened, 100U);
    EXPECT_GT(seen.pings, seen.opened);
    EXPECT_GT(seen.recalls, 20U);
    EXPECT_GT(seen.policies, 50U);
    EXPECT_GT(seen.fences, 3U);
    EXPECT_GT(seen.rooms, 50U);
  }
}

}  // namespace
}  // namespace tollgate::redis
