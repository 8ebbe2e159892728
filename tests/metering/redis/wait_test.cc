// Durability `wait`: replies are held until replicas have confirmed what they say.
#include <gtest/gtest.h>
#include <signal.h>

#include "metering/redis/redis_store.h"
#include "tests/metering/redis/support/store_fixture.h"

namespace tollgate::redis {
namespace {

using quota::OpStatus;
using testing::account;
using testing::partition_of_user;
using testing::Server;
using testing::StoreClient;
using namespace std::chrono_literals;

std::vector<std::string> replica_settings(const Server& primary) {
  return {"port {port}", "bind 127.0.0.1", "repl-diskless-sync-delay 0",
          "replicaof 127.0.0.1 " + std::to_string(primary.port())};
}

constexpr Milliseconds kPatient{10'000};  // a busy machine's replica is slow, too
constexpr Milliseconds kShort{60};        // where it is to run out

class Wait : public ::testing::Test {
 protected:
  Wait() { wait_for_replicas(1); }

  void wait_for_replicas(std::size_t count) {
    testing::Loop loop;
    ASSERT_TRUE(
        loop.run_until([&] { return primary.command({"ROLE"}).elements[2].elements.size() == count; }));
  }
  StoreClient::Adjust waiting(Milliseconds timeout, std::uint32_t min_replicas = 1) {
    return [=](RedisStoreOptions& options) {
      options.durability = Durability::wait;
      options.min_replicas = min_replicas;
      options.wait_timeout = timeout;
    };
  }

  Server primary{{"port {port}", "bind 127.0.0.1", "repl-diskless-sync-delay 0"}};
  Server replica{replica_settings(primary)};
};

TEST_F(Wait, ConfirmedOpsAreAnsweredAndOnTheReplica) {
  StoreClient client(primary.url(), waiting(kPatient));
  auto lent = client.acquire("ann", 5);
  ASSERT_TRUE(lent.has_value());
  EXPECT_EQ(lent->states[0].granted, 5U);
  EXPECT_EQ(replica.command({"HLEN", testing::key_of("ann")}).integer, 1);
  EXPECT_EQ(client.store.counters().wait_misses, 0U);
}

TEST_F(Wait, OneWaitCoversAPipeline) {
  StoreClient client(primary.url(), waiting(kPatient));
  ASSERT_TRUE(client.acquire("ann", 1));
  primary.command({"CONFIG", "RESETSTAT"});
  std::size_t before = client.record.ops.size();
  for (int i = 0; i < 300; ++i) client.send(client.make_op("ann", 1));
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.ops.size() == before + 300; }));
  std::string stats = primary.command({"INFO", "commandstats"}).text;
  EXPECT_NE(stats.find("cmdstat_evalsha:calls=300,"), std::string::npos) << stats;
  EXPECT_NE(stats.find("cmdstat_wait:calls=1,"), std::string::npos) << stats;
}

TEST_F(Wait, UnconfirmedReplyIsNeverToldAndTheRepeatedOpIsADuplicate) {
  StoreClient client(primary.url(), waiting(kShort));
  ASSERT_TRUE(client.acquire("ann", 1));
  unsigned partition = partition_of_user("ann");
  replica.signal(SIGSTOP);
  quota::Op op = client.make_op("ann", 5);
  std::size_t before = client.record.ops.size();
  // Applied by the primary again and again, confirmed by nobody: down and up each time.
  EXPECT_FALSE(client.apply(op, 500ms).has_value());
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.downs[partition] >= 1; }));
  EXPECT_EQ(client.record.ops.size(), before);
  EXPECT_GE(client.store.counters().wait_misses, 1U);
  replica.signal(SIGCONT);
  auto reply = client.apply(op);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->status, OpStatus::duplicate);
  EXPECT_EQ(reply->states[0].outstanding, 6U);
  EXPECT_EQ(client.store.counters().reconnects, 0U) << "a miss is no reason to connect anew";
}

TEST_F(Wait, FewerReplicasThanAskedForConfirmNothing) {
  StoreClient client(primary.url(), waiting(kShort, 2));
  ASSERT_TRUE(client.come_up());
  EXPECT_FALSE(client.apply(client.make_op("ann", 1), 400ms).has_value());
  EXPECT_TRUE(client.loop.run_until([&] { return client.store.counters().wait_misses >= 1; }));
  EXPECT_NE(client.store.last_error().find(" of 2 replicas"), std::string::npos) << client.store.last_error();
  EXPECT_EQ(client.read({account("ann", "daily", 9)}).size(), 1U) << "a read needs no confirmation";
}

TEST_F(Wait, ReplicaThatJoinsMustConfirmToo) {
  StoreClient client(primary.url(), waiting(kPatient));
  ASSERT_TRUE(client.acquire("ann", 1));
  Server second(replica_settings(primary));
  wait_for_replicas(2);
  ASSERT_TRUE(client.acquire("ann", 1));
  EXPECT_EQ(client.store.counters().wait_misses, 0U);
  second.signal(SIGSTOP);
  StoreClient hasty(primary.url(), waiting(kShort));
  EXPECT_FALSE(hasty.ping(0, 400ms).has_value()) << "the one that is behind may be the one that is promoted";
  EXPECT_TRUE(hasty.loop.run_until([&] { return hasty.store.counters().wait_misses >= 1; }));
  second.signal(SIGCONT);
}

TEST_F(Wait, ScriptsLostUnderWaitAreLoadedAndStillConfirmed) {
  StoreClient client(primary.url(), waiting(kPatient));
  ASSERT_TRUE(client.acquire("ann", 1));
  primary.command({"SCRIPT", "FLUSH"});
  std::size_t before = client.record.ops.size();
  for (int i = 0; i < 20; ++i) client.send(client.make_op("ann", 1));
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.ops.size() == before + 20; }));
  for (const auto& answer : client.record.ops) EXPECT_EQ(answer.reply.status, OpStatus::applied);
  EXPECT_EQ(client.store.counters().wait_misses, 0U);
}

}  // namespace
}  // namespace tollgate::redis
