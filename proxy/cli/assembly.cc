#include "proxy/cli/assembly.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include "config/load/rulebook.h"
#include "metering/base/check.h"
#include "metering/base/percent.h"
#include "metering/redis/probe.h"
#include "proxy/net/cherwell_owners.h"
#include "proxy/net/creatio_owners.h"
#include "tollgate_version.h"

namespace tollgate::cli {
namespace {

net::KeySource source_of(const config::JwtIssuer& jwt, std::shared_ptr<identity::KeyRing> ring) {
  net::KeySource source{.ring = std::move(ring),
                        .kind = net::KeySource::Kind::url,
                        .location = jwt.jwks_url,
                        .ca_file = jwt.jwks_ca_file,
                        .algorithms = jwt.algorithms,
                        .refresh = jwt.jwks_refresh,
                        .min_interval = jwt.jwks_min_interval};
  if (!jwt.secret_file.empty()) {
    source.kind = net::KeySource::Kind::secret;
    source.location = jwt.secret_file;
  } else if (!jwt.jwks_file.empty()) {
    source.kind = net::KeySource::Kind::file;
    source.location = jwt.jwks_file;
  }
  return source;
}

// The ring of an issuer that runs now and fetches from the same URL.
std::shared_ptr<const identity::KeySet> keys_in_use(const flow::Snapshot* previous, const std::string& url) {
  if (previous == nullptr || url.empty()) return nullptr;
  for (std::size_t i = 0; i < previous->key_rings.size(); ++i)
    if (previous->settings.identity.jwt[i].jwks_url == url) return previous->key_rings[i]->load();
  return nullptr;
}

// What runs now goes on with the sessions it knows, unless the secret is another.
Result<std::shared_ptr<identity::SessionTable>> session_table(const config::LoadedConfig& loaded,
                                                              const flow::Snapshot* previous) {
  const config::Sessions& settings = loaded.settings.identity.sessions;
  if (settings.kinds.empty()) return nullptr;
  auto secret = identity::SessionSecret::from_text(loaded.file_texts.at(settings.secret_file));
  if (!secret)
    return fail(Origin::config, fmt::format("{}: {}", settings.secret_file, secret.error().message));
  if (previous != nullptr && previous->sessions != nullptr && previous->sessions->secret() == *secret)
    return previous->sessions;
  return std::make_shared<identity::SessionTable>(std::move(*secret), settings.entries);
}

identity::LookupSource source_of(std::string name, const config::Lookup& lookup,
                                 const config::JwtIssuer::Claims& claims, std::string refusal) {
  identity::LookupSource source;
  source.name = std::move(name);
  source.url = lookup.url;
  source.ca_file = lookup.ca_file;
  source.timeout = lookup.timeout;
  source.max_age = lookup.max_age;
  source.negative_age = lookup.negative_age;
  source.refusal = std::move(refusal);
  source.rules.leeway = Seconds(0);
  source.rules.require_expiry = false;
  source.rules.user_claim = claims.user;
  source.rules.tenant_claim = claims.tenant;
  source.rules.organization_claim = claims.organization;
  source.rules.user_type_claim = claims.user_type;
  source.rules.licenses_claim = claims.licenses;
  source.rules.site_claim = claims.site;
  source.rules.customer_claim = claims.customer;
  source.rules.account_claim = claims.account;
  source.rules.security_right_claim = claims.security_right;
  source.rules.consume_license_claim = claims.consume_license;
  return source;
}

std::string secret_in(const config::LoadedConfig& loaded, const std::string& file) {
  return file.empty() ? "" : std::string(config::secret_of_file(loaded.file_texts.at(file)));
}

}  // namespace

std::shared_ptr<const identity::LookupSource> token_lookup(const config::LoadedConfig& loaded) {
  const config::Identity& settings = loaded.settings.identity;
  if (const config::Introspection& wanted = settings.introspection; !wanted.lookup.url.empty()) {
    auto source =
        source_of("identity.introspection", wanted.lookup, wanted.claims, "The access token is not active.");
    source.active = true;
    source.rules.audience = wanted.audience;
    const std::string secret = secret_in(loaded, wanted.client_secret_file);
    append_form(source.more_form, "token_type_hint", "access_token");
    if (wanted.client_auth == "form") {
      append_form(source.more_form, "client_id", wanted.client_id);
      append_form(source.more_form, "client_secret", secret);
    } else if (!wanted.client_id.empty()) {
      source.headers.push_back(identity::basic_of_client(wanted.client_id, secret));
    }
    return std::make_shared<const identity::LookupSource>(std::move(source));
  }
  const config::CurrentUser& wanted = settings.current_user;
  if (wanted.lookup.url.empty()) return nullptr;
  auto source = source_of("identity.current_user", wanted.lookup, wanted.claims,
                          "The CRM does not take this access token, or the token may not read its own user.");
  source.place = identity::LookupSource::Place::header;
  source.field = "Authorization";
  source.prefix = "Zoho-oauthtoken ";
  source.at = wanted.at;
  source.unauthorized_is_nobody = true;
  return std::make_shared<const identity::LookupSource>(std::move(source));
}

std::shared_ptr<const identity::LookupSource> session_lookup(const config::LoadedConfig& loaded) {
  const config::SessionLookup& wanted = loaded.settings.identity.sessions.lookup;
  if (wanted.lookup.url.empty()) return nullptr;
  auto source = source_of("identity.sessions.lookup", wanted.lookup, wanted.claims,
                          "The session has ended: log in again.");
  // What is known of a session stands in the table of sessions, which hears of log-outs.
  source.max_age = Milliseconds(0);
  source.at = wanted.at;
  if (wanted.authorization_file.empty()) {
    source.place = identity::LookupSource::Place::header;
    source.field = "Cookie";
    source.unauthorized_is_nobody = true;
  } else {
    source.field = "session";
    source.headers.push_back("Authorization: " + secret_in(loaded, wanted.authorization_file));
  }
  return std::make_shared<const identity::LookupSource>(std::move(source));
}

Result<licence::Rulebook> load_rulebook(const config::LoadedConfig& loaded) {
  const config::Licensing& licensing = loaded.settings.licensing;
  std::optional<std::string_view> preset = config::preset_text(licensing.system);
  CHECK(preset.has_value(), "the configuration was checked");
  std::string_view text = *preset;
  std::string name = "the built-in rules of " + licensing.system;
  if (!licensing.rules_file.empty()) {
    text = loaded.file_texts.at(licensing.rules_file);
    name = licensing.rules_file;
  }
  // `none` keeps the object names (they spell metrics and counts) and denies nothing.
  Result<licence::Rulebook> rulebook = config::load_rulebook(text, name);
  if (!rulebook) return rulebook;
  if (licensing.system == "none") rulebook->system = "none";
  if (auto applied = config::apply_settings(*rulebook, loaded.settings.catalogue, licensing); !applied)
    return std::unexpected(applied.error());
  return rulebook;
}

Result<std::shared_ptr<const identity::Directory>> load_directory(const config::LoadedConfig& loaded,
                                                                  std::shared_ptr<const CrmUsers> crm) {
  const std::string& file = loaded.settings.licensing.directory_file;
  if (file.empty() && crm == nullptr) return nullptr;
  Result<identity::Directory> parsed{};
  if (!file.empty()) parsed = identity::Directory::parse(loaded.file_texts.at(file));
  if (!parsed) return fail(Origin::config, fmt::format("{}: {}", file, parsed.error().message));
  if (crm != nullptr) parsed = identity::Directory::combine(*parsed, std::move(crm));
  return std::make_shared<const identity::Directory>(std::move(*parsed));
}

namespace {

// What depends on nothing but the configuration and the users of the CRM.
Result<flow::SnapshotParts> base_parts(const config::LoadedConfig& loaded,
                                       std::shared_ptr<const CrmUsers> crm) {
  const config::Settings& settings = loaded.settings;
  auto rulebook = load_rulebook(loaded);
  if (!rulebook) return std::unexpected(rulebook.error());
  auto directory = load_directory(loaded, std::move(crm));
  if (!directory) return std::unexpected(directory.error());
  std::shared_ptr<const identity::ApiKeys> api_keys;
  if (const config::ApiKeys& wanted = settings.identity.api_keys; !wanted.file.empty()) {
    auto parsed = identity::ApiKeys::parse(
        loaded.file_texts.at(wanted.file),
        wanted.secret_file.empty() ? "" : loaded.file_texts.at(wanted.secret_file), directory->get());
    if (!parsed) return fail(Origin::config, fmt::format("{}: {}", wanted.file, parsed.error().message));
    api_keys = std::make_shared<const identity::ApiKeys>(*std::move(parsed));
  }
  std::string pass_secret;
  if (settings.identity.pass.as == config::PassIdentity::token)
    pass_secret = loaded.file_texts.at(settings.identity.pass.secret_file);
  auto schema = config::make_schema(*rulebook, settings.catalogue.uids, settings.catalogue.processes);
  return flow::SnapshotParts{.settings = settings,
                             .rulebook = std::move(*rulebook),
                             .schema = std::move(schema),
                             .directory = *std::move(directory),
                             .key_rings = {},
                             .api_keys = std::move(api_keys),
                             .token_lookup = token_lookup(loaded),
                             .session_lookup = session_lookup(loaded),
                             .pass_secret = std::move(pass_secret)};
}

// What is known of a CRM stays known; of another system nothing is.
std::shared_ptr<licence::OwnerTable> owner_table(const config::Licensing& licensing,
                                                 const licence::Rulebook& rulebook,
                                                 const flow::Snapshot* previous) {
  if (!flow::asks_owners(rulebook)) return nullptr;
  const bool by_table = !rulebook.decisions.empty();
  if (previous != nullptr && previous->owners != nullptr && previous->policy.by_table() == by_table)
    return previous->owners;
  return std::make_shared<licence::OwnerTable>(by_table ? licensing.cherwell.records
                                                        : licensing.creatio.records);
}

}  // namespace

net::CreatioAccess creatio_access(const config::LoadedConfig& loaded, const config::CreatioAccess& wanted) {
  net::CreatioAccess access{.url = wanted.url,
                            .ca_file = wanted.ca_file,
                            .user = wanted.user,
                            .password = secret_in(loaded, wanted.password_file),
                            .authorization = secret_in(loaded, wanted.authorization_file),
                            .client = {.token_url = wanted.oauth.token_url,
                                       .client_id = wanted.oauth.client_id,
                                       .client_secret = secret_in(loaded, wanted.oauth.client_secret_file),
                                       .scope = wanted.oauth.scope},
                            .timeout = wanted.timeout};
  while (access.url.ends_with('/')) access.url.pop_back();
  return access;
}

OwnerLookup owner_lookup(const config::LoadedConfig& loaded, const licence::Rulebook& rulebook,
                         std::shared_ptr<licence::OwnerTable> owners) {
  const config::Licensing& licensing = loaded.settings.licensing;
  if (rulebook.asks_owners) {
    net::CreatioOwners::Columns columns;
    for (const licence::Section& section : rulebook.sections) {
      if (section.own_organization.empty()) continue;
      columns[section.entity] = section.own_organization;
      for (const std::string& view : section.views) columns[view] = section.own_organization;
    }
    return {.name = "licensing.creatio.lookup",
            .source = std::make_unique<net::CreatioOwners>(creatio_access(loaded, licensing.creatio.lookup),
                                                           std::move(columns), std::move(owners)),
            .timeout = licensing.creatio.lookup.timeout};
  }
  const config::OwnerLookupSettings& lookup = licensing.cherwell.lookup;
  if (rulebook.decisions.empty() || lookup.url.empty()) return {};
  return {.name = "licensing.cherwell.lookup",
          .source = std::make_unique<net::CherwellOwners>(
              net::CherwellAccess{.url = lookup.url,
                                  .ca_file = lookup.ca_file,
                                  .user = lookup.user,
                                  .password = secret_in(loaded, lookup.password_file),
                                  .client_id = lookup.client_id,
                                  .auth_mode = lookup.auth_mode},
              licensing.cherwell.owner_fields, std::move(owners)),
          .timeout = lookup.timeout};
}

Result<std::shared_ptr<const flow::Snapshot>> with_crm_users(const config::LoadedConfig& loaded,
                                                             const flow::Snapshot& now,
                                                             std::shared_ptr<const CrmUsers> crm) {
  auto parts = base_parts(loaded, std::move(crm));
  if (!parts) return std::unexpected(parts.error());
  parts->key_rings = now.key_rings;
  parts->lookups = now.lookups;
  parts->sessions = now.sessions;
  parts->owners = now.owners;
  parts->owner_lookup = now.owner_lookup;
  parts->generation = now.generation + 1;
  return flow::make_snapshot(*std::move(parts));
}

Result<Assembled> assemble(const config::LoadedConfig& loaded, std::uint64_t generation,
                           const flow::Snapshot* previous, std::shared_ptr<const CrmUsers> crm,
                           net::KeySetFetcher::Log log) {
  const config::Settings& settings = loaded.settings;
  auto parts = base_parts(loaded, std::move(crm));
  if (!parts) return std::unexpected(parts.error());

  std::vector<net::KeySource> sources;
  for (const config::JwtIssuer& jwt : settings.identity.jwt) {
    auto ring = std::make_shared<identity::KeyRing>();
    if (!jwt.jwks_url.empty())
      if (auto usable = net::check_key_set_url(jwt.jwks_url); !usable) return std::unexpected(usable.error());
    if (auto known = keys_in_use(previous, jwt.jwks_url)) ring->store(std::move(known));
    sources.push_back(source_of(jwt, ring));
    parts->key_rings.push_back(std::move(ring));
  }
  auto keys = std::make_unique<net::KeySetFetcher>(sources, log);
  keys->start();
  const auto statuses = keys->status();
  for (std::size_t i = 0; i < sources.size();
       ++i)  // a URL may come up later; a file that is no key set is a mistake
    if (sources[i].kind != net::KeySource::Kind::url && statuses[i].keys == 0)
      return fail(Origin::config, fmt::format("{}: {}", sources[i].location, statuses[i].last_error));

  auto sessions = session_table(loaded, previous);
  if (!sessions) return std::unexpected(sessions.error());
  parts->sessions = *std::move(sessions);
  parts->lookups = previous == nullptr ? nullptr : previous->lookups;
  if (parts->lookups == nullptr && (parts->token_lookup != nullptr || parts->session_lookup != nullptr)) {
    std::string secret(32, '\0');
    CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(secret.data()), static_cast<int>(secret.size())) == 1,
          "the system gives random bytes");
    parts->lookups =
        std::make_shared<identity::LookupTable>(std::move(secret), settings.identity.lookup_entries);
  }
  auto owners = owner_table(settings.licensing, parts->rulebook, previous);
  std::shared_ptr<net::OwnerFetcher> fetcher;
  if (OwnerLookup lookup = owner_lookup(loaded, parts->rulebook, owners); lookup.source != nullptr)
    fetcher = std::make_shared<net::OwnerFetcher>(
        std::move(lookup.source), lookup.timeout,
        [log](const std::string& line) { log(net::KeySetFetcher::Level::warning, line); });
  parts->generation = generation;
  parts->owners = std::move(owners);
  parts->owner_lookup = fetcher;
  auto snapshot = flow::make_snapshot(*std::move(parts));
  if (!snapshot) return std::unexpected(snapshot.error());
  return Assembled{std::move(*snapshot), std::move(keys), std::move(fetcher)};
}

Result<redis::ConnectionOptions> store_connection(const config::Store& store, const redis::StoreUrl& url,
                                                  const config::LoadedConfig& loaded) {
  redis::ConnectionOptions options{.url = url,
                                   .ca_file = store.ca_file,
                                   .server_name = store.server_name,
                                   .verify = store.verify,
                                   .connect_timeout = store.connect_timeout};
  if (!store.user.empty()) options.url.user = store.user;
  if (!store.password_file.empty())
    options.url.password = config::secret_of_file(loaded.file_texts.at(store.password_file));
  return options;
}

journal::JournalOptions journal_options(const config::Journal& settings, unsigned workers, Log log) {
  journal::JournalOptions options;
  options.directory = settings.directory;
  options.workers = workers;
  options.segment_bytes = settings.segment_size;
  options.cells = settings.accounts;
  options.commit_interval = settings.commit_interval;
  options.retention = settings.retention;
  options.max_bytes = settings.max_size;
  options.version = TOLLGATE_VERSION;
  options.log = std::move(log);
  return options;
}

billing::AbsorberOptions absorber_options(const std::string& directory, journal::Journal& journal, Log log) {
  billing::AbsorberOptions options;
  options.book = directory + "/usage.sqlite";
  options.release = [&journal](const std::string& stream, std::uint64_t below) {
    journal.release_below(stream, below);
  };
  options.make_durable = [&journal] { return journal.commit(); };
  options.log = std::move(log);
  return options;
}

Result<void> check_store_settings(const config::Store& settings, const redis::ConnectionOptions& connection,
                                  const Log& log) {
  redis::ProbeOptions probe;
  probe.timeout = settings.connect_timeout * 2;
  probe.now = [] { return UnixTime(std::chrono::system_clock::now().time_since_epoch()); };
  if (settings.durability == config::Durability::wait) probe.min_replicas = settings.min_replicas;
  const redis::ProbeReport report = redis::probe(connection, probe);
  for (const redis::Finding& finding : report.findings)
    if (finding.level != redis::Finding::Level::ok)
      log("warning", fmt::format("store: {}: {}; {}", finding.subject, finding.text, finding.advice));
  if (!settings.strict) return {};
  std::string problems;
  for (const redis::Finding& finding : redis::strict_problems(report))
    problems += fmt::format("{}{}: {}", problems.empty() ? "" : "; ", finding.text, finding.advice);
  if (problems.empty()) return {};
  return fail(Origin::store, fmt::format("store.strict: {} does not keep the promises: {}",
                                         connection.url.describe(), problems));
}

}  // namespace tollgate::cli
