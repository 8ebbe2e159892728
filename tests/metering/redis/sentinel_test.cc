// Sentinel: who is asked, whom it believes, and a failover with real processes.
#include "metering/redis/sentinel.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "metering/redis/redis_store.h"
#include "tests/metering/redis/support/store_fixture.h"

namespace tollgate::redis {
namespace {

using quota::OpStatus;
using testing::free_port;
using testing::Loop;
using testing::parse_url;
using testing::partition_of_user;
using testing::Server;
using testing::StoreClient;
using namespace std::chrono_literals;

std::unique_ptr<Server> sentinel_of(const Server& primary, std::vector<std::string> further = {}) {
  std::vector<std::string> settings{"port {port}",
                                    "bind 127.0.0.1",
                                    fmt::format("sentinel monitor mymaster 127.0.0.1 {} 2", primary.port()),
                                    "sentinel down-after-milliseconds mymaster 300",
                                    "sentinel failover-timeout mymaster 2000",
                                    "sentinel auth-pass mymaster sesame"};
  settings.insert(settings.end(), further.begin(), further.end());
  return std::make_unique<Server>(settings, nullptr, true);
}

std::vector<std::string> with_password(std::vector<std::string> further = {}) {
  std::vector<std::string> settings{"port {port}", "bind 127.0.0.1", "requirepass sesame",
                                    "masterauth sesame", "repl-diskless-sync-delay 0"};
  settings.insert(settings.end(), further.begin(), further.end());
  return settings;
}

TEST(Sentinel, FailoverIsFollowedToThePromotedReplica) {
  Server first(with_password());
  Server second(with_password({fmt::format("replicaof 127.0.0.1 {}", first.port())}));
  // The sentinels have no password, one of the URL is not there at all.
  std::vector<std::unique_ptr<Server>> sentinels;
  std::string list = fmt::format("127.0.0.1:{}", free_port());
  for (int i = 0; i < 3; ++i) {
    sentinels.push_back(sentinel_of(first));
    // As fast as they can be made. Not ping-period: five of it is how old the news of a replica may be that is
    // promoted, and there is news every second only.
    ASSERT_EQ(sentinels.back()
                  ->command({"SENTINEL", "DEBUG", "info-period", "100", "ask-period", "50", "publish-period",
                             "50", "tilt-period", "500", "election-timeout", "500"})
                  .text,
              "OK");
    list += "," + sentinels.back()->address();
  }
  StoreClient client(parse_url(fmt::format("redis+sentinel://:sesame@{}/mymaster", list)),
                     [](RedisStoreOptions& options) { options.subscribe = true; });
  ASSERT_TRUE(client.acquire("ann", 5).has_value()) << client.store.last_error();
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.subscribed == 1; }));
  unsigned partition = partition_of_user("ann");
  std::string run = client.record.runs[partition];
  // All sentinels know each other and the replica, which has everything.
  Loop loop;
  for (const auto& sentinel : sentinels)
    ASSERT_TRUE(loop.run_until([&] {
      return sentinel->command({"SENTINEL", "sentinels", "mymaster"}).elements.size() == 2 &&
             sentinel->command({"SENTINEL", "replicas", "mymaster"}).elements.size() == 1;
    }));
  ASSERT_TRUE(loop.run_until(
      [&] { return second.command_as("sesame", {"HLEN", testing::key_of("ann")}).integer == 1; }));

  first.kill_now();
  ASSERT_TRUE(client.loop.run_until([&] { return client.record.ups[partition] == 2; }, 30'000ms))
      << client.store.last_error();
  EXPECT_EQ(client.record.downs[partition], 1);
  EXPECT_NE(client.record.runs[partition], run);
  auto next = client.acquire("ann", 1);
  ASSERT_TRUE(next && next->status == OpStatus::applied);
  EXPECT_EQ(next->states[0].outstanding, 6U);
  EXPECT_EQ(second.command_as("sesame", {"ROLE"}).elements[0].text, "master");
  EXPECT_TRUE(client.loop.run_until([&] { return client.record.subscribed == 2; }));
  EXPECT_TRUE(client.record.errors.empty());
}

TEST(Sentinel, SentinelWithAPasswordAndAnUnknownName) {
  Server primary(with_password());
  auto sentinel = sentinel_of(primary, {"requirepass sesame"});
  std::string list = sentinel->address();
  StoreClient client(parse_url(fmt::format("redis+sentinel://:sesame@{}/mymaster", list)));
  ASSERT_TRUE(client.come_up()) << client.store.last_error();
  StoreClient other(parse_url(fmt::format("redis+sentinel://:sesame@{}/another", list)));
  ASSERT_TRUE(other.loop.run_until([&] {
    return other.store.last_error().find("no sentinel names the primary another") != std::string::npos;
  })) << other.store.last_error();
  EXPECT_EQ(other.store.last_error().find("sesame"), std::string::npos);
  StoreClient stranger(parse_url(fmt::format("redis+sentinel://{}/mymaster", list)));
  ASSERT_TRUE(stranger.loop.run_until([&] {
    return stranger.store.last_error().find("NOAUTH") != std::string::npos;
  })) << stranger.store.last_error();
}

TEST(Sentinel, ReplicaThatIsNamedIsRefusedAndTheQuestionRepeated) {
  Server primary({"port {port}", "bind 127.0.0.1", "repl-diskless-sync-delay 0"});
  Server replica({"port {port}", "bind 127.0.0.1", fmt::format("replicaof 127.0.0.1 {}", primary.port())});
  ConnectionOptions options{.url = parse_url("redis+sentinel://127.0.0.1/m")};
  options.connect_timeout = 5'000ms;
  options.primary_only = true;
  int asked = 0;
  options.locate = [&](ConnectionOptions::Located done) {
    done(parse_url("redis://" + (++asked <= 2 ? replica : primary).address()));
  };
  Loop loop;
  Connection connection(loop.base(), options);
  connection.start();
  ASSERT_TRUE(loop.run_until([&] { return connection.up(); })) << connection.last_error();
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(connection.server().port, primary.port());
  EXPECT_EQ(connection.run_id().size(), 40U);
}

TEST(Sentinel, AnswerThatComesAfterTheAttemptIsDropped) {
  Server primary({"port {port}", "bind 127.0.0.1"});
  ConnectionOptions options{.url = parse_url("redis+sentinel://127.0.0.1/m")};
  options.connect_timeout = 50ms;
  std::vector<ConnectionOptions::Located> asked;
  options.locate = [&](ConnectionOptions::Located done) { asked.push_back(std::move(done)); };
  Loop loop;
  Connection connection(loop.base(), options);
  connection.start();
  ASSERT_TRUE(loop.run_until([&] { return asked.size() == 2; }));
  asked[0](parse_url("redis://" + primary.address()));
  EXPECT_FALSE(loop.run_until([&] { return connection.up(); }, 20ms));
  ASSERT_TRUE(loop.run_until([&] {
    asked.back()(parse_url("redis://" + primary.address()));
    return connection.up();
  }));
}

}  // namespace
}  // namespace tollgate::redis
