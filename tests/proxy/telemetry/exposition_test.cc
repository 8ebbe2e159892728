// The text of a scrape as a strict reader sees it: every family announced once, no series twice, histograms that add up.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "metering/base/random.h"
#include "proxy/telemetry/metrics.h"

namespace tollgate::telemetry {
namespace {

struct Scrape {
  std::map<std::string, std::string> types;  // family -> type
  std::map<std::string, double> series;      // "name{labels}" -> value
  std::map<std::string, std::vector<std::pair<std::string, double>>>
      buckets;  // histogram and labels -> (le, count)
};

std::string family_of(const std::string& name, const Scrape& scrape) {
  for (const char* suffix : {"_bucket", "_sum", "_count"}) {
    if (!name.ends_with(suffix)) continue;
    std::string base = name.substr(0, name.size() - std::string_view(suffix).size());
    auto found = scrape.types.find(base);
    if (found != scrape.types.end() && found->second == "histogram") return base;
  }
  return name;
}

Scrape read(const std::string& text) {
  Scrape out;
  EXPECT_TRUE(text.ends_with('\n'));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# HELP ")) continue;
    if (line.starts_with("# TYPE ")) {
      std::istringstream words(line.substr(7));
      std::string name, type;
      words >> name >> type;
      EXPECT_TRUE(out.types.emplace(name, type).second) << "announced twice: " << name;
      EXPECT_EQ(name.ends_with("_total"), type == "counter") << name;
      continue;
    }
    const std::size_t space = line.rfind(' ');
    EXPECT_NE(space, std::string::npos) << line;
    const std::string series = line.substr(0, space);
    EXPECT_TRUE(out.series.emplace(series, std::stod(line.substr(space + 1))).second) << "twice: " << series;
    const std::string name = series.substr(0, series.find('{'));
    EXPECT_TRUE(out.types.contains(family_of(name, out))) << "not announced: " << series;
    if (const std::size_t le = series.find("le=\""); name.ends_with("_bucket") && le != std::string::npos) {
      const std::string value = series.substr(le + 4, series.find('"', le + 4) - le - 4);
      std::string labels = series.substr(0, le);
      out.buckets[labels].emplace_back(value, std::stod(line.substr(space + 1)));
    }
  }
  return out;
}

std::string random_scrape(std::uint64_t seed, std::uint64_t* calls) {
  Random random(seed);
  Metrics metrics({.workers = 3,
                   .objects = {"Case", "CaseFile", "Order"},
                   .main_objects = {"Case"},
                   .version = "1",
                   .revision = "a\"b\\c"});
  std::vector<std::unique_ptr<usage::FactSink>> sinks;
  for (unsigned worker = 0; worker < 3; ++worker) sinks.push_back(metrics.worker_sink(worker));
  constexpr std::string_view kObjects[] = {"Case", "Order", "UsrX", "Case\"\n"};
  constexpr std::string_view kOperations[] = {"read", "create", "edit", "delete", "execute", "?"};
  for (int i = 0; i < 3'000; ++i) {
    std::vector<usage::CountedOperation> operations(random.below(3));
    for (auto& one : operations) one = {kObjects[random.below(4)], kOperations[random.below(6)], "", ""};
    *calls += operations.size();
    usage::Fact fact;
    fact.operations = operations;
    fact.reason = static_cast<Reason>(random.below(kReasonCount));
    fact.status = static_cast<int>(random.below(700));
    fact.total = Duration(static_cast<std::int64_t>(random.below(20'000'000'000)));
    fact.upstream = Duration(static_cast<std::int64_t>(random.below(20'000'000'000)));
    sinks[random.below(3)]->record(fact);
  }
  return metrics.scrape();
}

TEST(Exposition, EveryFamilyIsAnnouncedOnceAndNoSeriesOccursTwice) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::uint64_t calls = 0;
    const Scrape scrape = read(random_scrape(seed, &calls));
    for (const char* name : {"tollgate_requests_total", "tollgate_calls_total",
                             "tollgate_request_duration_seconds", "tollgate_overhead_seconds",
                             "tollgate_upstream_duration_seconds", "tollgate_store_roundtrip_seconds",
                             "tollgate_store_degraded_decisions_total", "tollgate_build_info"})
      EXPECT_TRUE(scrape.types.contains(name)) << name;
  }
}

TEST(Exposition, HistogramsAddUpAndEndInInfinity) {
  std::uint64_t calls = 0;
  const Scrape scrape = read(random_scrape(9, &calls));
  ASSERT_FALSE(scrape.buckets.empty());
  for (const auto& [labels, buckets] : scrape.buckets) {
    ASSERT_GE(buckets.size(), 15U) << labels;
    EXPECT_LE(std::stod(buckets.front().first), 0.0001)
        << "below a millisecond: the proxy's own share is that small";
    EXPECT_EQ(buckets.back().first, "+Inf") << labels;
    for (std::size_t i = 1; i < buckets.size(); ++i) {
      EXPECT_GE(buckets[i].second, buckets[i - 1].second) << labels << " " << buckets[i].first;
    }
  }
  EXPECT_EQ(scrape.series.at("tollgate_request_duration_seconds_count"), 3'000);
  EXPECT_EQ(scrape.series.at("tollgate_request_duration_seconds_bucket{le=\"+Inf\"}"), 3'000);
}

TEST(Exposition, NoRequestAndNoCallIsLost) {
  std::uint64_t calls = 0;
  const Scrape scrape = read(random_scrape(3, &calls));
  double requests = 0, counted = 0;
  for (const auto& [series, value] : scrape.series) {
    if (series.starts_with("tollgate_requests_total{")) requests += value;
    if (series.starts_with("tollgate_calls_total{")) counted += value;
  }
  EXPECT_EQ(requests, 3'000);
  EXPECT_EQ(counted, static_cast<double>(calls));
}

TEST(Exposition, ContentTypeIsTheOneThatPrometheusAccepts) {
  EXPECT_STREQ(Metrics::kContentType, "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace
}  // namespace tollgate::telemetry
