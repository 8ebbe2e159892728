#include "proxy/flow/snapshot.h"

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/base/json_text.h"
#include "metering/quota/rate_limit_fields.h"
#include "metering/quota/record.h"
#include "proxy/http/reply_paths.h"

namespace tollgate::flow {
namespace {

identity::TokenVerifier make_verifier(const config::Identity& settings,
                                      std::span<const std::shared_ptr<identity::KeyRing>> key_rings) {
  CHECK(key_rings.size() == settings.jwt.size(), "one key ring an issuer");
  std::vector<identity::IssuerRules> issuers;
  for (std::size_t i = 0; i < settings.jwt.size(); ++i) {
    const config::JwtIssuer& jwt = settings.jwt[i];
    issuers.push_back({.issuer = jwt.issuer,
                       .audience = jwt.audience,
                       .algorithms = jwt.algorithms,
                       .keys = key_rings[i],
                       .leeway = std::chrono::duration_cast<Seconds>(jwt.leeway),
                       .require_expiry = jwt.require_expiry,
                       .user_claim = jwt.claims.user,
                       .tenant_claim = jwt.claims.tenant,
                       .organization_claim = jwt.claims.organization,
                       .user_type_claim = jwt.claims.user_type,
                       .licenses_claim = jwt.claims.licenses,
                       .site_claim = jwt.claims.site,
                       .customer_claim = jwt.claims.customer,
                       .account_claim = jwt.claims.account,
                       .security_right_claim = jwt.claims.security_right,
                       .consume_license_claim = jwt.claims.consume_license});
  }
  return identity::TokenVerifier(std::move(issuers), settings.max_token_bytes);
}

catalogue::Options catalogue_options(const config::Catalogue& settings) {
  static constexpr std::pair<std::string_view, catalogue::Dialect> kDialects[] = {
      {"creatio", catalogue::Dialect::creatio},
      {"zoho", catalogue::Dialect::zoho},
      {"cherwell", catalogue::Dialect::cherwell},
      {"rest", catalogue::Dialect::rest}};
  catalogue::Options options;
  for (const std::string& name : settings.dialects)
    for (const auto& [known, dialect] : kDialects)
      if (name == known) options.dialects.push_back(dialect);
  return options;
}

bool counts_credits(const config::Settings& settings) {
  return std::ranges::any_of(settings.quotas, [](const auto& rule) { return rule.on == "credits"; });
}

quota::Dimension dimension(std::string_view name) {
  static constexpr std::pair<std::string_view, quota::Dimension> kNames[] = {
      {"tenant", quota::Dimension::tenant},   {"organization", quota::Dimension::organization},
      {"product", quota::Dimension::product}, {"user", quota::Dimension::user},
      {"object", quota::Dimension::object},   {"operation", quota::Dimension::operation}};
  for (const auto& [known, value] : kNames)
    if (name == known) return value;
  CHECK(false, "the parser lets no other dimension through");
  return quota::Dimension::user;
}

std::vector<quota::Rule> make_rules(const std::vector<config::QuotaRule>& settings) {
  std::vector<quota::Rule> rules;
  for (const config::QuotaRule& quota : settings) {
    quota::Rule rule{.name = quota.name,
                     .limit = quota.limit,
                     .window = quota.window,
                     .bucket = quota.bucket.count() > 0 ? quota.bucket : quota::default_bucket(quota.window),
                     .per = {},
                     .on = quota.on == "all"       ? quota::Scope::all
                           : quota.on == "credits" ? quota::Scope::credits
                                                   : quota::Scope::licensed,
                     .applies_to_staff = quota.staff,
                     .shadow = quota.mode == config::QuotaMode::shadow,
                     .overrides = quota.overrides};
    for (const std::string& name : quota.per) rule.per.push_back(dimension(name));
    rules.push_back(std::move(rule));
  }
  return rules;
}

PreparedEdits prepare(const config::FieldEdits& settings) {
  PreparedEdits edits;
  for (const std::string& name : settings.remove) edits.drop.push_back(name);
  for (const auto& [name, value] : settings.set) edits.drop.push_back(name);
  for (const auto* fields : {&settings.set, &settings.add})
    for (const auto& [name, value] : *fields)
      edits.lines.append(name).append(": ").append(value).append("\r\n");
  edits.drop_legacy = edits.drop;
  edits.drop_legacy.insert(edits.drop_legacy.end(), std::begin(kLegacyRateLimit), std::end(kLegacyRateLimit));
  return edits;
}

void prepare_identity(Snapshot& snapshot) {
  const config::Identity& identity = snapshot.settings.identity;
  for (const auto& source : identity.sources)
    if (!source.header.empty()) snapshot.identity_headers.push_back(source.header);
  if (!identity.api_keys.file.empty()) {
    snapshot.identity_headers.push_back(identity.api_keys.header);
    if (!identity.api_keys.forward)
      for (RouteEdits& edits : snapshot.edits) edits.request.drop.push_back(identity.api_keys.header);
  }
  // What the upstream is told of the caller is ours to tell, on every route.
  const config::IdentityPass& pass = identity.pass;
  for (std::string_view field :
       {std::string_view(pass.user_field), std::string_view(pass.tenant_field),
        std::string_view(pass.organization_field), std::string_view(pass.user_type_field),
        std::string_view(pass.token_field)}) {
    for (RouteEdits& edits : snapshot.edits) edits.request.drop.push_back(field);
    snapshot.identity_headers.push_back(field);
  }
  if (identity.forward_token) return;
  // Every place where a token may stand, not only the one that counted: a second one is a credential too.
  for (const auto& source : identity.sources)
    if (!source.cookie.empty()) snapshot.dropped_cookies.push_back(source.cookie);
  for (RouteEdits& edits : snapshot.edits) {
    std::vector<std::string_view>& drop = edits.request.drop;
    if (identity.sources.empty()) drop.push_back("authorization");
    for (const auto& source : identity.sources)
      if (!source.header.empty()) drop.push_back(source.header);
  }
}

void prepare_seats(Snapshot& snapshot) {
  const config::Licensing& licensing = snapshot.settings.licensing;
  const licence::Rulebook& rulebook = snapshot.policy.rulebook();
  for (const licence::Product& product : rulebook.products) {
    if (rulebook.system == "none") break;  // plain metering: nobody has a licence of a product
    const auto capacity = licence::seat_capacity(rulebook, product);
    snapshot.pool_of_product.push_back(capacity ? std::uint64_t{1} << snapshot.seat_pools.size() : 0);
    if (capacity)
      snapshot.seat_pools.push_back({.pool = {.id = product.id,
                                              .kind = seats::Kind::named,
                                              .capacity = *capacity,
                                              .lease = licensing.seat_lease},
                                     .title = product.title});
  }
  if (licensing.concurrent_seats.capacity > 0) {
    snapshot.concurrent_pool = std::uint64_t{1} << snapshot.seat_pools.size();
    snapshot.seat_pools.push_back({.pool = {.id = std::string(kConcurrentPool),
                                            .kind = seats::Kind::concurrent,
                                            .capacity = licensing.concurrent_seats.capacity,
                                            .idle = licensing.concurrent_seats.idle,
                                            .lease = licensing.seat_lease},
                                   .title = "portal users at once"});
  }
  if (rulebook.portal_seats.free > 0) {
    snapshot.seat_pools.push_back({.pool = {.id = std::string(kPortalPool),
                                            .kind = seats::Kind::named,
                                            .capacity = rulebook.portal_seats.capacity(),
                                            .lease = licensing.seat_lease},
                                   .title = "portal users",
                                   .of_members = true});
    snapshot.portal_pool = &snapshot.seat_pools.back();
  }
}

std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, std::min(host.find(']') + 1, host.size()));
  return host.substr(0, host.find(':'));
}

// The type is the base address and the code with hyphens.
void prepare_problems(Snapshot& snapshot) {
  for (std::size_t i = 0; i < kReasonCount; ++i) {
    const ReasonInfo& reason = info(static_cast<Reason>(i));
    std::string slug(reason.code), document;
    std::ranges::replace(slug, '_', '-');
    JsonWriter json(document);
    json.object([&] {
      json.field("type", snapshot.settings.proxy.problem_base_url + slug);
      json.field("title", reason.title);
      json.field("status", reason.status);
    });
    snapshot.problem_heads[i] = document.substr(1, document.size() - 2);
  }
}

}  // namespace

Result<std::shared_ptr<const Snapshot>> make_snapshot(SnapshotParts parts) {
  auto trusted = http::AddressSet::parse(parts.settings.proxy.trusted_proxies);
  if (!trusted) return std::unexpected(trusted.error());
  auto unlimited = http::AddressSet::parse(parts.settings.limits.per_address.exempt);
  if (!unlimited) return std::unexpected(unlimited.error());
  quota::Rules rules(make_rules(parts.settings.quotas), parts.settings.usage_by_object);
  std::string policy = quota::rate_limit_policy(rules.rules());
  identity::TokenVerifier verifier = make_verifier(parts.settings.identity, parts.key_rings);
  catalogue::Options options = catalogue_options(parts.settings.catalogue);
  if (counts_credits(parts.settings)) options.credits = parts.rulebook.credits;
  if (counts_credits(parts.settings) && !options.credits)
    return fail(Origin::config, "quotas: the rulebook has no credits for \"on: credits\" to count");
  catalogue::Classifier classifier(std::move(options), parts.schema);
  auto made = std::make_shared<Snapshot>(Snapshot{
      .settings = std::move(parts.settings),
      .verifier = std::move(verifier),
      .key_rings = std::move(parts.key_rings),
      .directory = std::move(parts.directory),
      .api_keys = std::move(parts.api_keys),
      .token_lookup = std::move(parts.token_lookup),
      .session_lookup = std::move(parts.session_lookup),
      .lookups = std::move(parts.lookups),
      .sessions = std::move(parts.sessions),
      .owner_lookup = std::move(parts.owner_lookup),
      .owners = std::move(parts.owners),
      .classifier = std::move(classifier),
      .policy = licence::Policy(std::make_shared<const licence::Rulebook>(std::move(parts.rulebook))),
      .rules = std::move(rules),
      .trusted_proxies = std::move(*trusted),
      .unlimited_addresses = std::move(*unlimited),
      .rate_limit_policy = std::move(policy),
      .problem_heads = {},
      .edits = {},
      .identity_headers = {},
      .pass_secret = std::move(parts.pass_secret),
      .dropped_cookies = {},
      .seat_pools = {},
      .pool_of_product = {},
      .generation = parts.generation});
  for (const config::Route& route : made->settings.routes)
    made->edits.push_back({prepare(route.request_fields), prepare(route.reply_fields)});
  prepare_problems(*made);
  prepare_identity(*made);
  prepare_seats(*made);
  return made;
}

const config::Route* find_route(const config::Settings& settings, std::string_view host,
                                std::string_view path) {
  const config::Route* best = nullptr;
  for (const config::Route& route : settings.routes) {
    if (!route.host.empty() && !equals_ignore_case(route.host, without_port(host))) continue;
    const std::string_view prefix = http::without_end_slash(route.path_prefix);
    if (!starts_with_ignore_case(path, prefix)) continue;
    if (path.size() > prefix.size() && path[prefix.size()] != '/') continue;
    // A route of this host beats one of any host; among equals the longer prefix wins.
    if (best == nullptr || std::make_pair(!route.host.empty(), route.path_prefix.size()) >
                               std::make_pair(!best->host.empty(), best->path_prefix.size()))
      best = &route;
  }
  return best;
}

}  // namespace tollgate::flow
