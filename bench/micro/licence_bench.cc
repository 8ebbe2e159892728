// What the licence decision costs a call: look-ups by name, with the licence names already known to the thread.
#include <benchmark/benchmark.h>

#include "config/load/rulebook.h"
#include "embedded_bpmonline.h"
#include "metering/base/check.h"
#include "metering/licence/policy.h"

namespace {

using namespace tollgate;
using catalogue::Operation;

licence::Policy make_policy() {
  auto rulebook = config::load_rulebook(embedded::k_bpmonline, "bpmonline.yaml");
  CHECK(rulebook.has_value(), "the preset is valid");
  rulebook->main_products = {"service_enterprise"};
  rulebook->custom_prefixes = {"Usr"};
  return licence::Policy(std::make_shared<const licence::Rulebook>(std::move(*rulebook)));
}

identity::Principal portal_user() {
  identity::Principal out;
  out.user = "ann";
  out.user_type = identity::UserType::portal;
  out.licenses = {"Creatio customer portal on-site"};
  return out;
}

catalogue::Classification parts_of(const char* object, Operation operation, std::uint32_t parts) {
  catalogue::Classification out;
  out.kind = catalogue::Kind::objects;
  for (std::uint32_t part = 0; part < parts; ++part)
    out.uses.push_back({object, operation, catalogue::Via::primary, part, parts > 1});
  return out;
}

void decide_allowed(benchmark::State& state) {
  const licence::Policy policy = make_policy();
  const auto principal = portal_user();
  const auto call = parts_of("CaseFile", Operation::create, static_cast<std::uint32_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(policy.decide(principal, call));
}
BENCHMARK(decide_allowed)->Arg(1)->Arg(37);

void decide_denied(benchmark::State& state) {
  const licence::Policy policy = make_policy();
  const auto principal = portal_user();
  const auto call = parts_of("Account", Operation::read, 1);
  for (auto _ : state) benchmark::DoNotOptimize(policy.decide(principal, call));
}
BENCHMARK(decide_denied);

void load_the_preset(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(config::load_rulebook(embedded::k_bpmonline, "bpmonline.yaml"));
}
BENCHMARK(load_the_preset)->Unit(benchmark::kMillisecond);

}  // namespace
