#include "proxy/telemetry/metrics.h"

#include <prometheus/collectable.h>
#include <prometheus/text_serializer.h>

#include <atomic>
#include <mutex>
#include <unordered_map>

#include "metering/base/check.h"
#include "metering/base/reason.h"

namespace tollgate::telemetry {
namespace {

using Cell = std::atomic<std::uint64_t>;

// Only one thread writes a cell, so a plain load and store is enough and costs no bus lock.
void bump(Cell& cell, std::uint64_t by = 1) {
  cell.store(cell.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}
std::uint64_t get(const Cell& cell) {
  return cell.load(std::memory_order_relaxed);
}

constexpr std::array<double, 19> kBuckets = {.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .075,
                                             .1,    .25,    .5,    .75,  1,     2.5,  5,   7.5,  10};

// Of own time: a phase takes microseconds.
constexpr std::array<double, 14> kFineBuckets = {.000001, .0000025, .000005, .00001, .000025, .00005, .0001,
                                                 .00025,  .0005,    .001,    .0025,  .01,     .1,     1};

template <const auto& kBounds>
struct HistogramOf {
  std::array<Cell, kBounds.size() + 1> counts{};
  Cell nanoseconds{0};

  void observe(Duration duration) {
    const double seconds = std::chrono::duration<double>(duration).count();
    std::size_t i = 0;
    while (i < kBounds.size() && seconds > kBounds[i]) ++i;
    bump(counts[i]);
    bump(nanoseconds, static_cast<std::uint64_t>(std::max<std::int64_t>(duration.count(), 0)));
  }
  static constexpr const auto& kBucketBounds = kBounds;
};
using Histogram = HistogramOf<kBuckets>;

constexpr std::array<std::string_view, 5> kOperations = {"read", "create", "edit", "delete", "execute"};
constexpr int kStatusFirst = 100, kStatusLast = 599;

std::size_t operation_index(std::string_view name) {
  for (std::size_t i = 0; i < kOperations.size(); ++i)
    if (kOperations[i] == name) return i;
  return kOperations.size() - 1;
}

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

prometheus::ClientMetric::Label label(std::string_view name, std::string_view value) {
  prometheus::ClientMetric::Label out;
  out.name = name;
  out.value = value;
  return out;
}

prometheus::MetricFamily family(std::string name, std::string help, prometheus::MetricType type) {
  prometheus::MetricFamily out;
  out.name = std::move(name);
  out.help = std::move(help);
  out.type = type;
  return out;
}

}  // namespace

// Everything one worker counts. Aligned so that no two workers share a cache line.
struct alignas(64) Shard {
  Shard(std::size_t objects, std::size_t shadow_limits)
      : calls(objects * kOperations.size() * kReasonCount),
        upstream_by_object(objects),
        shadow(shadow_limits) {}

  std::array<Cell, kStatusLast - kStatusFirst + 1> statuses{};
  Cell unanswered{0};       // the client was gone before anything was sent
  std::vector<Cell> calls;  // [object][operation][reason]
  std::vector<Histogram> upstream_by_object;
  std::vector<Cell> shadow;  // violations by candidate limit
  Histogram duration, overhead, store, loop_delay;
  std::array<HistogramOf<kFineBuckets>, flow::kPhaseCount> phases;
  std::array<Histogram, flow::kWaitCount> waits;
  Cell degraded_allow{0}, degraded_deny{0}, bytes_in{0}, bytes_out{0}, charged{0};
};

struct Metrics::Impl final : prometheus::Collectable {
  explicit Impl(Options given) : options(std::move(given)) {
    options.objects.emplace_back("other");
    for (std::size_t i = 0; i < options.objects.size(); ++i) index.emplace(options.objects[i], i);
    options.shadow_limits.emplace_back("other");
    for (unsigned i = 0; i < options.workers; ++i)
      shards.push_back(std::make_unique<Shard>(options.objects.size(), options.shadow_limits.size()));
  }

  std::size_t object_index(std::string_view object) const {
    auto found = index.find(object);
    return found == index.end() ? options.objects.size() - 1 : found->second;
  }
  // Candidate limits are few: a walk is quicker than a hash.
  std::size_t shadow_index(std::string_view limit) const {
    std::size_t i = 0;
    while (i + 1 < options.shadow_limits.size() && options.shadow_limits[i] != limit) ++i;
    return i;
  }
  static std::size_t call_index(std::size_t object, std::size_t operation, std::size_t reason) {
    return (object * kOperations.size() + operation) * kReasonCount + reason;
  }

  void record(Shard& shard, const usage::Fact& fact) const {
    if (fact.status >= kStatusFirst && fact.status <= kStatusLast)
      bump(shard.statuses[static_cast<std::size_t>(fact.status - kStatusFirst)]);
    else
      bump(shard.unanswered);
    for (const usage::CountedOperation& operation : fact.operations) {
      const std::size_t object = object_index(operation.object);
      bump(shard.calls[call_index(object, operation_index(operation.operation),
                                  static_cast<std::size_t>(fact.reason))]);
    }
    shard.duration.observe(fact.total);
    shard.overhead.observe(std::max(fact.total - fact.upstream, Duration(0)));
    if (fact.upstream > Duration(0))
      shard
          .upstream_by_object[fact.operations.empty() ? options.objects.size() - 1
                                                      : object_index(fact.operations.front().object)]
          .observe(fact.upstream);
    if (fact.degraded)
      bump(fact.reason == Reason::store_unavailable ? shard.degraded_deny : shard.degraded_allow);
    for (std::string_view limit : fact.shadow_violated) bump(shard.shadow[shadow_index(limit)]);
    bump(shard.bytes_in, fact.bytes_in);
    bump(shard.bytes_out, fact.bytes_out);
    bump(shard.charged, fact.units);
  }

  std::vector<prometheus::MetricFamily> Collect() const override;

  template <class Select>
  std::uint64_t sum(Select&& select) const {
    std::uint64_t total = 0;
    for (const auto& shard : shards) total += get(select(*shard));
    return total;
  }
  template <class Select>
  void add_histogram(prometheus::MetricFamily& out, std::vector<prometheus::ClientMetric::Label> labels,
                     bool even_if_empty, Select&& select) const {
    prometheus::ClientMetric metric;
    metric.label = std::move(labels);
    std::uint64_t cumulative = 0;
    constexpr auto& kBounds = std::remove_cvref_t<decltype(select(*shards.front()))>::kBucketBounds;
    for (std::size_t i = 0; i <= kBounds.size(); ++i) {
      cumulative += sum([&](const Shard& shard) -> const Cell& { return select(shard).counts[i]; });
      prometheus::ClientMetric::Bucket bucket;
      bucket.cumulative_count = cumulative;
      bucket.upper_bound = i < kBounds.size() ? kBounds[i] : std::numeric_limits<double>::infinity();
      metric.histogram.bucket.push_back(bucket);
    }
    if (cumulative == 0 && !even_if_empty) return;
    metric.histogram.sample_count = cumulative;
    metric.histogram.sample_sum = static_cast<double>(sum([&](const Shard& shard) -> const Cell& {
                                    return select(shard).nanoseconds;
                                  })) /
                                  1e9;
    out.metric.push_back(std::move(metric));
  }
  void add_counter(std::vector<prometheus::MetricFamily>& out, std::string name, std::string help,
                   double value) const {
    auto one = family(std::move(name), std::move(help), prometheus::MetricType::Counter);
    prometheus::ClientMetric metric;
    metric.counter.value = value;
    one.metric.push_back(metric);
    out.push_back(std::move(one));
  }
  prometheus::MetricFamily requests() const;
  prometheus::MetricFamily calls() const;
  prometheus::MetricFamily degraded() const;
  prometheus::MetricFamily shadow_violations() const;
  void add_histograms(std::vector<prometheus::MetricFamily>& out) const;

  Options options;
  std::unordered_map<std::string, std::size_t, StringHash, std::equal_to<>> index;
  std::vector<std::unique_ptr<Shard>> shards;
  mutable std::mutex sources_mutex;
  std::vector<std::function<std::vector<Family>()>> sources;
};

prometheus::MetricFamily Metrics::Impl::requests() const {
  auto out = family("tollgate_requests_total",
                    "Requests by status sent to the client; 0: the client was gone before.",
                    prometheus::MetricType::Counter);
  auto add = [&](int status, std::uint64_t count) {
    prometheus::ClientMetric metric;
    metric.label = {label("code", std::to_string(status))};
    metric.counter.value = static_cast<double>(count);
    out.metric.push_back(std::move(metric));
  };
  add(0, sum([](const Shard& shard) -> const Cell& { return shard.unanswered; }));
  for (int status = kStatusFirst; status <= kStatusLast; ++status) {
    auto count = sum([&](const Shard& shard) -> const Cell& {
      return shard.statuses[static_cast<std::size_t>(status - kStatusFirst)];
    });
    bool ours = false;
    for (std::size_t i = 0; i < kReasonCount; ++i)
      ours = ours || info(static_cast<Reason>(i)).status == status;
    if (count > 0 || ours) add(status, count);
  }
  return out;
}

prometheus::MetricFamily Metrics::Impl::calls() const {
  auto out = family("tollgate_calls_total",
                    "Operations on licensed objects by outcome; a batch counts each of its parts.",
                    prometheus::MetricType::Counter);
  for (std::size_t object = 0; object < options.objects.size(); ++object) {
    const bool main = std::find(options.main_objects.begin(), options.main_objects.end(),
                                options.objects[object]) != options.main_objects.end();
    for (std::size_t operation = 0; operation < kOperations.size(); ++operation)
      for (std::size_t reason = 0; reason < kReasonCount; ++reason) {
        auto count = sum([&](const Shard& shard) -> const Cell& {
          return shard.calls[call_index(object, operation, reason)];
        });
        const bool zero_wanted =
            main && static_cast<Reason>(reason) == Reason::ok && kOperations[operation] != "execute";
        if (count == 0 && !zero_wanted) continue;
        prometheus::ClientMetric metric;
        metric.label = {label("object", options.objects[object]), label("operation", kOperations[operation]),
                        label("reason", code(static_cast<Reason>(reason)))};
        metric.counter.value = static_cast<double>(count);
        out.metric.push_back(std::move(metric));
      }
  }
  return out;
}

prometheus::MetricFamily Metrics::Impl::degraded() const {
  auto out = family("tollgate_store_degraded_decisions_total",
                    "Calls decided without the quota store, by what was done with them.",
                    prometheus::MetricType::Counter);
  auto add = [&](std::string_view mode, std::uint64_t count) {
    prometheus::ClientMetric metric;
    metric.label = {label("mode", mode)};
    metric.counter.value = static_cast<double>(count);
    out.metric.push_back(std::move(metric));
  };
  add("allow", sum([](const Shard& shard) -> const Cell& { return shard.degraded_allow; }));
  add("deny", sum([](const Shard& shard) -> const Cell& { return shard.degraded_deny; }));
  return out;
}

prometheus::MetricFamily Metrics::Impl::shadow_violations() const {
  auto out = family("tollgate_shadow_violations_total",
                    "Calls that a candidate limit would have refused, whatever became of them.",
                    prometheus::MetricType::Counter);
  for (std::size_t i = 0; i < options.shadow_limits.size(); ++i) {
    auto count = sum([i](const Shard& shard) -> const Cell& { return shard.shadow[i]; });
    if (count == 0 && i + 1 == options.shadow_limits.size()) continue;  // `other` only when there is one
    prometheus::ClientMetric metric;
    metric.label = {label("limit", options.shadow_limits[i])};
    metric.counter.value = static_cast<double>(count);
    out.metric.push_back(std::move(metric));
  }
  return out;
}

void Metrics::Impl::add_histograms(std::vector<prometheus::MetricFamily>& out) const {
  auto single = [&](std::string name, std::string help, auto member) {
    auto one = family(std::move(name), std::move(help), prometheus::MetricType::Histogram);
    add_histogram(one, {}, true, [member](const Shard& shard) -> const Histogram& { return shard.*member; });
    out.push_back(std::move(one));
  };
  single("tollgate_request_duration_seconds", "Request head received to last byte of the reply sent.",
         &Shard::duration);
  single("tollgate_overhead_seconds", "Of that, time not spent waiting for the CRM.", &Shard::overhead);
  single("tollgate_store_roundtrip_seconds", "Round trips to the quota store.", &Shard::store);
  single("tollgate_loop_delay_seconds", "How late a worker ran its timer, ten times a second.",
         &Shard::loop_delay);
  auto phases = family("tollgate_phase_seconds", "Own time of a sampled request, by phase.",
                       prometheus::MetricType::Histogram);
  for (std::size_t i = 0; i < flow::kPhaseCount; ++i)
    add_histogram(phases, {label("phase", flow::name(static_cast<flow::Phase>(i)))}, true,
                  [i](const Shard& shard) -> const auto& { return shard.phases[i]; });
  out.push_back(std::move(phases));
  auto waits = family("tollgate_wait_seconds", "What a sampled request waited for.",
                      prometheus::MetricType::Histogram);
  for (std::size_t i = 0; i < flow::kWaitCount; ++i)
    add_histogram(waits, {label("for", flow::name(static_cast<flow::Wait>(i)))}, true,
                  [i](const Shard& shard) -> const auto& { return shard.waits[i]; });
  out.push_back(std::move(waits));
  auto upstream = family("tollgate_upstream_duration_seconds",
                         "Request handed to the CRM to last byte of its reply, by object.",
                         prometheus::MetricType::Histogram);
  for (std::size_t object = 0; object < options.objects.size(); ++object)
    add_histogram(
        upstream, {label("object", options.objects[object])}, options.objects[object] == "other",
        [object](const Shard& shard) -> const Histogram& { return shard.upstream_by_object[object]; });
  out.push_back(std::move(upstream));
}

std::vector<prometheus::MetricFamily> Metrics::Impl::Collect() const {
  std::vector<prometheus::MetricFamily> out;
  out.push_back(requests());
  out.push_back(calls());
  add_histograms(out);
  out.push_back(degraded());
  if (auto shadow = shadow_violations(); !shadow.metric.empty()) out.push_back(std::move(shadow));
  add_counter(out, "tollgate_charged_units_total", "Units counted against quotas, not given back.",
              static_cast<double>(sum([](const Shard& shard) -> const Cell& { return shard.charged; })));
  add_counter(out, "tollgate_client_received_bytes_total", "Body bytes received from clients.",
              static_cast<double>(sum([](const Shard& shard) -> const Cell& { return shard.bytes_in; })));
  add_counter(out, "tollgate_client_sent_bytes_total", "Body bytes sent to clients.",
              static_cast<double>(sum([](const Shard& shard) -> const Cell& { return shard.bytes_out; })));
  auto build =
      family("tollgate_build_info", "Version and revision of this program.", prometheus::MetricType::Gauge);
  prometheus::ClientMetric one;
  one.label = {label("version", options.version), label("revision", options.revision)};
  one.gauge.value = 1;
  build.metric.push_back(one);
  out.push_back(std::move(build));

  std::lock_guard lock(sources_mutex);
  for (const auto& source : sources)
    for (Family& given : source()) {
      const bool counter = given.type == Family::Type::counter;
      auto added = family(std::move(given.name), std::move(given.help),
                          counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge);
      for (Family::Sample& sample : given.samples) {
        prometheus::ClientMetric metric;
        for (auto& [name, value] : sample.labels) metric.label.push_back(label(name, value));
        (counter ? metric.counter.value : metric.gauge.value) = sample.value;
        added.metric.push_back(std::move(metric));
      }
      out.push_back(std::move(added));
    }
  return out;
}

Metrics::Metrics(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Metrics::~Metrics() = default;

std::unique_ptr<usage::FactSink> Metrics::worker_sink(unsigned worker) {
  CHECK(worker < impl_->shards.size(), "a worker without a shard");
  return std::make_unique<usage::FunctionSink>([impl = impl_.get(), shard = impl_->shards[worker].get()](
                                                   const usage::Fact& fact) { impl->record(*shard, fact); });
}

void Metrics::observe_store_roundtrip(unsigned worker, Duration duration) {
  impl_->shards[worker]->store.observe(duration);
}

void Metrics::observe_loop_delay(unsigned worker, Duration late) {
  impl_->shards[worker]->loop_delay.observe(late);
}

void Metrics::observe_life(unsigned worker, const flow::Life& life) {
  Shard& shard = *impl_->shards[worker];
  for (std::size_t i = 0; i < flow::kPhaseCount; ++i)
    if (const Duration own = life.own(static_cast<flow::Phase>(i)); own > Duration(0))
      shard.phases[i].observe(own);
  for (std::size_t i = 0; i < flow::kWaitCount; ++i)
    if (const Duration waited = life.waited(static_cast<flow::Wait>(i)); waited > Duration(0))
      shard.waits[i].observe(waited);
}

void Metrics::add_source(std::function<std::vector<Family>()> source) {
  std::lock_guard lock(impl_->sources_mutex);
  impl_->sources.push_back(std::move(source));
}

std::string Metrics::scrape() const {
  return prometheus::TextSerializer().Serialize(impl_->Collect());
}

}  // namespace tollgate::telemetry
