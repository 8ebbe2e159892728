// The rolling window as the scripts on a real Redis keep it, seen by one proxy that holds no spare tokens: moments to the
// millisecond, windows of all lengths, overrides, and every decision against the plainest model there is, the list of
// all units ever admitted with their moments. Virtual time; the seed is printed with a failure.
#include <gtest/gtest.h>

#include <deque>

#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "tests/metering/redis/support/script_client.h"

namespace tollgate::redis {
namespace {

using quota::AccountCharge;
using quota::kUnlimited;
using quota::LeaseState;
using quota::Op;
using quota::OpStatus;
using quota::SendContext;
using testing::account;
using namespace std::chrono_literals;

constexpr Milliseconds kStart{1'763'820'000'000};  // a whole minute
constexpr Milliseconds kDay = 24h;
constexpr Milliseconds kGuard = 2s;

class OneProxy {
 public:
  OneProxy() { at(kStart); }

  void at(Milliseconds now) {
    now_ = now;
    client.set_clock(now);
  }
  // Asks for exactly the units of the call and, if they are lent, says at once that they were used.
  LeaseState call(const AccountCharge& charge) {
    const LeaseState state = ask(charge);
    if (state.granted == charge.units) settle(charge, now_ / charge.bucket, charge.units);
    return state;
  }
  bool admits(const AccountCharge& charge) { return call(charge).granted == charge.units; }

  // ---- the parts of a call on several accounts
  LeaseState ask(const AccountCharge& charge) {
    Op op = make(charge);
    op.accounts[0].need = op.accounts[0].want = charge.units;
    return apply(op);
  }
  void settle(const AccountCharge& charge, std::int64_t bucket, std::int64_t units) {
    Op op = make(charge);
    op.accounts[0].uses = {{bucket, units}};
    apply(op);
  }
  void hand_back(const AccountCharge& charge) {
    Op op = make(charge);
    op.accounts[0].returned = charge.units;
    EXPECT_EQ(apply(op).outstanding, 0U);
  }
  std::string dump(const std::string& key) { return client.command({"DUMP", key}).text; }

  testing::Server server;
  testing::ScriptClient client{server};

 private:
  Op make(const AccountCharge& charge) {
    const unsigned partition = quota::partition_of(charge.key.subject_key);
    if (seq_[partition] == 0) {
      EXPECT_TRUE(client.ping({7, partition, 0, {}}, context()).open);
    }
    Op op{7, partition, ++seq_[partition], charge.key.subject_key, {}};
    op.accounts.push_back(
        {.field = charge.key.field, .window = charge.window, .bucket = charge.bucket, .limit = charge.limit});
    return op;
  }
  // lease_max 0: nothing is lent beyond what the call needs.
  SendContext context() const { return {"run", now_, 15min, 10s, 0}; }
  LeaseState apply(const Op& op) {
    const quota::OpReply reply = client.apply(op, context());
    EXPECT_EQ(reply.status, OpStatus::applied);
    EXPECT_FALSE(reply.fenced || reply.clock_off);
    return reply.states.at(0);
  }

  Milliseconds now_{0};
  std::map<unsigned, std::uint64_t> seq_;
};

TEST(ScriptWindow, CallIsAdmittedAtTheMomentThatWasNamedAndNotOneMillisecondEarlier) {
  OneProxy proxy;
  proxy.at(kStart + 17'123ms);
  ASSERT_TRUE(proxy.admits(account("ann", "daily", 3, 2)));
  proxy.at(kStart + 5min);
  ASSERT_TRUE(proxy.admits(account("ann", "daily", 3, 1)));
  proxy.at(kStart + 10min);
  const LeaseState refused = proxy.call(account("ann", "daily", 3, 3));
  ASSERT_EQ(refused.granted, 0U);
  EXPECT_EQ(refused.next_free_at, kStart + 1min + kDay + kGuard);
  EXPECT_EQ(refused.next_free_units, 2U);
  EXPECT_EQ(refused.fits_at, kStart + 6min + kDay + kGuard);
  proxy.at(refused.fits_at - 1ms);
  EXPECT_FALSE(proxy.admits(account("ann", "daily", 3, 3)));
  proxy.at(refused.fits_at);
  EXPECT_TRUE(proxy.admits(account("ann", "daily", 3, 3)));
}

TEST(ScriptWindow, WindowsFromOneSecondTo31DaysAreExact) {
  for (const Milliseconds window : {1'000ms, 10'000ms, 3'600'000ms, 86'400'000ms, 2'678'400'000ms}) {
    SCOPED_TRACE(window.count());
    OneProxy proxy;
    const Milliseconds bucket = quota::default_bucket(window), guard = std::min(bucket, kGuard);
    const AccountCharge one = account("ann", "rule", 1, 1, window, bucket);
    ASSERT_EQ(kStart % bucket, 0ms);
    proxy.at(kStart + 1ms);
    ASSERT_TRUE(proxy.admits(one));
    proxy.at(kStart + bucket + window + guard - 1ms);
    EXPECT_FALSE(proxy.admits(one));
    proxy.at(kStart + bucket + window + guard);
    EXPECT_TRUE(proxy.admits(one));
  }
}

TEST(ScriptWindow, ClockThatIsSetBackFreesNothingEarlyAndNothingLate) {
  OneProxy proxy;
  const AccountCharge one = account("ann", "daily", 1);
  proxy.at(kStart + 10min);
  ASSERT_TRUE(proxy.admits(one));
  proxy.at(kStart + 10min - kGuard);
  EXPECT_FALSE(proxy.admits(one));
  proxy.at(kStart + 11min + kDay + kGuard - 1ms);
  EXPECT_FALSE(proxy.admits(one));
  proxy.at(kStart + 11min + kDay + kGuard);
  EXPECT_TRUE(proxy.admits(one));
}

TEST(ScriptWindow, RefusalAndReadLeaveEveryRecordByteForByteAsItWas) {
  OneProxy proxy;
  const AccountCharge one = account("ann", "daily", 5, 5);
  ASSERT_TRUE(proxy.admits(one));
  const std::string before = proxy.dump(one.key.subject_key);
  EXPECT_FALSE(proxy.admits(account("ann", "daily", 5, 1)));
  EXPECT_EQ(proxy.dump(one.key.subject_key), before);
  proxy.at(kStart + 2 * kDay);
  EXPECT_EQ(proxy.client.read({one})[0].used, 0U);
  EXPECT_EQ(proxy.client.read({account("bob", "daily", 5)})[0].used, 0U);
  EXPECT_EQ(proxy.dump(one.key.subject_key), before);
}

TEST(ScriptWindow, UnitsGivenBackAreFreeAgainAndTheEmptyRecordIsGone) {
  OneProxy proxy;
  const AccountCharge full = account("ann", "daily", 5, 5);
  ASSERT_TRUE(proxy.admits(full));
  ASSERT_FALSE(proxy.admits(full));
  proxy.settle(full, kStart / 1min, -5);
  EXPECT_EQ(proxy.client.command({"EXISTS", full.key.subject_key}).integer, 0);
  ASSERT_TRUE(proxy.admits(full));
  proxy.settle(full, kStart / 1min, -5);
  proxy.settle(full, kStart / 1min, -5);  // never below zero
  EXPECT_EQ(proxy.client.read({full})[0].used, 0U);
  EXPECT_TRUE(proxy.admits(full));
  EXPECT_FALSE(proxy.admits(full));
}

TEST(ScriptWindow, OverrideWinsOverTheRuleAndMayBeRaisedLoweredAndRemoved) {
  OneProxy proxy;
  const AccountCharge one = account("ann", "daily", 2);
  ASSERT_TRUE(proxy.admits(one));
  ASSERT_TRUE(proxy.admits(one));
  ASSERT_FALSE(proxy.admits(one));
  proxy.client.set_override(one.key, quota::LimitOverride{.limit = 3, .grants = {}});
  EXPECT_EQ(proxy.call(one).limit, 3U);
  EXPECT_EQ(proxy.client.read({one})[0].used, 3U);
  proxy.client.set_override(one.key, quota::LimitOverride{.limit = 1, .grants = {}});
  const LeaseState lowered = proxy.call(one);
  EXPECT_EQ(lowered.granted, 0U);
  EXPECT_EQ(lowered.limit, 1U);
  EXPECT_EQ(lowered.used, 3U);
  proxy.client.set_override(one.key, quota::LimitOverride{.limit = 0, .grants = {}});
  EXPECT_EQ(proxy.call(one).fits_at, Milliseconds::max());
  proxy.client.set_override(one.key, quota::LimitOverride{.limit = kUnlimited, .grants = {}});
  EXPECT_EQ(proxy.call(one).limit, kUnlimited);
  proxy.client.set_override(one.key, std::nullopt);
  EXPECT_EQ(proxy.client.read({one})[0].limit, 2U);
  EXPECT_EQ(proxy.client.read({account("ann", "hourly", 7)})[0].limit, 7U) << "an override is of one account";
}

TEST(ScriptWindow, MoreUnitsThanTheLimitNeverFit) {
  OneProxy proxy;
  EXPECT_EQ(proxy.call(account("ann", "daily", 10, 11)).fits_at, Milliseconds::max());
}

// ---- the list of timestamps

struct Admission {
  Milliseconds at;
  std::uint64_t units;
};

struct Model {
  AccountCharge account;
  std::uint64_t limit;  // override or rule
  std::deque<Admission> admissions;

  // Units admitted in (now - window, now]: what the promise is about.
  std::uint64_t in_window(Milliseconds now) const {
    std::uint64_t sum = 0;
    for (const Admission& one : admissions)
      if (one.at > now - account.window) sum += one.units;
    return sum;
  }
  // Units whose bucket is still live: what the answer may be late by, and not more.
  std::uint64_t in_live_buckets(Milliseconds now) const {
    const quota::WindowShape shape{account.window, account.bucket};
    std::uint64_t sum = 0;
    for (const Admission& one : admissions)
      if (shape.live(shape.bucket_of(one.at), now)) sum += one.units;
    return sum;
  }
};

// Office hours, bursts, nights; about 700 calls a day.
Milliseconds next_call(Random& random, Milliseconds now) {
  if (random.one_in(120)) return now + Milliseconds(random.below(8 * 3'600'000));
  if (random.one_in(10)) return now + Milliseconds(random.below(1'200'000));
  return now + Milliseconds(random.below(90'000));
}

struct Totals {
  std::uint64_t admitted = 0, refused = 0, given_back = 0, at_limit = 0;
};

// A user's account and one that is shared with others, in another partition: both or none. `precise`: few enough buckets
// that none is ever merged, so that the answer is known exactly.
class Days {
 public:
  Days(std::uint64_t seed, Milliseconds bucket, bool precise)
      : random_(seed),
        precise_(precise),
        user_{account("ann", "daily", 300, 1, kDay, bucket), 300, {}},
        pool_{account("pool", "daily", 420, 1, kDay, bucket), 420, {}} {}

  Totals run() {
    while (now_ < kStart + 4 * kDay && !::testing::Test::HasFailure()) {
      now_ = next_call(random_, now_);
      proxy_.at(now_);
      if (random_.one_in(150)) change_limit();
      if (!user_.admissions.empty() && random_.one_in(25)) give_back();
      call();
    }
    return totals_;
  }

 private:
  void change_limit() {
    const std::uint64_t limit = 200 + random_.below(250);
    const bool remove = random_.one_in(2);
    user_.limit = remove ? user_.account.limit : limit;
    proxy_.client.set_override(
        user_.account.key,
        remove ? std::nullopt : std::optional(quota::LimitOverride{.limit = limit, .grants = {}}));
  }
  void give_back() {
    const std::size_t newest = user_.admissions.size() - 1;
    const auto place =
        user_.admissions.begin() +
        static_cast<std::ptrdiff_t>(newest - random_.below(std::min<std::size_t>(newest + 1, 30)));
    proxy_.settle(user_.account, place->at / user_.account.bucket, -static_cast<std::int64_t>(place->units));
    user_.admissions.erase(place);
    ++totals_.given_back;
  }
  void call() {
    const bool both = random_.one_in(2);
    const std::uint32_t units = static_cast<std::uint32_t>(random_.one_in(8) ? 1 + random_.below(12) : 1);
    user_.account.units = pool_.account.units = units;
    const bool room = user_.in_live_buckets(now_) + units <= user_.limit &&
                      (!both || pool_.in_live_buckets(now_) + units <= pool_.account.limit);
    const LeaseState state = proxy_.ask(user_.account);
    if (precise_) {
      EXPECT_EQ(state.used, user_.in_live_buckets(now_));
    }
    bool admitted = state.granted == units;
    if (admitted && both && proxy_.ask(pool_.account).granted != units) {
      proxy_.hand_back(user_.account);
      admitted = false;
    }
    if (precise_) {
      EXPECT_EQ(admitted, room) << "at " << now_.count();
    }
    if (!admitted) {
      ++totals_.refused;
      return;
    }
    ++totals_.admitted;
    use(user_);
    if (both) use(pool_);
    totals_.at_limit += user_.in_window(now_) == user_.limit;
  }
  void use(Model& model) {
    proxy_.settle(model.account, now_ / model.account.bucket, model.account.units);
    model.admissions.push_back({now_, model.account.units});
    EXPECT_LE(model.in_window(now_), model.limit) << "at " << now_.count();
  }

  Random random_;
  bool precise_;
  OneProxy proxy_;
  Model user_, pool_;
  Milliseconds now_ = kStart;
  Totals totals_;
};

TEST(ScriptWindowOracle, DecisionsAreExactlyThoseOfTheListOfTimestamps) {
  for (const std::uint64_t seed : {11, 12}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Totals totals = Days(seed, 15min, true).run();
    EXPECT_GT(totals.admitted, 500U);
    EXPECT_GT(totals.refused, 50U);
    EXPECT_GT(totals.given_back, 10U);
  }
}

TEST(ScriptWindowOracle, NoSpanOf24HoursHoldsMoreThanTheLimitWhenBucketsAreMerged) {
  for (const std::uint64_t seed : {21, 22}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Totals totals = Days(seed, 60s, false).run();
    EXPECT_GT(totals.admitted, 500U);
    EXPECT_GT(totals.refused, 50U);
    EXPECT_GT(totals.at_limit, 0U) << "the limit was never reached: the run proves nothing";
  }
}

}  // namespace
}  // namespace tollgate::redis
