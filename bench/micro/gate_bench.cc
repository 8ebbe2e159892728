// The whole decision about one call, as a worker makes it: route, token (seen before), what it touches, licence,
// accounts, charge, RateLimit fields. The ledger is the one in memory, so this is the price without Redis.
#include <benchmark/benchmark.h>

#include <cstdlib>

#include "config/load/rulebook.h"
#include "embedded_bpmonline.h"
#include "metering/identity/mint.h"
#include "metering/quota/memory_ledger.h"
#include "proxy/flow/gate.h"
#include "proxy/http/request_parser.h"

namespace tollgate {
namespace {

constexpr std::string_view kSecret = "0123456789abcdef0123456789abcdef";
constexpr std::int64_t kNow = 1'795'000'000;

// Ends the benchmark program when the set-up itself is broken: a number without a decision behind it would mislead.
template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
  return std::move(*result);
}

std::shared_ptr<const flow::Snapshot> portal(std::uint64_t limit) {
  config::Settings settings;
  settings.routes.push_back({});
  settings.identity.jwt.emplace_back();
  settings.identity.jwt[0].algorithms = {"HS256"};
  settings.licensing.main_products = {"service_enterprise"};
  settings.quotas.emplace_back();
  settings.quotas[0].name = "daily";
  settings.quotas[0].limit = limit;
  flow::SnapshotParts parts;
  parts.rulebook = must(config::load_rulebook(embedded::k_bpmonline, "bpmonline.yaml"));
  if (auto applied = config::apply_settings(parts.rulebook, settings.catalogue, settings.licensing); !applied)
    std::exit(1);
  parts.schema = config::make_schema(parts.rulebook);
  parts.key_rings = {std::make_shared<identity::KeyRing>(must(identity::KeySet::from_secret(kSecret)))};
  parts.settings = std::move(settings);
  return must(flow::make_snapshot(std::move(parts)));
}

std::string request_text() {
  identity::Mint mint;
  mint.key = kSecret;
  mint.claims = {identity::text_claim("sub", "ann"), identity::text_claim("user_type", "portal"),
                 identity::texts_claim("licenses", {"Creatio customer portal cloud"}),
                 identity::number_claim("exp", kNow + 3'600)};
  return "GET /0/odata/Case?$select=Id,Number&$top=20 HTTP/1.1\r\nHost: crm.example\r\nAccept: "
         "application/json\r\n"
         "Authorization: Bearer " +
         must(identity::mint_token(mint)) + "\r\n\r\n";
}

void decide(benchmark::State& state, std::uint64_t limit, flow::Next expected) {
  const auto snapshot = portal(limit);
  const std::string text = request_text();
  http::RequestParser parser{http::HeadLimits{}};
  if (parser.parse(text) != http::ParseStatus::complete) std::exit(1);
  Milliseconds store_time{kNow * 1'000};
  quota::MemoryLedger ledger([&] { return store_time; });
  flow::Gate gate(1'000, 1);
  for (auto _ : state) {
    flow::Call call;
    call.snapshot = snapshot;
    call.request_id = "request-0001";
    flow::Next next = gate.on_head(call, parser.head(), from_unix_seconds(kNow));
    if (next == flow::Next::charge)
      ledger.charge(call.charges,
                    [&](quota::ChargeOutcome&& outcome) { next = gate.on_charge(call, std::move(outcome)); });
    if (next != expected) state.SkipWithError("another decision than the one that is measured");
    benchmark::DoNotOptimize(call.response_fields);
  }
}

void gate_allows(benchmark::State& state) {
  decide(state, 1'000'000'000'000, flow::Next::forward);
}
void gate_refuses_over_quota(benchmark::State& state) {
  decide(state, 0, flow::Next::reply);
}
BENCHMARK(gate_allows);
BENCHMARK(gate_refuses_over_quota);

}  // namespace
}  // namespace tollgate
