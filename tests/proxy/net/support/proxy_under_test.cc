#include "tests/proxy/net/support/proxy_under_test.h"

#include <gtest/gtest.h>

#include <future>

#include "config/load/rulebook.h"
#include "embedded_bpmonline.h"
#include "metering/identity/mint.h"

namespace tollgate::net::test {

namespace {
constexpr std::string_view kSecret = "0123456789abcdef0123456789abcdef";
}

void Facts::add(const usage::Fact& fact) {
  RecordedFact copy;
  copy.reason = fact.reason;
  copy.status = fact.status;
  copy.units = fact.units;
  copy.attempts = fact.attempts;
  copy.method = fact.method;
  copy.path = fact.path;
  copy.user = fact.user;
  copy.client_address = fact.client_address;
  copy.request_id = fact.request_id;
  copy.upstream_server = fact.upstream_server;
  copy.bytes_in = fact.bytes_in;
  copy.bytes_out = fact.bytes_out;
  copy.total = fact.total;
  copy.upstream = fact.upstream;
  std::lock_guard lock(mutex_);
  facts_.push_back(std::move(copy));
  changed_.notify_all();
}

std::vector<RecordedFact> Facts::wait_for(std::size_t count) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::seconds(10), [&] { return facts_.size() >= count; });
  EXPECT_GE(facts_.size(), count);
  auto copy = facts_;
  copy.resize(std::max(copy.size(), count));
  return copy;
}

std::size_t Facts::size() const {
  std::lock_guard lock(mutex_);
  return facts_.size();
}

config::Settings settings(std::vector<std::string> servers) {
  config::Settings out;
  out.listeners.emplace_back().address = "127.0.0.1:0";
  out.upstreams.push_back({.name = "crm", .servers = std::move(servers), .tls = {}});
  out.routes.push_back({.host = "", .path_prefix = "/", .upstream = "crm", .metered = false});
  out.routes.push_back({.host = "", .path_prefix = "/0", .upstream = "crm"});
  out.identity.jwt.push_back({.issuer = "https://idp.example",
                              .audience = {},
                              .algorithms = {"HS256"},
                              .secret_file = "secret",
                              .jwks_file = "",
                              .jwks_url = "",
                              .jwks_ca_file = "",
                              .require_expiry = false});
  out.licensing.main_products = {"service_enterprise"};
  out.quotas.push_back({.name = "daily", .limit = 1'000});
  return out;
}

std::shared_ptr<const flow::Snapshot> snapshot(const config::Settings& settings, std::uint64_t generation) {
  auto rulebook = config::load_rulebook(embedded::k_bpmonline, "bpmonline.yaml");
  EXPECT_TRUE(rulebook) << rulebook.error().message;
  auto applied = config::apply_settings(*rulebook, settings.catalogue, settings.licensing);
  EXPECT_TRUE(applied) << applied.error().message;
  auto keys = identity::KeySet::from_secret(kSecret);
  EXPECT_TRUE(keys);
  flow::SnapshotParts parts{.settings = settings,
                            .rulebook = *rulebook,
                            .schema = config::make_schema(*rulebook),
                            .directory = nullptr,
                            .key_rings = {std::make_shared<identity::KeyRing>(std::move(*keys))},
                            .generation = generation};
  auto made = flow::make_snapshot(std::move(parts));
  EXPECT_TRUE(made) << made.error().message;
  return *made;
}

std::string token(const std::string& user) {
  identity::Mint mint{.algorithm = identity::Algorithm::hs256,
                      .key = std::string(kSecret),
                      .kid = "",
                      .typ = "JWT",
                      .claims = {}};
  mint.claims = {identity::text_claim("iss", "https://idp.example"), identity::text_claim("sub", user),
                 identity::text_claim("tenant", "acme"), identity::text_claim("user_type", "portal"),
                 identity::texts_claim("licenses", {"Creatio customer portal cloud"})};
  auto made = identity::mint_token(mint);
  EXPECT_TRUE(made);
  return made.value_or("");
}

Proxy::Proxy(const config::Settings& settings, unsigned workers, Sockets inherited) {
  struct Sink final : usage::FactSink {
    explicit Sink(Facts& to) : facts(to) {}
    void record(const usage::Fact& fact) override { facts.add(fact); }
    Facts& facts;
  };
  Server::Options options;
  options.snapshot = snapshot(settings);
  options.workers = workers;
  options.hold = !inherited.empty();
  options.inherited = std::move(inherited);
  options.seed = 7;
  options.make_ledger = [](event_base*, unsigned) {
    return std::make_unique<quota::MemoryLedger>([] { return Milliseconds(1'795'000'000'000); });
  };
  options.make_sinks = [this](unsigned) {
    std::vector<std::unique_ptr<usage::FactSink>> sinks;
    sinks.push_back(std::make_unique<Sink>(facts));
    return sinks;
  };
  options.log = [this](std::string_view level, std::string_view text) {
    std::lock_guard lock(log_mutex);
    log.push_back(std::string(level) + " " + std::string(text));
  };
  auto started = Server::start(std::move(options));
  EXPECT_TRUE(started) << started.error().message;
  if (started) server = std::move(*started);
}

Proxy::~Proxy() {
  server.reset();
}

Message Proxy::ask(const std::string& request, bool head_reply) {
  Peer peer = connect();
  EXPECT_TRUE(peer.send(request));
  return peer.read_message(head_reply);
}

Result<void> Proxy::reload(const config::Settings& settings) {
  return server->reload(snapshot(settings, ++generation_));
}

std::uint64_t Proxy::used(const std::string& user) {
  auto present = server->snapshot();
  auto accounts = present->rules.accounts({"acme", "", user, false});
  std::promise<std::uint64_t> answer;
  server->post(0, [&] {
    server->ledger(0)->read(accounts, [&](Result<std::vector<quota::AccountState>>&& states) {
      answer.set_value(states && !states->empty() ? states->front().used : 0);
    });
  });
  return answer.get_future().get();
}

}  // namespace tollgate::net::test
