// What the scripts publish arrives; after each loss the listener says that it may have missed something.
#include "metering/redis/subscription.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>

#include "metering/redis/redis_store.h"
#include "tests/metering/redis/support/store_fixture.h"

namespace tollgate::redis {
namespace {

using quota::StoreModel;
using testing::key_of;
using testing::partition_of_user;
using testing::Server;
using testing::StoreClient;
using namespace std::chrono_literals;
using Kind = StoreModel::Message::Kind;

void listen(RedisStoreOptions& options) {
  options.subscribe = true;
}

const StoreModel::Message* message_of(const StoreClient& client, Kind kind) {
  for (const auto& message : client.record.messages)
    if (message.kind == kind) return &message;
  return nullptr;
}

TEST(Subscription, PolicyChangesAndFencesReachEveryListener) {
  Server server;
  StoreClient listener(server.url(), listen);
  ASSERT_TRUE(listener.loop.run_until([&] { return listener.record.subscribed == 1; }));
  StoreClient other(server.url());
  quota::AccountKey key{.subject_key = key_of("ann"), .field = "daily"};
  ASSERT_TRUE(other.change([&](RedisStore& store, auto done) { store.reset({key}, done); }));
  ASSERT_TRUE(listener.loop.run_until([&] { return message_of(listener, Kind::policy) != nullptr; }));
  EXPECT_EQ(message_of(listener, Kind::policy)->account, key);
  // A partition never seen before is fenced until `fence_wait`, here 0, is over: it is raised and opened at once.
  ASSERT_TRUE(other.ping(33));
  ASSERT_TRUE(listener.loop.run_until([&] { return listener.record.messages.size() == 3; }));
  EXPECT_EQ(message_of(listener, Kind::fence)->partition, 33U);
  EXPECT_EQ(listener.record.messages.back().kind, Kind::fence);
  EXPECT_EQ(listener.record.messages.back().partition, 33U);
  EXPECT_EQ(listener.store.counters().messages, 3U);
}

TEST(Subscription, RecallReachesItsIncarnationOnly) {
  Server server;
  StoreClient holder(server.url(), listen);
  ASSERT_TRUE(holder.loop.run_until([&] { return holder.record.subscribed == 1; }));
  ASSERT_TRUE(holder.acquire("ann", 1'000));  // all there is
  StoreClient wanting(server.url(), [](RedisStoreOptions& options) {
    options.subscribe = true;
    options.incarnation = 8;
  });
  wanting.incarnation = 8;
  auto refused = wanting.acquire("ann", 1);
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->states[0].granted, 0U);
  ASSERT_TRUE(holder.loop.run_until([&] { return message_of(holder, Kind::recall) != nullptr; }));
  EXPECT_EQ(message_of(holder, Kind::recall)->account.subject_key, key_of("ann"));
  EXPECT_EQ(message_of(holder, Kind::recall)->to, 7U);
  EXPECT_EQ(message_of(wanting, Kind::recall), nullptr);
}

TEST(Subscription, AfterALossItSubscribesAgainAndSaysSo) {
  Server server;
  StoreClient client(server.url(), listen);
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.subscribed == 1; }));
  EXPECT_TRUE(client.store.listening());
  server.command({"CLIENT", "KILL", "TYPE", "pubsub"});
  ASSERT_TRUE(client.loop.run_until([&] { return !client.store.listening(); }));
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.subscribed == 2; }));
  EXPECT_TRUE(client.record.downs.empty()) << "the connection for ops is another one";
  server.command({"PUBLISH", "q:fence", "5"});
  ASSERT_TRUE(client.loop.run_until([&] { return message_of(client, Kind::fence) != nullptr; }));
}

TEST(Subscription, SilentServerIsGivenUpThoughNothingWasAsked) {
  Server server;
  testing::Loop loop;
  ConnectionOptions options{.url = server.url()};
  options.stall_timeout = 150ms;
  options.connect_timeout = 150ms;
  int subscribed = 0;
  Subscription subscription(
      loop.base(), options, {"news"}, [](std::string_view, std::string_view) {}, [&] { ++subscribed; });
  subscription.start();
  ASSERT_TRUE(loop.run_until([&] { return subscription.listening(); }));
  server.signal(SIGSTOP);
  ASSERT_TRUE(loop.run_until([&] { return !subscription.listening(); }));
  server.signal(SIGCONT);
  EXPECT_TRUE(loop.run_until([&] { return subscription.listening(); }));
  EXPECT_EQ(subscribed, 2);
}

TEST(Subscription, ManyMessagesInOneReadKeepTheirOrder) {
  Server server;
  testing::Loop loop;
  std::vector<std::string> bodies;
  bool listening = false;
  Subscription subscription(
      loop.base(), {.url = server.url()}, {"a", "b"},
      [&](std::string_view channel, std::string_view body) {
        bodies.push_back(std::string(channel) + std::string(body));
      },
      [&] { listening = true; });
  subscription.start();
  ASSERT_TRUE(loop.run_until([&] { return listening; }));
  server.command(
      {"EVAL", "for i = 1, 500 do redis.call('PUBLISH', i % 2 == 0 and 'a' or 'b', i) end return 1", "0"});
  ASSERT_TRUE(loop.run_until([&] { return bodies.size() == 500; }));
  for (int i = 1; i <= 500; ++i)
    EXPECT_EQ(bodies[static_cast<std::size_t>(i - 1)], (i % 2 == 0 ? "a" : "b") + std::to_string(i));
}

TEST(Subscription, ForbiddenChannelIsNamed) {
  Server server({"user default off", "user t on >p ~* resetchannels &other +@all"});
  ConnectionOptions options{.url = server.url()};
  options.url.user = "t";
  options.url.password = "p";
  testing::Loop loop;
  Subscription subscription(
      loop.base(), options, {"q:policy"}, [](std::string_view, std::string_view) {}, [] {});
  subscription.start();
  ASSERT_TRUE(loop.run_until([&] {
    return subscription.last_error().find("SUBSCRIBE q:policy: NOPERM") != std::string::npos;
  })) << subscription.last_error();
  EXPECT_FALSE(subscription.listening());
}

}  // namespace
}  // namespace tollgate::redis
