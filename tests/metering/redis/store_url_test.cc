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

TEST(StoreUrl, SentinelAndClusterAreKnownButRefused) {
  for (std::string text : {"redis+sentinel://a:1,b:2/mymaster", "redis+cluster://a:1,b:2"}) {
    auto url = parse_store_url(text);
    ASSERT_FALSE(url.has_value()) << text;
    EXPECT_NE(url.error().message.find("not in this version"), std::string::npos) << url.error().message;
  }
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
                           "redis://a,b"}) {
    auto url = parse_store_url(text);
    ASSERT_FALSE(url.has_value()) << text;
    EXPECT_EQ(url.error().origin, Origin::config);
  }
}

TEST(StoreUrl, PasswordIsNeverInAnErrorOrADescription) {
  for (std::string text : {"redis://u:hunter2@host:99999", "redis://u:hunter2@", "redis://u:hunter2@host/x",
                           "redis://u:hunter2%@h", "rediss://u:hunter2@[::1", "redis+unix://u:hunter2@tmp",
                           "redos://u:hunter2@h"}) {
    auto url = parse_store_url(text);
    ASSERT_FALSE(url.has_value()) << text;
    EXPECT_EQ(url.error().message.find("hunter2"), std::string::npos) << url.error().message;
  }
  EXPECT_EQ(parsed("redis://u:hunter2@host/4").describe(), "redis://host:6379/4");
}

}  // namespace
}  // namespace tollgate::redis
