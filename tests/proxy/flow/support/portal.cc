#include "tests/proxy/flow/support/portal.h"

#include <gtest/gtest.h>

#include "config/load/rulebook.h"
#include "embedded_bpmonline.h"
#include "embedded_zoho.h"
#include "metering/identity/mint.h"
#include "proxy/http/request_parser.h"

namespace tollgate::flow::test {

std::string token(const TokenSpec& spec) {
  identity::Mint mint{
      .algorithm = identity::Algorithm::hs256, .key = spec.secret, .kid = "", .typ = "JWT", .claims = {}};
  mint.claims = {identity::text_claim("iss", "https://idp.example"),
                 identity::text_claim("sub", spec.user),
                 identity::text_claim("tenant", "acme"),
                 identity::text_claim("org", "Best Ltd"),
                 identity::text_claim("user_type", spec.type),
                 identity::texts_claim("licenses", spec.licenses),
                 identity::text_claim("account", spec.account),
                 identity::number_claim("exp", spec.expires)};
  auto made = identity::mint_token(mint);
  EXPECT_TRUE(made) << made.error().message;
  return made.value_or("");
}

config::Settings settings() {
  config::Settings out;
  out.upstreams.push_back({.name = "crm", .servers = {"http://127.0.0.1:9000"}, .tls = {}});
  out.routes.push_back({.host = "", .path_prefix = "/", .upstream = "crm"});
  out.identity.jwt.push_back({.issuer = "https://idp.example",
                              .audience = {},
                              .algorithms = {"HS256"},
                              .secret_file = "secret",
                              .jwks_file = "",
                              .jwks_url = "",
                              .jwks_ca_file = ""});
  out.licensing.main_products = {"service_enterprise"};
  out.quotas.push_back({.name = "daily", .limit = 3});
  return out;
}

namespace {
// With api_keys.file the text of the file is the setting itself.
std::shared_ptr<const identity::ApiKeys> api_keys(const config::Settings& settings) {
  if (settings.identity.api_keys.file.empty()) return nullptr;
  auto keys = identity::ApiKeys::parse(settings.identity.api_keys.file, "", nullptr);
  EXPECT_TRUE(keys) << keys.error().message;
  return std::make_shared<const identity::ApiKeys>(*std::move(keys));
}
std::shared_ptr<const identity::LookupSource> lookup(const config::Lookup& settings) {
  if (settings.url.empty()) return nullptr;
  identity::LookupSource source;
  source.url = settings.url;
  return std::make_shared<const identity::LookupSource>(std::move(source));
}
// Makes the gate ask; Portal::send answers.
class SomeLookup final : public OwnerLookup {
  void find(const std::string&, const std::string&, std::function<void()> done) override { done(); }
};
}  // namespace

std::shared_ptr<const Snapshot> snapshot(const config::Settings& settings, std::uint64_t generation) {
  const bool zoho = settings.licensing.system == "zoho";
  auto rulebook = config::load_rulebook(zoho ? embedded::k_zoho : embedded::k_bpmonline, "a preset");
  EXPECT_TRUE(rulebook) << rulebook.error().message;
  if (settings.licensing.system == "none") rulebook->system = "none";
  auto applied = config::apply_settings(*rulebook, settings.catalogue, settings.licensing);
  EXPECT_TRUE(applied) << applied.error().message;
  auto keys = identity::KeySet::from_secret(kSecret);
  EXPECT_TRUE(keys);
  SnapshotParts parts{.settings = settings,
                      .rulebook = *rulebook,
                      .schema = config::make_schema(*rulebook),
                      .directory = nullptr,
                      .key_rings = {std::make_shared<identity::KeyRing>(std::move(*keys))},
                      .api_keys = api_keys(settings),
                      .token_lookup = lookup(settings.identity.introspection.lookup),
                      .lookups = std::make_shared<identity::LookupTable>(std::string(32, 's'), 1'000),
                      .sessions = settings.identity.sessions.kinds.empty()
                                      ? nullptr
                                      : std::make_shared<identity::SessionTable>(
                                            *identity::SessionSecret::from_text(kSecret), 1'000),
                      .generation = generation};
  if (asks_owners(parts.rulebook)) {
    parts.owners = std::make_shared<licence::OwnerTable>(1'000);
    parts.owner_lookup = std::make_shared<SomeLookup>();
  }
  auto made = make_snapshot(std::move(parts));
  EXPECT_TRUE(made) << made.error().message;
  return *made;
}

Request::Request(std::string_view method, std::string_view target,
                 std::vector<std::pair<std::string, std::string>> fields, std::string body)
    : body_(std::move(body)) {
  text_ = std::string(method) + " " + std::string(target) + " HTTP/1.1\r\nHost: crm.example\r\n";
  for (const auto& [name, value] : fields) text_ += name + ": " + value + "\r\n";
  const bool chunked =
      std::ranges::any_of(fields, [](const auto& field) { return field.first == "Transfer-Encoding"; });
  if (!body_.empty() && !chunked) text_ += "Content-Length: " + std::to_string(body_.size()) + "\r\n";
  text_ += "\r\n";
  http::RequestParser parser{http::HeadLimits{}};
  EXPECT_EQ(parser.parse(text_), http::ParseStatus::complete) << parser.failure().detail << "\n" << text_;
  head_ = parser.head();
}

Request with_token(std::string_view method, std::string_view target, const std::string& token,
                   std::string body, std::vector<std::pair<std::string, std::string>> more) {
  more.emplace_back("Authorization", "Bearer " + token);
  return Request(method, target, std::move(more), std::move(body));
}

Portal::Portal(config::Settings s) : snapshot_(snapshot(s)) {}

Outcome Portal::send(const Request& request) {
  Outcome out;
  out.call.snapshot = snapshot_;
  out.call.request_id = "request-0001";
  out.call.no_anonymous = no_anonymous;
  out.next = gate.on_head(out.call, request.head(), now);
  if (out.next == Next::need_body) out.next = gate.on_body(out.call, request.head(), request.body(), now);
  if (out.next == Next::find_owners) {
    for (const std::string& record : Gate::unknown_owners(out.call)) {
      asked.push_back(record);
      if (const auto owner = owners(record)) snapshot_->owners->learn("crm", record, *owner, now);
    }
    out.next = gate.on_owners(out.call, request.head(), request.body(), now);
  }
  while (out.next == Next::seat)
    out.next = gate.on_seat(out.call, seats(Gate::wanted_seat(out.call), out.call.token->principal));
  if (out.next == Next::charge)
    ledger.charge(out.call.charges, [&](quota::ChargeOutcome&& outcome) {
      out.next = gate.on_charge(out.call, std::move(outcome));
    });
  if (out.next == Next::read_usage)
    ledger.read(out.call.charges, [&](auto&& states) {
      const auto& what = out.call.observation;
      ledger.list(what.subject_key, what.prefix, what.window, what.bucket, [&](auto&& listed) {
        out.next = gate.on_usage(out.call, std::move(states), std::move(listed), looks);
      });
    });
  return out;
}

}  // namespace tollgate::flow::test
