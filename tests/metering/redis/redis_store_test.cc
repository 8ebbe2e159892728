// The store on one real server: what travels, in which order, and what is told when the server fails.
#include "metering/redis/redis_store.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <set>

#include "metering/quota/keys.h"
#include "tests/metering/redis/support/store_fixture.h"

namespace tollgate::redis {
namespace {

using quota::OpStatus;
using testing::account;
using testing::key_of;
using testing::Loop;
using testing::parse_url;
using testing::partition_of_user;
using testing::Record;
using testing::Server;
using testing::StoreClient;
using testing::TemporaryDirectory;
using testing::user_in;
using namespace std::chrono_literals;

bool owns_even(unsigned partition) {
  return partition % 2 == 0;
}

TEST(RedisStore, PartitionsComeUpWithTheRunIdOfTheServer) {
  Server server;
  StoreClient client(server.url());
  ASSERT_TRUE(client.come_up()) << client.store.last_error();
  EXPECT_EQ(client.record.runs.size(), quota::kPartitions);
  EXPECT_EQ(client.record.runs[17].size(), 40U);
  EXPECT_NE(server.command({"INFO", "server"}).text.find("run_id:" + client.record.runs[17]),
            std::string::npos);
}

TEST(RedisStore, OnlyPartitionsOfTheStoreAreTold) {
  Server server;
  StoreClient client(server.url(), nullptr, owns_even);
  ASSERT_TRUE(client.come_up());
  EXPECT_EQ(client.record.runs.size(), quota::kPartitions / 2);
  for (const auto& [partition, run] : client.record.runs) EXPECT_TRUE(owns_even(partition)) << partition;
  EXPECT_FALSE(client.store.up(1));
}

TEST(RedisStore, FirstVoteOpensAndAnOpLendsAndSettles) {
  Server server;
  StoreClient client(server.url());
  unsigned partition = partition_of_user("ann");
  auto ping = client.ping(partition);
  ASSERT_TRUE(ping.has_value());
  EXPECT_TRUE(ping->open);
  auto lent = client.apply(client.make_op("ann", 5));
  ASSERT_TRUE(lent.has_value());
  EXPECT_EQ(lent->status, OpStatus::applied);
  EXPECT_FALSE(lent->fenced);
  ASSERT_EQ(lent->states.size(), 1U);
  EXPECT_EQ(lent->states[0].outstanding, 5U);
  auto settled =
      client.apply(client.make_op("ann", 0, {{.bucket = client.clock.count() / 60'000, .units = 3}}));
  ASSERT_TRUE(settled.has_value());
  EXPECT_EQ(settled->states[0].used, 3U);
  EXPECT_EQ(settled->states[0].outstanding, 2U);
}

TEST(RedisStore, RepeatedOpIsADuplicateAndASkippedOneAGap) {
  Server server;
  StoreClient client(server.url());
  ASSERT_TRUE(client.acquire("ann", 1));
  quota::Op op = client.make_op("ann", 1);
  ASSERT_EQ(client.apply(op)->status, OpStatus::applied);
  EXPECT_EQ(client.apply(op)->status, OpStatus::duplicate);
  client.make_op("ann", 1);  // never sent
  EXPECT_EQ(client.apply(client.make_op("ann", 1))->status, OpStatus::gap);
}

TEST(RedisStore, ReplayIsAnsweredWithItsNumber) {
  Server server;
  StoreClient client(server.url());
  ASSERT_TRUE(client.ping(partition_of_user("ann")));
  quota::Replay replay{
      .op = client.make_op("ann", 0, {{.bucket = client.clock.count() / 60'000, .units = 4}}),
      .outstanding = {2},
      .session_expiry = client.clock + 60'000ms};
  client.store.send(replay, {.run = client.record.runs[replay.op.partition],
                             .clock = client.clock,
                             .session_ttl = 900'000ms,
                             .fence_wait = 0ms,
                             .lease_max = 400});
  ASSERT_TRUE(client.loop.run_until([&] { return !client.record.replays.empty(); }));
  EXPECT_EQ(client.record.replays[0].partition, replay.op.partition);
  EXPECT_EQ(client.record.replays[0].seq, 1U);
  EXPECT_EQ(client.record.replays[0].reply.status, OpStatus::applied);
  EXPECT_EQ(client.read({account("ann", "daily", 1'000)})[0].used, 4U);
}

TEST(RedisStore, OpsOfOneTurnAreOnePipelineAndAppliedInOrder) {
  Server server;
  StoreClient client(server.url());
  ASSERT_TRUE(client.come_up());
  std::vector<std::string> users;
  for (int i = 0; i < 40; ++i) users.push_back(fmt::format("user{}", i));
  for (const std::string& user : users) ASSERT_TRUE(client.ping(partition_of_user(user)));
  for (int round = 0; round < 5; ++round)
    for (const std::string& user : users) client.send(client.make_op(user, 1));
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.ops.size() == 200; }));
  std::map<unsigned, std::uint64_t> last;
  for (const Record::Answer& answer : client.record.ops) {
    EXPECT_EQ(answer.reply.status, OpStatus::applied);
    EXPECT_EQ(answer.seq, ++last[answer.partition]);
  }
  EXPECT_FALSE(client.record.told_inside_send);
}

// ---- scripts

TEST(RedisStore, LostScriptsAreLoadedAndNothingOvertakes) {
  Server server;
  StoreClient client(server.url());
  std::string user = "ann";
  ASSERT_TRUE(client.acquire(user, 1));
  server.command({"SCRIPT", "FLUSH"});
  for (int i = 0; i < 50; ++i) client.send(client.make_op(user, 1));
  // More while the first ones are on their way.
  std::size_t before = client.record.ops.size();
  ASSERT_TRUE(client.loop.run_until([&] {
    if (client.record.ops.size() < before + 20) client.send(client.make_op(user, 1));
    return client.record.ops.size() >= before + 50;
  }));
  for (const Record::Answer& answer : client.record.ops)
    EXPECT_EQ(answer.reply.status, OpStatus::applied) << answer.seq;
  EXPECT_EQ(client.store.counters().script_loads, 1U);
  EXPECT_TRUE(client.record.downs.empty());
}

TEST(RedisStore, RestartWithALostScriptCacheIsAnotherRunAndLosesNoAcknowledgedOp) {
  TemporaryDirectory directory;
  Server server({"appendonly yes", "appendfsync always"}, &directory);
  StoreClient client(server.url());
  auto lent = client.acquire("ann", 5);
  ASSERT_TRUE(lent && lent->states[0].granted == 5);
  unsigned partition = partition_of_user("ann");
  std::string run = client.record.runs[partition];
  server.kill_and_restart();
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.ups[partition] == 2; }));
  EXPECT_NE(client.record.runs[partition], run);
  EXPECT_EQ(client.record.downs[partition], 1);
  auto next = client.acquire("ann", 1);
  ASSERT_TRUE(next && next->status == OpStatus::applied);
  EXPECT_EQ(next->states[0].outstanding, 6U);
  EXPECT_EQ(client.store.counters().reconnects, 1U);
}

// ---- failures

TEST(RedisStore, ServerThatStopsAnsweringIsGivenUpAndItsOpIsSettledOnce) {
  Server server;
  StoreClient client(server.url(), [](RedisStoreOptions& options) {
    options.connection.stall_timeout = 200ms;
    options.connection.connect_timeout = 300ms;
  });
  ASSERT_TRUE(client.acquire("ann", 2));
  unsigned partition = partition_of_user("ann");
  server.signal(SIGSTOP);
  quota::Op op = client.make_op("ann", 3);
  client.send(op);
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.downs[partition] == 1; }));
  EXPECT_FALSE(client.store.all_up());
  std::size_t told = client.record.ops.size();
  client.send(op);  // dropped: nothing is sent to a partition that is down
  server.signal(SIGCONT);
  ASSERT_TRUE(client.come_up());
  EXPECT_EQ(client.record.ops.size(), told) << "replies of before the loss are nobody's";
  auto reply = client.apply(op);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->states[0].outstanding, 5U);
}

TEST(RedisStore, ErrorThatAppliesNothingIsToldAndThePartitionStaysUp) {
  Server server;
  StoreClient client(server.url());
  ASSERT_TRUE(client.acquire("ann", 1));
  server.command({"CONFIG", "SET", "maxmemory", "1"});
  quota::Op op = client.make_op("ann", 1);
  client.send(op);
  ASSERT_TRUE(client.loop.run_until([&] { return !client.record.errors.empty(); }));
  EXPECT_TRUE(client.record.errors[0].starts_with("OOM")) << client.record.errors[0];
  EXPECT_TRUE(client.store.up(op.partition));
  server.command({"CONFIG", "SET", "maxmemory", "0"});
  EXPECT_EQ(client.apply(op)->status, OpStatus::applied);
}

TEST(RedisStore, DemotedServerIsLeftUntilItIsAPrimaryAgain) {
  Server server;
  StoreClient client(server.url());
  ASSERT_TRUE(client.acquire("ann", 1));
  server.command({"REPLICAOF", "127.0.0.1", "1"});
  quota::Op op = client.make_op("ann", 1);
  client.send(op);
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.downs[op.partition] >= 1; }));
  ASSERT_TRUE(client.loop.run_until([&] {
    return client.store.last_error().find("is no primary but a slave") != std::string::npos;
  })) << client.store.last_error();
  EXPECT_FALSE(client.store.up(op.partition));
  server.command({"REPLICAOF", "NO", "ONE"});
  ASSERT_TRUE(client.come_up());
  EXPECT_EQ(client.apply(op)->status, OpStatus::applied);
}

TEST(RedisStore, MoreThanFitsOnTheWayIsForgottenAndToldAfterTheSending) {
  Server server;
  StoreClient client(server.url(), [](RedisStoreOptions& options) { options.connection.max_pending = 16; });
  ASSERT_TRUE(client.acquire("ann", 1));
  unsigned partition = partition_of_user("ann");
  std::vector<quota::Op> ops;
  for (int i = 0; i < 40; ++i) ops.push_back(client.make_op("ann", 1));
  for (const quota::Op& op : ops) client.send(op);
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.ups[partition] == 2; }));
  EXPECT_FALSE(client.record.told_inside_send);
  EXPECT_TRUE(client.store.up(partition));
  std::optional<quota::OpReply> last;
  for (const quota::Op& op : ops) {
    last = client.apply(op);
    ASSERT_TRUE(last && last->status != OpStatus::gap);
  }
  EXPECT_EQ(last->states[0].outstanding, 41U);
}

TEST(RedisStore, ServerThatIsNotThereIsNamedWhenAsked) {
  StoreClient client(parse_url(fmt::format("redis://127.0.0.1:{}", testing::free_port())));
  std::optional<std::string> error;
  client.store.get_override({.subject_key = key_of("ann"), .field = "daily"},
                            [&](auto found) { error = found ? "" : found.error().message; });
  ASSERT_TRUE(client.loop.run_until([&] { return error.has_value(); }));
  EXPECT_NE(error->find("refused"), std::string::npos) << *error;
  EXPECT_FALSE(client.store.all_up());
  EXPECT_TRUE(client.record.runs.empty());
}

TEST(RedisStore, DestroyedWithOpsOnTheWayItTellsNobody) {
  Server server;
  StoreClient other(server.url());
  Record record;
  {
    RedisStore store(other.loop.base(), StoreClient::options(server.url(), nullptr), record,
                     [](unsigned) { return true; });
    store.start();
    ASSERT_TRUE(other.loop.run_until([&] { return store.all_up(); }));
    for (int i = 0; i < 10; ++i) {
      const quota::Op op = other.make_op("ann", 1);
      store.send(op, {.run = record.runs[op.partition], .session_ttl = 900'000ms});
    }
  }
  ASSERT_TRUE(other.ping(partition_of_user("bob")).has_value());
  EXPECT_TRUE(record.ops.empty());
  EXPECT_TRUE(record.downs.empty());
  EXPECT_TRUE(record.errors.empty());
}

// ---- reads and changes

TEST(RedisStore, ReadsAndListsSeveralSubjectsWithoutCharging) {
  Server server;
  StoreClient client(server.url());
  for (const char* user : {"ann", "bob"}) {
    ASSERT_TRUE(client.acquire(user, 4));
    std::int64_t bucket = client.clock.count() / 60'000;
    ASSERT_TRUE(client.apply(client.make_op(user, 0, {{.bucket = bucket, .units = user[0] == 'a' ? 1 : 2}})));
  }
  auto states = client.read({account("bob", "daily", 1'000), account("nobody", "daily", 7),
                             account("ann", "daily", 1'000), account("bob", "weekly", 9)});
  ASSERT_EQ(states.size(), 4U);
  EXPECT_EQ(states[0].used, 2U);
  EXPECT_EQ(states[1].used, 0U);
  EXPECT_EQ(states[1].limit, 7U);
  EXPECT_EQ(states[2].used, 1U);
  EXPECT_EQ(states[3].limit, 9U);
  EXPECT_EQ(client.read({}).size(), 0U);
  std::optional<std::vector<quota::Ledger::Listed>> listed;
  client.store.list(key_of("bob"), "d", 86'400'000ms, 60'000ms,
                    [&](auto&& found) { listed = found.value(); });
  ASSERT_TRUE(client.loop.run_until([&] { return listed.has_value(); }));
  ASSERT_EQ(listed->size(), 1U);
  EXPECT_EQ((*listed)[0].field, "daily");
  EXPECT_EQ((*listed)[0].used, 2U);
}

TEST(RedisStore, OverridesAreKeptReadAndTakenAway) {
  Server server;
  StoreClient client(server.url());
  ASSERT_TRUE(client.come_up());
  quota::AccountKey key{.subject_key = key_of("ann"), .field = "daily"};
  auto get = [&] {
    std::optional<std::optional<quota::LimitOverride>> answer;
    client.store.get_override(key, [&](auto found) { answer = found.value(); });
    EXPECT_TRUE(client.loop.run_until([&] { return answer.has_value(); }));
    return *answer;
  };
  EXPECT_FALSE(get().has_value());
  quota::LimitOverride value{.limit = 5, .grants = {{.extra = 3, .until = 9'000'000'000'000ms}}};
  ASSERT_TRUE(client.change([&](RedisStore& store, auto done) { store.set_override(key, value, done); }));
  EXPECT_EQ(get(), value);
  EXPECT_EQ(client.read({account("ann", "daily", 1'000)})[0].limit, 8U);
  ASSERT_TRUE(
      client.change([&](RedisStore& store, auto done) { store.set_override(key, std::nullopt, done); }));
  EXPECT_FALSE(get().has_value());
}

TEST(RedisStore, ResetForgetsWhatWasCountedInAllAccountsNamed) {
  Server server;
  StoreClient client(server.url());
  for (const char* user : {"ann", "bob", "eve"}) {
    ASSERT_TRUE(client.acquire(user, 4));
    ASSERT_TRUE(
        client.apply(client.make_op(user, 0, {{.bucket = client.clock.count() / 60'000, .units = 4}})));
  }
  ASSERT_TRUE(client.change([&](RedisStore& store, auto done) {
    store.reset({{key_of("ann"), "daily"}, {key_of("bob"), "daily"}}, done);
  }));
  auto states =
      client.read({account("ann", "daily", 9), account("bob", "daily", 9), account("eve", "daily", 9)});
  EXPECT_EQ(states[0].used, 0U);
  EXPECT_EQ(states[1].used, 0U);
  EXPECT_EQ(states[2].used, 4U);
}

TEST(RedisStore, ScanFindsEveryAccountOnceAndPassesStrangersBy) {
  Server server;
  StoreClient client(server.url());
  ASSERT_TRUE(client.come_up());
  server.command({"SET", "q:stranger", "1"});
  ASSERT_TRUE(client.ping(0).has_value());
  std::int64_t bucket = client.clock.count() / 60'000;
  std::set<std::string> expected;
  for (int i = 0; i < 700; ++i) {
    std::string user = fmt::format("user{}", i);
    expected.insert(key_of(user));
    client.send(client.make_op(user, 0, {{.bucket = bucket, .units = 1}}));
  }
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.ops.size() == 700; }));
  auto found = client.scan();
  ASSERT_TRUE(found.has_value()) << found.error().message;
  EXPECT_EQ(found->size(), expected.size());
  for (const auto& stored : *found) {
    EXPECT_EQ(expected.erase(stored.key.subject_key), 1U) << stored.key.subject_key;
    EXPECT_EQ(stored.key.field, "daily");
    EXPECT_FALSE(stored.record.empty());
  }
}

// ---- ways in

// The rights that docs/guide.md names, but for those of sessions and seats.
constexpr const char* kRights =
    "+ping +info +role +evalsha +script|load +hget +hmget +hgetall +hset +hdel +pttl +pexpire +time +publish "
    "+subscribe +scan";

TEST(RedisStore, UserWithOnlyTheRightsNamedIsEnough) {
  Server server({"user default off", fmt::format("user t on >p ~q:* ~h:* ~o:* &q:* {}", kRights)});
  StoreUrl url = server.url();
  url.user = "t";
  url.password = "p";
  StoreClient client(url, [](RedisStoreOptions& options) { options.subscribe = true; });
  auto lent = client.acquire("ann", 2);
  ASSERT_TRUE(lent.has_value()) << client.store.last_error();
  EXPECT_EQ(lent->states[0].granted, 2U);
  EXPECT_TRUE(client.loop.run_until([&] { return client.record.subscribed == 1; }));
  quota::AccountKey key{.subject_key = key_of("ann"), .field = "daily"};
  EXPECT_TRUE(client.change([&](RedisStore& store, auto done) { store.reset({key}, done); }));
  EXPECT_TRUE(client.change([&](RedisStore& store, auto done) {
    store.set_override(key, quota::LimitOverride{.limit = 5}, done);
  }));
  EXPECT_EQ(client.scan().value().size(), 1U);
  EXPECT_TRUE(client.record.errors.empty());
}

TEST(RedisStore, TcpWithAPassword) {
  Server server({"port {port}", "bind 127.0.0.1", "requirepass sesame"});
  StoreClient client(parse_url(fmt::format("redis://:sesame@{}", server.address())));
  EXPECT_TRUE(client.acquire("ann", 1).has_value()) << client.store.last_error();
  StoreClient stranger(parse_url(fmt::format("redis://:wrong@{}", server.address())));
  EXPECT_TRUE(stranger.loop.run_until([&] {
    return stranger.store.last_error().find("refuses the password") != std::string::npos;
  })) << stranger.store.last_error();
  EXPECT_TRUE(stranger.record.runs.empty());
}

TEST(RedisStore, Tls) {
  TemporaryDirectory directory;
  ASSERT_EQ(testing::run_program({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                                  "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                                  "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
                                  directory.path("key"), "-out", directory.path("pem")}),
            0);
  Server server({"tls-port {port}", "bind 127.0.0.1", "tls-auth-clients no",
                 "tls-cert-file " + directory.path("pem"), "tls-key-file " + directory.path("key"),
                 "tls-ca-cert-file " + directory.path("pem")});
  StoreClient client(parse_url("rediss://" + server.address()),
                     [&](RedisStoreOptions& options) { options.connection.ca_file = directory.path("pem"); });
  for (int i = 0; i < 20; ++i)
    ASSERT_TRUE(client.acquire(fmt::format("user{}", i), 1).has_value()) << client.store.last_error();
}

}  // namespace
}  // namespace tollgate::redis
