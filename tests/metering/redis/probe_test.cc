#include "metering/redis/probe.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>

#include "tests/metering/redis/support/redis_fixture.h"

namespace tollgate::redis {
namespace {

using testing::Server;
using Level = Finding::Level;
using namespace std::chrono_literals;

const Finding* find(const ProbeReport& report, std::string_view subject) {
  for (const Finding& finding : report.findings)
    if (finding.subject == subject) return &finding;
  return nullptr;
}

// The clock of the machine that the server runs on, shifted: the probe is given its clock.
std::function<UnixTime()> shifted_clock(Milliseconds shift) {
  return [shift] {
    timespec time{};
    clock_gettime(CLOCK_REALTIME, &time);
    return UnixTime(Seconds(time.tv_sec) + Duration(time.tv_nsec) + shift);
  };
}

TEST(Probe, WellKeptServerIsUsableWithoutAdvice) {
  Server server({"appendonly yes"});
  ProbeReport report =
      probe({.url = server.url()}, {.timeout = 20'000ms, .now = shifted_clock(0ms), .clock_guard = 10'000ms});
  EXPECT_TRUE(report.usable());
  EXPECT_TRUE(report.server.starts_with("Redis 7.")) << report.server;
  EXPECT_GT(report.round_trip, Duration::zero());
  for (const Finding& finding : report.findings) {
    if (finding.subject == "round_trip") continue;  // a busy machine may be slow
    EXPECT_EQ(finding.level, Level::ok) << finding.subject << ": " << finding.text;
  }
  for (std::string subject : {"connect", "round_trip", "clock", "version", "role", "scripts", "eviction",
                              "persistence", "encoding"})
    EXPECT_NE(find(report, subject), nullptr) << subject;
}

TEST(Probe, EvictionIsAProblemAndLesserSettingsAreWarningsWithAdvice) {
  Server server({"maxmemory-policy allkeys-lru", "hash-max-listpack-value 64"});
  ProbeReport report = probe({.url = server.url()}, {.timeout = 20'000ms});
  EXPECT_TRUE(report.reachable);
  EXPECT_FALSE(report.usable());
  ASSERT_NE(find(report, "eviction"), nullptr);
  EXPECT_EQ(find(report, "eviction")->level, Level::problem);
  EXPECT_NE(find(report, "eviction")->text.find("allkeys-lru"), std::string::npos);
  EXPECT_FALSE(find(report, "eviction")->advice.empty());
  EXPECT_EQ(find(report, "persistence")->level, Level::warning);
  EXPECT_EQ(find(report, "encoding")->level, Level::warning);
  EXPECT_EQ(find(report, "clock"), nullptr) << "without a clock nothing can be compared";
}

TEST(Probe, ClockThatIsAnHourOffIsFound) {
  Server server;
  ProbeReport report =
      probe({.url = server.url()}, {.timeout = 20'000ms, .now = shifted_clock(-3'600'000ms)});
  EXPECT_NEAR(static_cast<double>(report.clock_offset.count()), 3'600'000.0, 10'000.0);
  ASSERT_NE(find(report, "clock"), nullptr);
  EXPECT_EQ(find(report, "clock")->level, Level::warning);
}

TEST(Probe, ReplicaIsAProblem) {
  Server server;
  server.command({"REPLICAOF", "127.0.0.1", "1"});
  ProbeReport report = probe({.url = server.url()}, {.timeout = 20'000ms});
  ASSERT_NE(find(report, "role"), nullptr);
  EXPECT_EQ(find(report, "role")->level, Level::problem);
  EXPECT_FALSE(report.usable());
}

TEST(Probe, UserWithoutRightsGetsAdviceInsteadOfAFailure) {
  Server server({"user default off", "user t on >p ~* &* +ping"});
  ConnectionOptions options{.url = server.url()};
  options.url.user = "t";
  options.url.password = "p";
  ProbeReport report = probe(options, {.timeout = 20'000ms, .now = shifted_clock(0ms)});
  EXPECT_TRUE(report.reachable);
  EXPECT_FALSE(report.usable());
  EXPECT_EQ(find(report, "scripts")->level, Level::problem);
  EXPECT_EQ(find(report, "version")->level, Level::warning);
  EXPECT_EQ(find(report, "eviction")->level, Level::warning);
}

TEST(Probe, NobodyThereIsOneProblemThatNamesTheAddress) {
  StoreUrl url;
  url.kind = StoreUrl::Kind::unix_socket;
  url.path = "/nonexistent/redis.sock";
  ProbeReport report = probe({.url = url}, {.timeout = 1'000ms});
  EXPECT_FALSE(report.reachable);
  EXPECT_FALSE(report.usable());
  ASSERT_EQ(report.findings.size(), 1U);
  EXPECT_NE(report.findings[0].text.find("/nonexistent/redis.sock"), std::string::npos);
}

TEST(Probe, ServerThatDoesNotAnswerEndsTheProbeWithinItsTimeout) {
  Server server;
  server.signal(SIGSTOP);
  MonotonicTime before = Connection::now();
  ProbeReport report = probe({.url = server.url()}, {.timeout = 200ms});
  EXPECT_LT(Connection::now() - before, 5'000ms);
  EXPECT_FALSE(report.reachable);
  server.signal(SIGCONT);
}

}  // namespace
}  // namespace tollgate::redis
