// The ledger on a real redis-server: what a charge means, in real and in virtual time.
#include "metering/redis/redis_ledger.h"

#include <gtest/gtest.h>

#include "metering/quota/keys.h"
#include "metering/quota/record.h"
#include "tests/metering/redis/support/redis_fixture.h"

namespace tollgate::redis {
namespace {

using quota::AccountCharge;
using quota::ChargeOutcome;
using quota::kUnlimited;
using testing::account;
using testing::Client;
using testing::Server;
using Status = ChargeOutcome::Status;
using namespace std::chrono_literals;

constexpr Milliseconds kDay{86'400'000};
constexpr Milliseconds kMinute{60'000};
constexpr Milliseconds kGuard{2'000};
constexpr Milliseconds kStart{1'763'820'000'000};  // a whole minute

std::string record_of(const Server& server, const quota::AccountKey& key) {
  return server.command({"HGET", key.subject_key, key.field}).text;
}
std::string dump_of(const Server& server, const std::string& key) {
  return server.command({"DUMP", key}).text;
}

class RedisLedgerTest : public ::testing::Test {
 protected:
  Server server;
  Client client{server};
};

class VirtualTimeTest : public ::testing::Test {
 protected:
  void at(Milliseconds now) { testing::set_clock(server, now); }
  VirtualTimeTest() { at(kStart); }
  Server server;
  Client client{server, testing::use_virtual_time};
};

TEST_F(RedisLedgerTest, ThousandCallsAreAdmittedAndTheNextIsNot) {
  for (int i = 1; i <= 1000; ++i) {
    ChargeOutcome outcome = client.charge({account("ann", "daily", 1000)});
    ASSERT_EQ(outcome.status, Status::admitted) << i << outcome.error;
    ASSERT_EQ(outcome.states[0].used, static_cast<std::uint64_t>(i));
    ASSERT_EQ(outcome.receipt.items.size(), 1U);
  }
  ChargeOutcome refused = client.charge({account("ann", "daily", 1000)});
  EXPECT_EQ(refused.status, Status::exceeded);
  EXPECT_EQ(refused.violated, std::vector<std::uint32_t>{0});
  EXPECT_EQ(refused.states[0].used, 1000U);
  EXPECT_EQ(refused.states[0].limit, 1000U);
  EXPECT_GT(refused.states[0].admitted_after, kDay - 1min);
  EXPECT_TRUE(refused.receipt.items.empty());
}

TEST_F(RedisLedgerTest, OneFullAccountLeavesEveryKeyByteForByteAsItWas) {
  AccountCharge mine = account("ann", "daily", 10), shared = account("pool", "daily", 3, 3);
  ASSERT_EQ(client.charge({mine}).status, Status::admitted);
  ASSERT_EQ(client.charge({shared}).status, Status::admitted);
  std::string before_mine = dump_of(server, mine.key.subject_key),
              before_shared = dump_of(server, shared.key.subject_key);
  std::string clock_key = "h:" + quota::hash_tag(quota::partition_of(mine.key.subject_key));
  std::string before_clock = dump_of(server, clock_key);

  shared.units = 1;
  ChargeOutcome refused = client.charge({mine, shared, account("ann", "other", 5)});

  EXPECT_EQ(refused.status, Status::exceeded);
  EXPECT_EQ(refused.violated, std::vector<std::uint32_t>{1});
  ASSERT_EQ(refused.states.size(), 3U);
  EXPECT_EQ(refused.states[0].used, 1U);
  EXPECT_EQ(refused.states[0].admitted_after, 0ms);
  EXPECT_EQ(refused.states[2].used, 0U);
  EXPECT_EQ(dump_of(server, mine.key.subject_key), before_mine);
  EXPECT_EQ(dump_of(server, shared.key.subject_key), before_shared);
  EXPECT_EQ(dump_of(server, clock_key), before_clock);
}

TEST_F(RedisLedgerTest, AccountNamedTwiceNeedsRoomForTheSum) {
  AccountCharge twice = account("ann", "daily", 5, 3);
  ChargeOutcome refused = client.charge({twice, twice});
  EXPECT_EQ(refused.status, Status::exceeded);
  EXPECT_EQ(refused.violated, std::vector<std::uint32_t>{1});
  twice.limit = 6;
  ChargeOutcome admitted = client.charge({twice, twice});
  EXPECT_EQ(admitted.status, Status::admitted);
  EXPECT_EQ(admitted.states[0].used, 6U);
}

TEST_F(RedisLedgerTest, UnlimitedAccountCountsAndIsNeverRefused) {
  ChargeOutcome outcome = client.charge({account("ann", "#|Case|read", kUnlimited, 4'000'000'000U)});
  ASSERT_EQ(outcome.status, Status::admitted);
  outcome = client.charge({account("ann", "#|Case|read", kUnlimited, 4'000'000'000U)});
  EXPECT_EQ(outcome.states[0].used, 8'000'000'000U);
  EXPECT_EQ(outcome.states[0].limit, kUnlimited);
}

TEST_F(RedisLedgerTest, MoreUnitsThanTheLimitNeverFit) {
  ChargeOutcome refused = client.charge({account("ann", "daily", 10, 11)});
  EXPECT_EQ(refused.status, Status::exceeded);
  EXPECT_EQ(refused.states[0].admitted_after, Milliseconds::max());
}

TEST_F(RedisLedgerTest, GivenBackUnitsAreFreeAgainAndTheEmptyRecordIsGone) {
  AccountCharge full = account("ann", "daily", 5, 5);
  ChargeOutcome first = client.charge({full});
  ASSERT_EQ(first.status, Status::admitted);
  ASSERT_EQ(client.charge({full}).status, Status::exceeded);
  client.give_back(first.receipt);
  EXPECT_EQ(server.command({"EXISTS", full.key.subject_key}).integer, 0);
  ChargeOutcome second = client.charge({full});
  ASSERT_EQ(second.status, Status::admitted);
  client.give_back(second.receipt);
  client.give_back(second.receipt);  // never below zero
  EXPECT_EQ(client.read({full})[0].used, 0U);
}

TEST_F(RedisLedgerTest, OverrideWinsOverTheRuleAndMayBeRaisedLoweredAndRemoved) {
  AccountCharge one = account("ann", "daily", 2);
  ASSERT_EQ(client.charge({one}).status, Status::admitted);
  ASSERT_EQ(client.charge({one}).status, Status::admitted);
  ASSERT_EQ(client.charge({one}).status, Status::exceeded);
  client.set_override(one.key, 3);
  ChargeOutcome raised = client.charge({one});
  EXPECT_EQ(raised.status, Status::admitted);
  EXPECT_EQ(raised.states[0].limit, 3U);
  client.set_override(one.key, 1);
  ChargeOutcome lowered = client.charge({one});
  EXPECT_EQ(lowered.status, Status::exceeded);
  EXPECT_EQ(lowered.states[0].limit, 1U);
  EXPECT_EQ(lowered.states[0].used, 3U);
  client.set_override(one.key, 0);
  EXPECT_EQ(client.charge({one}).states[0].admitted_after, Milliseconds::max());
  client.set_override(one.key, kUnlimited);
  ChargeOutcome unlimited = client.charge({one});
  EXPECT_EQ(unlimited.status, Status::admitted);
  EXPECT_EQ(unlimited.states[0].limit, kUnlimited);
  client.set_override(one.key, std::nullopt);
  EXPECT_EQ(client.read({one})[0].limit, 2U);
}

TEST_F(RedisLedgerTest, OverrideOfOneAccountIsNotAnothersAndHasNoTimeToLive) {
  client.set_override(account("ann", "daily", 2).key, 7);
  EXPECT_EQ(client.read({account("ann", "hourly", 2)})[0].limit, 2U);
  EXPECT_EQ(client.read({account("bob", "daily", 2)})[0].limit, 2U);
  std::string key = "o:" + quota::hash_tag(quota::partition_of(account("ann", "daily", 2).key.subject_key));
  EXPECT_EQ(server.command({"PTTL", key}).integer, -1);
  std::optional<Result<std::optional<std::uint64_t>>> answer;
  client.ledger.get_override(account("ann", "daily", 2).key, [&](auto limit) { answer = limit; });
  ASSERT_TRUE(client.loop.run_until([&] { return answer.has_value(); }));
  EXPECT_EQ(answer->value(), 7U);
}

TEST_F(RedisLedgerTest, OverrideThatIsNoNumberMakesTheChargeUnavailableAndNamesIt) {
  AccountCharge one = account("ann", "daily", 2);
  std::string key = "o:" + quota::hash_tag(quota::partition_of(one.key.subject_key));
  server.command({"HSET", key, one.key.subject_key + " daily", "lots"});
  ChargeOutcome outcome = client.charge({one});
  EXPECT_EQ(outcome.status, Status::unavailable);
  EXPECT_NE(outcome.error.find("override"), std::string::npos) << outcome.error;
}

TEST_F(RedisLedgerTest, DamagedRecordStopsTheWholeCharge) {
  AccountCharge good = account("ann", "daily", 9), bad = account("bob", "daily", 9);
  for (std::string bytes : {std::string("x"), std::string(40, '\x7f'),
                            std::string("\x01\x00\x14", 3) + std::string(28, '\x01')}) {
    server.command({"HSET", bad.key.subject_key, "daily", bytes});
    ChargeOutcome outcome = client.charge({good, bad});
    EXPECT_EQ(outcome.status, Status::unavailable);
    EXPECT_NE(outcome.error.find("cannot be read"), std::string::npos) << outcome.error;
    EXPECT_EQ(record_of(server, good.key), "");
    EXPECT_EQ(record_of(server, bad.key), bytes);
  }
}

TEST_F(RedisLedgerTest, ResetForgetsWhatWasCountedAndKeepsOverrides) {
  AccountCharge one = account("ann", "daily", 2, 2);
  client.set_override(one.key, 4);
  ASSERT_EQ(client.charge({one}).status, Status::admitted);
  bool done = false;
  client.ledger.reset({one.key, account("bob", "daily", 1).key},
                      [&](Result<void> result) { done = result.has_value(); });
  ASSERT_TRUE(client.loop.run_until([&] { return done; }));
  auto state = client.read({one})[0];
  EXPECT_EQ(state.used, 0U);
  EXPECT_EQ(state.limit, 4U);
}

TEST_F(RedisLedgerTest, KeyLivesAtLeastAsLongAsItsLastBucketWhateverTheWindow) {
  for (Milliseconds window : {1'000ms, 60'000ms, 3'600'000ms, 86'400'000ms, 2'678'400'000ms}) {
    Milliseconds bucket = quota::default_bucket(window);
    AccountCharge one = account("u" + std::to_string(window.count()), "rule", 100, 1, window, bucket);
    ASSERT_EQ(client.charge({one}).status, Status::admitted);
    Milliseconds needed = window + std::min(bucket, kGuard);
    EXPECT_GE(server.command({"PTTL", one.key.subject_key}).integer, needed.count()) << window.count();
  }
  // A second account with a shorter window must not shorten the life of the key.
  AccountCharge day = account("mix", "daily", 100), second = account("mix", "burst", 100, 1, 1'000ms, 100ms);
  client.charge({day});
  client.charge({second});
  EXPECT_GE(server.command({"PTTL", day.key.subject_key}).integer, (kDay - 1min).count());
}

TEST_F(RedisLedgerTest, ScriptFlushIsCuredWithinTheSameCharge) {
  ASSERT_EQ(client.charge({account("ann", "daily", 1000)}).status, Status::admitted);
  ASSERT_EQ(server.command({"SCRIPT", "FLUSH"}).text, "OK");
  int admitted = 0;
  for (int i = 0; i < 100; ++i)
    client.ledger.charge({account("ann", "daily", 1000)},
                         [&](ChargeOutcome&& outcome) { admitted += outcome.status == Status::admitted; });
  ASSERT_TRUE(client.loop.run_until([&] { return admitted == 100; }));
  EXPECT_EQ(client.read({account("ann", "daily", 1000)})[0].used, 101U);
  EXPECT_GE(client.ledger.counters().script_loads, 100U);
}

TEST_F(RedisLedgerTest, ThousandChargesOfOneTurnAreExactInAnyNumberOfWrites) {
  int admitted = 0, exceeded = 0;
  for (int i = 0; i < 1500; ++i)
    client.ledger.charge({account("ann", "daily", 1000), account("pool", "daily", 5000)},
                         [&](ChargeOutcome&& outcome) {
                           admitted += outcome.status == Status::admitted;
                           exceeded += outcome.status == Status::exceeded;
                         });
  ASSERT_TRUE(client.loop.run_until([&] { return admitted + exceeded == 1500; }));
  EXPECT_EQ(admitted, 1000);
  EXPECT_EQ(client.read({account("pool", "daily", 5000)})[0].used, 1000U);
}

TEST_F(RedisLedgerTest, OutOfMemoryIsUnavailableAndCountsNothing) {
  ASSERT_EQ(client.charge({account("ann", "daily", 10)}).status, Status::admitted);
  server.command({"CONFIG", "SET", "maxmemory", "1"});
  ChargeOutcome outcome = client.charge({account("ann", "daily", 10), account("bob", "daily", 10)});
  EXPECT_EQ(outcome.status, Status::unavailable);
  EXPECT_NE(outcome.error.find("OOM"), std::string::npos) << outcome.error;
  server.command({"CONFIG", "SET", "maxmemory", "0"});
  EXPECT_EQ(client.read({account("ann", "daily", 10)})[0].used, 1U);
  EXPECT_EQ(client.read({account("bob", "daily", 10)})[0].used, 0U);
}

TEST_F(RedisLedgerTest, ReplicaRefusesWritesAndTheConnectionIsMadeAnew) {
  ASSERT_EQ(client.charge({account("ann", "daily", 10)}).status, Status::admitted);
  server.command({"REPLICAOF", "127.0.0.1", "1"});
  server.command({"CONFIG", "SET", "replica-serve-stale-data", "yes"});
  ChargeOutcome outcome = client.charge({account("ann", "daily", 10)});
  EXPECT_EQ(outcome.status, Status::unavailable);
  EXPECT_NE(outcome.error.find("READONLY"), std::string::npos) << outcome.error;
  server.command({"REPLICAOF", "NO", "ONE"});
  ASSERT_TRUE(client.loop.run_until([&] { return client.ledger.store_up(); }));
  EXPECT_EQ(client.charge({account("ann", "daily", 10)}).status, Status::admitted);
  EXPECT_GE(client.ledger.counters().reconnects, 1U);
}

TEST_F(RedisLedgerTest, LedgerDestroyedWithChargesInFlightCallsNobody) {
  int called = 0;
  {
    RedisLedger ledger(client.loop.base(), {.connection = {.url = server.url()}, .timeout = 10ms});
    ledger.start();
    ASSERT_TRUE(client.loop.run_until([&] { return ledger.store_up(); }));
    for (int i = 0; i < 10; ++i)
      ledger.charge({account("ann", "daily", 10)}, [&](ChargeOutcome&&) { ++called; });
  }
  client.charge({account("bob", "daily", 10)});
  EXPECT_EQ(called, 0);
}

TEST_F(RedisLedgerTest, CallbackMayDestroyTheLedger) {
  auto ledger = std::make_unique<RedisLedger>(
      client.loop.base(), RedisLedgerOptions{.connection = {.url = server.url()}, .timeout = 5'000ms});
  ledger->start();
  int called = 0;
  for (int i = 0; i < 3; ++i)
    ledger->charge({account("ann", "daily", 10)}, [&](ChargeOutcome&&) {
      ++called;
      ledger.reset();
    });
  ASSERT_TRUE(client.loop.run_until([&] { return called == 1 && ledger == nullptr; }));
  client.charge({account("bob", "daily", 10)});
  EXPECT_EQ(called, 1);
}

// ---- virtual time

TEST_F(VirtualTimeTest, CallIsAdmittedAtTheMomentThatWasNamedAndNotOneMillisecondEarlier) {
  at(kStart + 17'123ms);
  ASSERT_EQ(client.charge({account("ann", "daily", 3, 2)}).status, Status::admitted);
  at(kStart + 5 * kMinute);
  ASSERT_EQ(client.charge({account("ann", "daily", 3, 1)}).status, Status::admitted);
  Milliseconds refused_at = kStart + 10 * kMinute;
  at(refused_at);
  ChargeOutcome refused = client.charge({account("ann", "daily", 3, 3)});
  ASSERT_EQ(refused.status, Status::exceeded);
  EXPECT_EQ(refused.states[0].next_free_after, kStart + kMinute + kDay + kGuard - refused_at);
  EXPECT_EQ(refused.states[0].next_free_units, 2U);
  EXPECT_EQ(refused.states[0].admitted_after, kStart + 6 * kMinute + kDay + kGuard - refused_at);
  Milliseconds moment = refused_at + refused.states[0].admitted_after;
  at(moment - 1ms);
  EXPECT_EQ(client.charge({account("ann", "daily", 3, 3)}).status, Status::exceeded);
  at(moment);
  EXPECT_EQ(client.charge({account("ann", "daily", 3, 3)}).status, Status::admitted);
}

TEST_F(VirtualTimeTest, ClockThatIsSetBackFreesNothingEarly) {
  at(kStart + 10 * kMinute);
  ChargeOutcome first = client.charge({account("ann", "daily", 1)});
  ASSERT_EQ(first.status, Status::admitted);
  at(kStart);
  EXPECT_EQ(client.charge({account("ann", "daily", 1)}).status, Status::exceeded);
  ChargeOutcome other = client.charge({account("ann", "other", 1)});
  ASSERT_EQ(other.status, Status::admitted);
  EXPECT_EQ(other.receipt.items[0].bucket_number, first.receipt.items[0].bucket_number);
}

TEST_F(VirtualTimeTest, WindowsFromOneSecondTo31DaysAreExact) {
  for (Milliseconds window : {1'000ms, 10'000ms, 3'600'000ms, 86'400'000ms, 2'678'400'000ms}) {
    Milliseconds bucket = quota::default_bucket(window), guard = std::min(bucket, kGuard);
    AccountCharge one = account("w" + std::to_string(window.count()), "rule", 1, 1, window, bucket);
    at(kStart + 1ms);
    ASSERT_EQ(client.charge({one}).status, Status::admitted);
    ASSERT_EQ(kStart.count() % bucket.count(), 0);
    at(kStart + bucket + window + guard - 1ms);
    EXPECT_EQ(client.charge({one}).status, Status::exceeded) << window.count();
    at(kStart + bucket + window + guard);
    EXPECT_EQ(client.charge({one}).status, Status::admitted) << window.count();
    server.command({"FLUSHALL"});
  }
}

TEST_F(VirtualTimeTest, ReadChangesNothing) {
  AccountCharge one = account("ann", "daily", 5, 2);
  client.charge({one});
  std::string before = dump_of(server, one.key.subject_key);
  at(kStart + 2 * kDay);
  auto states = client.read({one, account("bob", "daily", 5)});
  EXPECT_EQ(states[0].used, 0U);
  EXPECT_EQ(states[0].next_free_after, 0ms);
  EXPECT_EQ(states[1].used, 0U);
  EXPECT_EQ(dump_of(server, one.key.subject_key), before);
}

}  // namespace
}  // namespace tollgate::redis
