#include "proxy/telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace tollgate::telemetry {
namespace {

using testing::HasSubstr;
using testing::Not;

Metrics::Options two_objects() {
  return {.workers = 2,
          .objects = {"Case", "CaseFile"},
          .main_objects = {"Case"},
          .version = "1.2.3",
          .revision = "abc"};
}

usage::Fact fact(std::span<const usage::CountedOperation> operations, Reason reason, int status) {
  usage::Fact out;
  out.operations = operations;
  out.reason = reason;
  out.status = status;
  out.total = Milliseconds(20);
  out.upstream = Milliseconds(15);
  return out;
}

std::size_t series(const std::string& text) {
  std::size_t count = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    if (text[at] != '#') ++count;
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
  }
  return count;
}

TEST(Metrics, CallsAreCountedByObjectOperationAndReasonAcrossWorkers) {
  Metrics metrics(two_objects());
  auto first = metrics.worker_sink(0), second = metrics.worker_sink(1);
  const usage::CountedOperation read{.object = "Case", .operation = "read"};
  const usage::CountedOperation batch[] = {{.object = "Case", .operation = "read"},
                                           {.object = "Case", .operation = "create"}};
  first->record(fact({&read, 1}, Reason::ok, 200));
  second->record(fact(batch, Reason::ok, 200));
  second->record(fact({&read, 1}, Reason::quota_exceeded, 429));
  const std::string text = metrics.scrape();
  EXPECT_THAT(text, HasSubstr(R"(tollgate_calls_total{object="Case",operation="read",reason="ok"} 2)"));
  EXPECT_THAT(text, HasSubstr(R"(tollgate_calls_total{object="Case",operation="create",reason="ok"} 1)"));
  EXPECT_THAT(text,
              HasSubstr(R"(tollgate_calls_total{object="Case",operation="read",reason="quota_exceeded"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(tollgate_calls_total{object="Case",operation="delete",reason="ok"} 0)"));
  EXPECT_THAT(text, HasSubstr(R"(tollgate_requests_total{code="200"} 2)"));
  EXPECT_THAT(text, HasSubstr(R"(tollgate_requests_total{code="429"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(tollgate_upstream_duration_seconds_count{object="Case"} 3)"));
  EXPECT_THAT(text, HasSubstr(R"(tollgate_request_duration_seconds_bucket{le="0.025"} 3)"));
  EXPECT_THAT(text, HasSubstr(R"(tollgate_request_duration_seconds_bucket{le="0.01"} 0)"));
  EXPECT_THAT(text, HasSubstr(R"(tollgate_build_info{version="1.2.3",revision="abc"} 1)"));
}

TEST(Metrics, SeriesStayTheSameForAnyNumberOfUsersAndObjects) {
  Metrics metrics(two_objects());
  auto sink = metrics.worker_sink(0);
  auto record = [&](int i) {
    const std::string user = "user" + std::to_string(i), object = "Usr" + std::to_string(i);
    const usage::CountedOperation operation{.object = object, .operation = "read"};
    usage::Fact one = fact({&operation, 1}, Reason::ok, 200);
    one.user = user;
    sink->record(one);
  };
  record(0);
  const std::size_t before = series(metrics.scrape());
  for (int i = 1; i < 100'000; ++i) record(i);
  const std::string text = metrics.scrape();
  EXPECT_EQ(series(text), before);
  EXPECT_THAT(text, HasSubstr(R"(tollgate_calls_total{object="other",operation="read",reason="ok"} 100000)"));
  EXPECT_THAT(text, Not(HasSubstr("user9")));
}

TEST(Metrics, SourcesAreAskedAtEachScrape) {
  Metrics metrics(two_objects());
  double value = 1;
  metrics.add_source([&] {
    return std::vector<Family>{{.name = "tollgate_store_up",
                                .help = "up",
                                .type = Family::Type::gauge,
                                .samples = {{.labels = {{"a", "b\"c"}}, .value = value}}}};
  });
  EXPECT_THAT(metrics.scrape(), HasSubstr("tollgate_store_up{a=\"b\\\"c\"} 1"));
  value = 0;
  EXPECT_THAT(metrics.scrape(), HasSubstr("tollgate_store_up{a=\"b\\\"c\"} 0"));
}

TEST(Metrics, DegradedDecisionsSayWhatWasDone) {
  Metrics metrics(two_objects());
  auto sink = metrics.worker_sink(0);
  usage::Fact one = fact({}, Reason::ok, 200);
  one.degraded = true;
  sink->record(one);
  one.reason = Reason::store_unavailable;
  sink->record(one);
  sink->record(one);
  EXPECT_THAT(metrics.scrape(), HasSubstr(R"(tollgate_store_degraded_decisions_total{mode="allow"} 1)"));
  EXPECT_THAT(metrics.scrape(), HasSubstr(R"(tollgate_store_degraded_decisions_total{mode="deny"} 2)"));
}

TEST(Metrics, ProcessMetricsAreRead) {
  std::set<std::string> names;
  for (const Family& family : process_metrics()) {
    names.insert(family.name);
    if (family.name == "process_resident_memory_bytes") {
      EXPECT_GT(family.samples.at(0).value, 100'000);
    }
    if (family.name == "process_open_fds") {
      EXPECT_GE(family.samples.at(0).value, 3);
    }
    if (family.name == "process_start_time_seconds") {
      EXPECT_GT(family.samples.at(0).value, 1e9);
    }
  }
  EXPECT_TRUE(names.contains("process_cpu_seconds_total"));
  EXPECT_TRUE(names.contains("process_max_fds"));
}

TEST(Metrics, CandidateLimitsAreCountedByNameAndUnknownOnesAsOther) {
  EXPECT_EQ(Metrics(two_objects()).scrape().find("tollgate_shadow_violations_total"), std::string::npos);
  Metrics::Options options = two_objects();
  options.shadow_limits = {"next"};
  Metrics metrics(options);
  auto sink = metrics.worker_sink(0);
  EXPECT_THAT(metrics.scrape(), HasSubstr(R"(tollgate_shadow_violations_total{limit="next"} 0)"));
  const std::string_view names[] = {"next", "of_a_reload"};
  usage::Fact one = fact({}, Reason::ok, 200);
  one.shadow_violated = names;
  sink->record(one);
  const std::string text = metrics.scrape();
  EXPECT_THAT(text, HasSubstr(R"(tollgate_shadow_violations_total{limit="next"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(tollgate_shadow_violations_total{limit="other"} 1)"));
}

TEST(Metrics, OwnTimeIsTakenFromTheSampledByPhase) {
  static MonotonicTime at{Seconds(100)};
  const flow::Life::Clock clock = [] { return at; };
  Metrics metrics(two_objects());
  for (const unsigned worker : {0U, 1U}) {
    flow::Life life(clock, at, true, nullptr);
    at += std::chrono::microseconds(4);
    life.enter(flow::Phase::forward);
    at += std::chrono::microseconds(20);
    life.pause(flow::Wait::upstream);
    at += Milliseconds(30);
    life.resume();
    metrics.observe_life(worker, life);
  }
  metrics.observe_loop_delay(1, Milliseconds(3));
  const std::string page = metrics.scrape();
  EXPECT_THAT(page, HasSubstr("tollgate_phase_seconds_bucket{phase=\"forward\",le=\"1e-05\"} 0\n"));
  EXPECT_THAT(page, HasSubstr("tollgate_phase_seconds_bucket{phase=\"forward\",le=\"2.5e-05\"} 2\n"));
  EXPECT_THAT(page, HasSubstr("tollgate_phase_seconds_count{phase=\"read\"} 2\n"));
  EXPECT_THAT(page, HasSubstr("tollgate_phase_seconds_count{phase=\"relay\"} 0\n")) << "not reached";
  EXPECT_THAT(page, HasSubstr("tollgate_wait_seconds_sum{for=\"upstream\"} 0.06"));
  EXPECT_THAT(page, HasSubstr("tollgate_loop_delay_seconds_count 1\n"));
}

}  // namespace
}  // namespace tollgate::telemetry
