// What a charge costs without a store: the arithmetic of one account and the whole of a call's charges in memory.
#include <benchmark/benchmark.h>

#include "metering/base/check.h"
#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "metering/quota/memory_ledger.h"
#include "metering/quota/rate_limit_fields.h"
#include "metering/quota/record.h"
#include "metering/quota/rules.h"

namespace {

using namespace tollgate;
using namespace tollgate::quota;

constexpr WindowShape kDay{Milliseconds(86'400'000), Milliseconds(60'000)};
constexpr std::int64_t kFirst = 28'333'334;

// A user of office hours: `buckets` minutes with a few calls each.
RollingWindow window_of(std::int64_t buckets) {
  RollingWindow window(kDay.bucket);
  Random random(1);
  for (std::int64_t i = 0; i < buckets; ++i) window.add(kFirst + 3 * i, 1 + random.below(20));
  return window;
}

void charge_in_the_newest_bucket(benchmark::State& state) {
  RollingWindow window = window_of(state.range(0));
  const std::int64_t newest = kFirst + 3 * (state.range(0) - 1);
  const Milliseconds now = newest * kDay.bucket;
  for (auto _ : state) {
    window.prune(kDay, now);
    benchmark::DoNotOptimize(window.fits_after(kDay, now, kUnlimited - 1, 1));
    benchmark::DoNotOptimize(window.add(newest, 1));
  }
}
BENCHMARK(charge_in_the_newest_bucket)->Arg(1)->Arg(40)->Arg(148);

void decode_and_encode(benchmark::State& state) {
  const std::string bytes = window_of(state.range(0)).encode();
  for (auto _ : state) {
    auto window = RollingWindow::decode(bytes, kDay.bucket);
    CHECK(window.has_value(), "the record is valid");
    benchmark::DoNotOptimize(window->encode());
  }
  state.counters["bytes"] = static_cast<double>(bytes.size());
}
BENCHMARK(decode_and_encode)->Arg(1)->Arg(40)->Arg(148);

Rules typical_rules() {
  Rule daily, burst;
  daily.name = "daily";
  daily.limit = 1'000'000'000;
  daily.window = Milliseconds(86'400'000);
  daily.per = {Dimension::user};
  burst.name = "burst";
  burst.limit = 1'000'000'000;
  burst.window = Milliseconds(1'000);
  burst.per = {Dimension::user};
  return Rules({daily, burst}, true);
}

void charges_of_a_call(benchmark::State& state) {
  const Rules rules = typical_rules();
  const std::vector<CountedOperation> batch(static_cast<std::size_t>(state.range(0)),
                                            {"Case", "read", "customer"});
  for (auto _ : state) benchmark::DoNotOptimize(rules.charges({"acme", "org", "ann", false}, batch));
}
BENCHMARK(charges_of_a_call)->Arg(1)->Arg(37);

void charge_in_memory(benchmark::State& state) {
  const Rules rules = typical_rules();
  const std::vector<CountedOperation> one{{"Case", "read", "customer"}};
  Milliseconds now{1'700'000'000'000};
  MemoryLedger ledger([&] { return now += Milliseconds(7); });
  std::vector<std::vector<AccountCharge>> charges;
  for (int i = 0; i < 1'000; ++i)
    charges.push_back(rules.charges({"acme", "org", "user" + std::to_string(i), false}, one));
  std::size_t next = 0;
  for (auto _ : state)
    ledger.charge(charges[next++ % charges.size()],
                  [](ChargeOutcome&& outcome) { benchmark::DoNotOptimize(outcome.states.data()); });
}
BENCHMARK(charge_in_memory);

void rate_limit_lines(benchmark::State& state) {
  const Rules rules = typical_rules();
  const std::vector<CountedOperation> one{{"Case", "read", "customer"}};
  const auto charges = rules.charges({"acme", "org", "ann", false}, one);
  std::vector<AccountState> states(charges.size(),
                                   AccountState{873, 1000, Milliseconds(4'210'001), 3, Milliseconds(0)});
  const std::string policy = rate_limit_policy(rules.rules());
  for (auto _ : state)
    benchmark::DoNotOptimize(rate_limit_field_lines({true, false}, policy, rules.rules(), charges, states));
}
BENCHMARK(rate_limit_lines);

}  // namespace
