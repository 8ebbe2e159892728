#include "metering/redis/store_url.h"

#include <gtest/gtest.h>

namespace tollgate::redis {
namespace {

using Kind = StoreUrl::Kind;

StoreUrl parsed(std::string_view text) {
  auto url = parse_store_url(text);
  EXPECT_TRUE(url.has_value()) << text << ": " << (url ? "" : url.error().message);
  return url.value_or(StoreUrl{});
}

TEST(StoreUrl, PlainRedisHasTheUsualPortAndDatabase) {
  StoreUrl url = parsed("redis://cache.example");
  EXPECT_EQ(url.kind, Kind::tcp);
  EXPECT_EQ(url.host, "cache.example");
  EXPECT_EQ(url.port, 6379);
  EXPECT_EQ(url.database, 0U);
  EXPECT_TRUE(url.password.empty());
}

TEST(StoreUrl, AllPartsOfATlsUrlAreRead) {
  StoreUrl url = parsed("rediss://tollgate:s%40cr%2Fet@[fd00::7]:6380/12");
  EXPECT_EQ(url.kind, Kind::tls);
  EXPECT_EQ(url.user, "tollgate");
  EXPECT_EQ(url.password, "s@cr/et");
  EXPECT_EQ(url.host, "fd00::7");
  EXPECT_EQ(url.port, 6380);
  EXPECT_EQ(url.database, 12U);
  EXPECT_EQ(url.describe(), "rediss://[fd00::7]:6380/12");
}

TEST(StoreUrl, PasswordAloneIsForTheDefaultUser) {
  StoreUrl url = parsed("redis://:secret@127.0.0.1:6379/0");
  EXPECT_EQ(url.user, "");
  EXPECT_EQ(url.password, "secret");
  EXPECT_EQ(url.host, "127.0.0.1");
}

TEST(StoreUrl, UnixSocketTakesPathAndDatabase) {
  StoreUrl url = parsed("redis+unix:///run/redis/redis.sock?db=3");
  EXPECT_EQ(url.kind, Kind::unix_socket);
  EXPECT_EQ(url.path, "/run/redis/redis.sock");
  EXPECT_EQ(url.database, 3U);
  EXPECT_EQ(parsed("redis+unix://u:p@/tmp/a%20b.sock").path, "/tmp/a b.sock");
}

TEST(StoreUrl, EmbeddedTakesADirectory) {
  EXPECT_EQ(parsed("embedded:redis").directory, "redis");
  EXPECT_EQ(parsed("embedded:/var/lib/tollgate/redis").directory, "/var/lib/tollgate/redis");
  EXPECT_EQ(parsed("embedded:redis").kind, Kind::embedded);
}

TEST(StoreUrl, SentinelsAreAListWithTheNameOfThePrimary) {
  StoreUrl url = parsed("redis+sentinel://app:s%2Fecret@one.example,[fd00::2]:26380,three/my%20primary/4");
  EXPECT_EQ(url.kind, Kind::sentinel);
  EXPECT_EQ(url.nodes, (std::vector<Endpoint>{{"one.example", 26379}, {"fd00::2", 26380}, {"three", 26379}}));
  EXPECT_EQ(url.primary_name, "my primary");
  EXPECT_EQ(url.database, 4U);
  EXPECT_EQ(url.user, "app");
  EXPECT_EQ(url.password, "s/ecret");
  EXPECT_FALSE(url.secure);
  EXPECT_EQ(url.describe(), "redis+sentinel://one.example:26379,[fd00::2]:26380,three:26379/my primary/4");
  EXPECT_TRUE(parsed("rediss+sentinel://a/m").secure);
}

TEST(StoreUrl, ClusterIsAListOfNodesWithoutDatabase) {
  StoreUrl url = parsed("rediss+cluster://:pw@a:7000,b");
  EXPECT_EQ(url.kind, Kind::cluster);
  EXPECT_EQ(url.nodes, (std::vector<Endpoint>{{"a", 7000}, {"b", 6379}}));
  EXPECT_TRUE(url.secure);
  EXPECT_EQ(url.describe(), "rediss+cluster://a:7000,b:6379");
  EXPECT_FALSE(parsed("redis+cluster://a:7000,b/").secure);
}

TEST(StoreUrl, ServerOfAClusterHasItsCredentialsAndItsTls) {
  StoreUrl server = parsed("rediss+cluster://u:p@a:7000").server({"10.0.0.7", 7001});
  EXPECT_EQ(server.kind, Kind::tls);
  EXPECT_EQ(server.host, "10.0.0.7");
  EXPECT_EQ(server.port, 7001);
  EXPECT_EQ(server.user, "u");
  EXPECT_EQ(server.password, "p");
  EXPECT_EQ(parsed("redis+sentinel://a/m/3").server({"b", 1}).kind, Kind::tcp);
  EXPECT_EQ(parsed("redis+sentinel://a/m/3").server({"b", 1}).database, 3U);
}

TEST(StoreUrl, MistakesAreErrorsOfTheConfiguration) {
  for (std::string text : {"",
                           "redis",
                           "redis://",
                           "redis://:6379",
                           "redis://host:0",
                           "redis://host:65536",
                           "redis://host:",
                           "redis://host:x",
                           "redis://host/one",
                           "redis://host/1/2",
                           "redis://host/-1",
                           "redis://host/0?x=1",
                           "redis://a:b:c",
                           "redis://[::1",
                           "redis://[::1]6379",
                           "redis://[host]",
                           "redis://ho st",
                           "redis://user@host",
                           "redis://u:%zz@host",
                           "redis://u:p%00@host",
                           "http://host",
                           "embedded:",
                           "redis+unix://",
                           "redis+unix://tmp/x",
                           "redis+unix:///x?database=1",
                           "redis+unix:///x?db=",
                           "redis://host\n",
                           "redis://a,b",
                           "redis+sentinel://a:1,b:2",
                           "redis+sentinel://a:1,b:2/",
                           "redis+sentinel://a,,b/m",
                           "redis+sentinel:///m",
                           "redis+sentinel://a/m/x",
                           "redis+sentinel://a/m?tls=true",
                           "redis+cluster://",
                           "redis+cluster://a/1",
                           "redis+cluster://a:0",
                           "redis+cluster://a?tls=true",
                           "redis+rings://a"}) {
    auto url = parse_store_url(text);
    ASSERT_FALSE(url.has_value()) << text;
    EXPECT_EQ(url.error().origin, Origin::config);
  }
}

TEST(StoreUrl, PasswordIsNeverInAnErrorOrADescription) {
  for (std::string text :
       {"redis://u:hunter2@host:99999", "redis://u:hunter2@", "redis://u:hunter2@host/x",
        "redis://u:hunter2%@h", "rediss://u:hunter2@[::1", "redis+unix://u:hunter2@tmp",
        "redos://u:hunter2@h", "redis+sentinel://u:hunter2@h,i", "redis+cluster://:hunter2@a,"}) {
    auto url = parse_store_url(text);
    ASSERT_FALSE(url.has_value()) << text;
    EXPECT_EQ(url.error().message.find("hunter2"), std::string::npos) << url.error().message;
  }
  EXPECT_EQ(parsed("redis://u:hunter2@host/4").describe(), "redis://host:6379/4");
}

}  // namespace
}  // namespace tollgate::redis
