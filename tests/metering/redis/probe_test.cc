#include "metering/redis/probe.h"

#include <fmt/format.h>
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

TEST(Probe, StrictRefusesWhatForgetsAndNotWhatCosts) {
  Server sound({"appendonly yes", "hash-max-listpack-value 64"});
  ProbeReport report = probe({.url = sound.url()}, {.timeout = 20'000ms});
  EXPECT_EQ(find(report, "encoding")->level, Level::warning);
  EXPECT_TRUE(strict_problems(report).empty());
  Server forgetful({"appendonly yes", "appendfsync no", "maxmemory-policy volatile-ttl"});
  report = probe({.url = forgetful.url()}, {.timeout = 20'000ms});
  std::vector<Finding> problems = strict_problems(report);
  ASSERT_EQ(problems.size(), 2U);
  EXPECT_EQ(problems[0].subject, "eviction");
  EXPECT_EQ(problems[1].subject, "persistence");
  EXPECT_NE(problems[1].text.find("appendfsync is no"), std::string::npos) << problems[1].text;
}

TEST(Probe, PrimaryWithAReplicaIsAskedForItsGuards) {
  Server primary({"port {port}", "bind 127.0.0.1", "repl-diskless-sync-delay 0", "appendonly yes"});
  ProbeReport alone = probe({.url = primary.url()}, {.timeout = 20'000ms});
  EXPECT_EQ(find(alone, "replicas"), nullptr) << "without replicas there is nothing to guard";
  Server replica({"port {port}", "bind 127.0.0.1", fmt::format("replicaof 127.0.0.1 {}", primary.port())});
  testing::Loop loop;
  ASSERT_TRUE(loop.run_until([&] { return primary.command({"ROLE"}).elements[2].elements.size() == 1; }));
  ProbeReport report = probe({.url = primary.url()}, {.timeout = 20'000ms});
  ASSERT_NE(find(report, "replicas"), nullptr);
  EXPECT_EQ(find(report, "replicas")->level, Level::warning);
  EXPECT_EQ(find(report, "backlog")->level, Level::warning);
  ASSERT_NE(find(report, "replica_lag"), nullptr);
  EXPECT_TRUE(report.usable());
  EXPECT_FALSE(probe({.url = primary.url()}, {.timeout = 20'000ms, .min_replicas = 2}).usable());
  for (auto [name, value] : {std::pair{"min-replicas-to-write", "1"},
                             {"min-replicas-max-lag", "2"},
                             {"repl-backlog-size", "256mb"}})
    ASSERT_EQ(primary.command({"CONFIG", "SET", name, value}).text, "OK");
  report = probe({.url = primary.url()}, {.timeout = 20'000ms, .min_replicas = 1});
  EXPECT_EQ(find(report, "replicas")->level, Level::ok) << find(report, "replicas")->text;
  EXPECT_EQ(find(report, "backlog")->level, Level::ok);
}

TEST(Probe, SentinelsAreCountedAndTheirPrimaryIsLookedAt) {
  Server primary({"port {port}", "bind 127.0.0.1"});
  Server sentinel(
      {"port {port}", "bind 127.0.0.1", fmt::format("sentinel monitor m 127.0.0.1 {} 1", primary.port())},
      nullptr, true);
  auto url = parse_store_url(
      fmt::format("redis+sentinel://127.0.0.1:{},{}/m", testing::free_port(), sentinel.address()));
  ProbeReport report = probe({.url = *url}, {.timeout = 20'000ms});
  EXPECT_TRUE(report.reachable);
  ASSERT_NE(find(report, "sentinel"), nullptr);
  EXPECT_EQ(find(report, "sentinel")->level, Level::warning);
  EXPECT_TRUE(find(report, "sentinel")->text.starts_with("1 of 2 sentinels"))
      << find(report, "sentinel")->text;
  EXPECT_EQ(find(report, "role")->level, Level::ok);
  url->primary_name = "other";
  report = probe({.url = *url}, {.timeout = 2'000ms});
  EXPECT_EQ(find(report, "sentinel")->level, Level::problem);
  EXPECT_FALSE(report.reachable);
}

TEST(Probe, ClusterWithoutAllSlotsIsAProblemAndSoIsTheWrongKindOfUrl) {
  Server node(
      {"port {port}", "bind 127.0.0.1", "cluster-enabled yes", "cluster-port {bus}", "appendonly yes"});
  ASSERT_EQ(node.command({"CLUSTER", "ADDSLOTSRANGE", "0", "99"}).text, "OK");
  auto url = parse_store_url("redis+cluster://" + node.address());
  ProbeReport report = probe({.url = *url}, {.timeout = 20'000ms});
  ASSERT_NE(find(report, "cluster"), nullptr);
  EXPECT_EQ(find(report, "cluster")->level, Level::problem);
  EXPECT_TRUE(find(report, "cluster")->text.starts_with("1 primaries serve 100 of 16384"))
      << find(report, "cluster")->text;
  EXPECT_TRUE(report.reachable);
  ASSERT_EQ(node.command({"CLUSTER", "ADDSLOTSRANGE", "100", "16383"}).text, "OK");
  EXPECT_EQ(find(probe({.url = *url}, {.timeout = 20'000ms}), "cluster")->level, Level::ok);
  ProbeReport wrong = probe({.url = node.url()}, {.timeout = 20'000ms});
  ASSERT_NE(find(wrong, "cluster"), nullptr);
  EXPECT_NE(find(wrong, "cluster")->advice.find("redis+cluster://"), std::string::npos);
  Server single({"port {port}", "bind 127.0.0.1"});
  report = probe({.url = *parse_store_url("redis+cluster://" + single.address())}, {.timeout = 20'000ms});
  EXPECT_EQ(find(report, "cluster")->level, Level::problem);
  EXPECT_FALSE(report.usable());
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
