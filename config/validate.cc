#include "config/validate.h"

#include <fmt/format.h>

#include <algorithm>

#include "config/suggest.h"
#include "config/values.h"
#include "metering/base/ascii.h"

namespace tollgate::config {
namespace {

// More buckets than this in one window only cost memory in the store.
constexpr std::int64_t kBucketsMax = 100'000;

class Validator {
 public:
  explicit Validator(ParseOutcome& outcome) : outcome_(outcome), settings_(outcome.settings) {}

  void run() {
    check_listeners();
    check_admin();
    for (const Upstream& upstream : settings_.upstreams) check_upstream(upstream);
    check_routes();
    check_store();
    check_leases();
    check_journal();
    check_identity();
    check_catalogue();
    check_licensing();
    check_quotas();
    check_limits();
  }

 private:
  void report(Severity severity, const std::string& path, std::string message) {
    Position at = position_of(outcome_.positions, path);
    outcome_.diagnostics.push_back({at.file, at.line, at.column, severity, std::move(message)});
  }
  void error(const std::string& path, std::string message) {
    report(Severity::error, path, std::move(message));
  }
  void warn(const std::string& path, std::string message) {
    report(Severity::warning, path, std::move(message));
  }
  bool set(const std::string& path) const { return outcome_.positions.contains(path); }
  std::string where(const std::string& path) const {
    Position at = position_of(outcome_.positions, path);
    return at.line == 0 ? at.file : fmt::format("line {}", at.line);
  }

  static bool any_port(const std::string& address) { return address.ends_with(":0"); }

  void check_pair(const std::string& path, const std::string& certificate, const std::string& key) {
    if (certificate.empty() != key.empty())
      error(path, fmt::format("{}: certificate_file and key_file go together; {} is missing", path,
                              certificate.empty() ? "certificate_file" : "key_file"));
  }

  void check_listeners() {
    const auto& listeners = settings_.listeners;
    for (std::size_t i = 0; i < listeners.size(); ++i) {
      std::string path = fmt::format("listeners[{}]", i);
      for (std::size_t j = 0; j < i; ++j)
        if (listeners[j].address == listeners[i].address && !listeners[i].address.empty() &&
            !any_port(listeners[i].address))
          error(path + ".address", fmt::format("{} is there twice; first in {}", listeners[i].address,
                                               where(fmt::format("listeners[{}].address", j))));
      if (!listeners[i].proxy_protocol && !listeners[i].proxy_protocol_from.empty())
        warn(path + ".proxy_protocol_from",
             fmt::format("{}.proxy_protocol_from is without effect: proxy_protocol is not set", path));
      if (!listeners[i].tls) continue;
      const ListenerTls& tls = *listeners[i].tls;
      check_pair(path + ".tls", tls.certificate_file, tls.key_file);
      if (tls.certificate_file.empty() && tls.key_file.empty())
        error(path + ".tls",
              fmt::format("{}.tls needs certificate_file and key_file, the default certificate", path));
    }
  }

  void check_admin() {
    const Admin& admin = settings_.admin;
    if (admin.address.empty()) return;
    for (const Listener& listener : settings_.listeners)
      if (listener.address == admin.address && !any_port(admin.address))
        error("admin.address", fmt::format("admin.address {} is a listener too", admin.address));
    if (admin.address.starts_with("unix:"))
      error("admin.address", "admin.address has to be an IP address and a port");
    bool loopback = admin.address.starts_with("127.") || admin.address.starts_with("[::1]");
    if (!loopback && admin.token_file.empty())
      warn("admin.address",
           fmt::format("the admin port {} can be reached from other machines and has no token_file",
                       admin.address));
  }

  void check_upstream(const Upstream& upstream) {
    std::string path = fmt::format("upstreams.{}", upstream.name);
    check_pair(path + ".tls", upstream.tls.certificate_file, upstream.tls.key_file);
    bool https = std::any_of(upstream.servers.begin(), upstream.servers.end(),
                             [](const std::string& url) { return url.starts_with("https://"); });
    const UpstreamTls& tls = upstream.tls;
    bool tls_settings =
        !tls.ca_file.empty() || !tls.verify || !tls.server_name.empty() || !tls.certificate_file.empty();
    if (tls_settings && !https && !upstream.servers.empty())
      warn(path + ".tls",
           fmt::format("{}.tls is without effect: no server of it begins with https://", path));
    std::vector<std::string_view> servers(upstream.servers.begin(), upstream.servers.end());
    for (const auto& [server, weight] : upstream.weights)
      if (std::find(servers.begin(), servers.end(), server) == servers.end())
        error(path + ".weights." + server, fmt::format("{}.weights: \"{}\" is none of its servers{}", path,
                                                       server, did_you_mean(server, servers)));
    if (set(path + ".hash_key") && upstream.balance != Balance::hash)
      warn(path + ".hash_key", fmt::format("{}.hash_key is without effect: balance is not hash", path));
    if (upstream.health_check.timeout > upstream.health_check.interval)
      error(set(path + ".health_check.timeout") ? path + ".health_check.timeout"
                                                : path + ".health_check.interval",
            fmt::format("{}.health_check: timeout ({}) is longer than interval ({})", path,
                        duration_text(upstream.health_check.timeout),
                        duration_text(upstream.health_check.interval)));
    if (upstream.health_check.path.empty())
      for (std::string_view key :
           {"host", "interval", "timeout", "unhealthy_threshold", "healthy_threshold", "statuses"})
        if (set(fmt::format("{}.health_check.{}", path, key)))
          warn(fmt::format("{}.health_check.{}", path, key),
               fmt::format("{}.health_check.{} is without effect: there is no path", path, key));
    if (https && !upstream.tls.verify)
      warn(path + ".tls.verify", fmt::format("{}: certificates of this upstream are not checked", path));
  }

  // Fields by which messages are framed and connections kept, and those that say where a request comes from,
  // are the proxy's own.
  void check_own_field(const std::string& path, std::string_view name) {
    static constexpr std::string_view kOwn[] = {
        "connection",  "content-length",  "transfer-encoding", "te",
        "trailer",     "upgrade",         "keep-alive",        "proxy-connection",
        "host",        "expect",          "max-forwards",      "date",
        "forwarded",   "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
        "x-request-id"};
    if (std::ranges::any_of(kOwn, [&](std::string_view own) { return equals_ignore_case(own, name); }))
      error(path, fmt::format("{}: {} is set by the proxy itself", path, name));
  }
  void check_edits(const std::string& path, const FieldEdits& edits) {
    for (const std::string& name : edits.remove) check_own_field(path + ".remove", name);
    for (const auto& [kind, fields] : {std::pair{".set", &edits.set}, std::pair{".add", &edits.add}})
      for (const auto& [name, value] : *fields) {
        check_own_field(path + kind, name);
        if (std::ranges::any_of(value, [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 127; }))
          error(path + kind,
                fmt::format("{}{}: the value of {} holds a control character", path, kind, name));
      }
  }

  void check_rewrite(const std::string& path, const Route& route) {
    const std::string at = path + ".rewrite";
    if (route.rewrite.replace_prefix.empty()) {
      if (set(at + ".map_replies"))
        warn(at + ".map_replies",
             fmt::format("{}.map_replies is without effect: there is no replace_prefix", at));
      return;
    }
    // A slash inside a quoted key may be sent encoded: the end of such a prefix is not found by counting slashes.
    if (route.path_prefix.find_first_of("'(") != std::string::npos)
      error(at, fmt::format("{}: a path_prefix with quotes or parentheses cannot be replaced", at));
  }

  void check_routes() {
    std::vector<std::string_view> names;
    for (const Upstream& upstream : settings_.upstreams) names.push_back(upstream.name);
    const auto& routes = settings_.routes;
    for (std::size_t i = 0; i < routes.size(); ++i) {
      std::string path = fmt::format("routes[{}]", i);
      const std::string& upstream = routes[i].upstream;
      if (!upstream.empty() && std::find(names.begin(), names.end(), upstream) == names.end())
        error(path + ".upstream", fmt::format("{}.upstream: there is no upstream \"{}\"{}", path, upstream,
                                              did_you_mean(upstream, names)));
      check_edits(path + ".request_fields", routes[i].request_fields);
      check_edits(path + ".reply_fields", routes[i].reply_fields);
      check_rewrite(path, routes[i]);
      for (std::size_t j = 0; j < i; ++j)
        if (routes[j].host == routes[i].host &&
            equals_ignore_case(routes[j].path_prefix, routes[i].path_prefix))
          error(path, fmt::format("{} has the host and path_prefix of routes[{}] in {}", path, j,
                                  where(fmt::format("routes[{}]", j))));
    }
  }

  void check_store() {
    const Store& store = settings_.store;
    bool tls = store.url.starts_with("rediss");
    if (!store.password_file.empty() && !password_of_url(store.url).empty())
      error("store.password_file",
            "store: password_file and a password in the URL contradict each other: keep one");
    if (store.url.starts_with("embedded:") && (!store.password_file.empty() || !store.user.empty()))
      error("store", "store: an embedded store has no user and no password");
    std::string_view idle = !store.ca_file.empty()       ? "ca_file"
                            : !store.server_name.empty() ? "server_name"
                            : !store.verify              ? "verify"
                                                         : "";
    if (!tls && !idle.empty())
      warn(fmt::format("store.{}", idle),
           fmt::format("store.{} is without effect: store.url does not begin with rediss", idle));
    if (tls && !store.verify) warn("store.verify", "store: the certificate of the store is not checked");
  }

  void check_leases() {
    const Store& store = settings_.store;
    if (store.session < 3 * store.ping_interval)
      error(
          set("store.session") ? "store.session" : "store.ping_interval",
          fmt::format(
              "store.session ({}) is shorter than three times store.ping_interval ({}): one lost ping would "
              "void every lease",
              duration_text(store.session), duration_text(store.ping_interval)));
    const bool wait = store.durability == Durability::wait;
    if (wait && store.url.starts_with("embedded:"))
      error("store.durability",
            "store.durability: an embedded store has no replicas to wait for: use replay");
    std::string_view idle = store.min_replicas != Store{}.min_replicas   ? "min_replicas"
                            : store.wait_timeout != Store{}.wait_timeout ? "wait_timeout"
                                                                         : "";
    if (!wait && !idle.empty())
      warn(fmt::format("store.{}", idle),
           fmt::format("store.{} is without effect: store.durability is not wait", idle));
  }

  void check_journal() {
    const Journal& journal = settings_.journal;
    if (journal.segment_size % 4'096 != 0)
      error("journal.segment_size", fmt::format("journal.segment_size ({}) is not a multiple of 4KiB",
                                                size_text(journal.segment_size)));
    // Each stream writes one segment and has the next one ready: one stream a worker, one for the rest.
    const std::uint64_t least =
        2 * (std::max<std::uint64_t>(settings_.workers, 1) + 1) * journal.segment_size;
    if (journal.max_size > 0 && journal.max_size < least)
      error("journal.max_size",
            fmt::format("journal.max_size ({}) has no room for two segments of {} a worker and two "
                        "more: at least {}",
                        size_text(journal.max_size), size_text(journal.segment_size), size_text(least)));
    if (journal.retention < settings_.store.session)
      error(
          set("journal.retention") ? "journal.retention" : "store.session",
          fmt::format(
              "journal.retention ({}) is shorter than store.session ({}): what is replayed after a failover "
              "would be gone",
              duration_text(journal.retention), duration_text(settings_.store.session)));
    for (std::size_t i = 0; i < settings_.quotas.size(); ++i) {
      const QuotaRule& rule = settings_.quotas[i];
      if (rule.mode == QuotaMode::shadow || rule.window <= journal.retention) continue;
      warn(fmt::format("quotas[{}].window", i),
           fmt::format(
               "quotas[{}].window ({}) is longer than journal.retention ({}): a store that loses everything "
               "could not be filled again wholly",
               i, duration_text(rule.window), duration_text(journal.retention)));
    }
    if (journal.on_failure == OnJournalFailure::proceed)
      warn("journal.on_failure",
           "journal.on_failure: with continue, calls that cannot be recorded are served and never billed");
  }

  void check_issuer(const JwtIssuer& jwt, const std::string& path) {
    std::vector<std::string> sources;
    if (!jwt.secret_file.empty()) sources.emplace_back("secret_file");
    if (!jwt.jwks_file.empty()) sources.emplace_back("jwks_file");
    if (!jwt.jwks_url.empty()) sources.emplace_back("jwks_url");
    if (sources.empty()) error(path, fmt::format("{} needs one of secret_file, jwks_file, jwks_url", path));
    if (sources.size() > 1)
      error(path + "." + sources[1],
            fmt::format("{}: {} contradict each other: keep one", path, fmt::join(sources, " and ")));
    for (const std::string& algorithm : jwt.algorithms)
      if (sources.size() == 1 && sources[0] == "secret_file" && !algorithm.starts_with("HS"))
        error(path + ".algorithms",
              fmt::format("{}: {} needs a public key (jwks_file or jwks_url); a secret_file "
                          "serves HS256, HS384 and HS512 only",
                          path, algorithm));
    if (starts_with_ignore_case(jwt.jwks_url, "http://") && !is_loopback_url(jwt.jwks_url))
      warn(path + ".jwks_url",
           fmt::format("{}.jwks_url: whoever is between can replace the keys; use https://", path));
    if (!jwt.jwks_ca_file.empty() && jwt.jwks_url.empty())
      warn(path + ".jwks_ca_file",
           fmt::format("{}.jwks_ca_file is without effect: there is no jwks_url", path));
  }
  static bool is_loopback_url(std::string_view url) {
    std::string_view host = url.substr(url.find("://") + 3);
    host = host.substr(0, host.find_first_of("/?#"));
    if (const std::size_t at = host.rfind('@'); at != std::string_view::npos) host.remove_prefix(at + 1);
    if (host.starts_with('[')) return host.starts_with("[::1]");
    host = host.substr(0, host.find(':'));
    return equals_ignore_case(host, "localhost") ||
           (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string_view::npos);
  }

  void check_sessions(const Sessions& sessions) {
    if (sessions.kinds.empty()) {
      for (std::string_view key : {"secret_file", "cookies", "idle", "max_age", "recheck", "entries"})
        if (const std::string path = fmt::format("identity.sessions.{}", key); set(path))
          warn(path, fmt::format("{} is without effect: identity.sessions.kinds is empty", path));
      return;
    }
    if (sessions.secret_file.empty())
      error("identity.sessions",
            "identity.sessions needs secret_file, the same on all proxies: openssl rand -base64 32 > FILE");
    const auto& dialects = settings_.catalogue.dialects;
    for (const std::string& kind : sessions.kinds)
      if (std::find(dialects.begin(), dialects.end(), kind) == dialects.end())
        error(
            "identity.sessions.kinds",
            fmt::format("identity.sessions.kinds: {} is not in catalogue.dialects: its log-ins would not be "
                        "recognised",
                        kind));
    if (sessions.recheck > sessions.idle)
      error(set("identity.sessions.recheck") ? "identity.sessions.recheck" : "identity.sessions.idle",
            fmt::format("identity.sessions: recheck ({}) is longer than idle ({})",
                        duration_text(sessions.recheck), duration_text(sessions.idle)));
  }

  void check_api_keys(const Identity& identity) {
    const ApiKeys& keys = identity.api_keys;
    if (keys.file.empty()) {
      for (std::string_view key : {"header", "secret_file", "forward"})
        if (const std::string path = fmt::format("identity.api_keys.{}", key); set(path))
          warn(path, fmt::format("{} is without effect: there is no identity.api_keys.file", path));
      return;
    }
    const std::string path = "identity.api_keys.header";
    check_own_field(path, keys.header);
    const bool source = std::ranges::any_of(
        identity.sources, [&](const auto& s) { return equals_ignore_case(s.header, keys.header); });
    if (source || equals_ignore_case(keys.header, "authorization") ||
        equals_ignore_case(keys.header, "cookie"))
      error(path, fmt::format("{}: {} holds other credentials", path, keys.header));
  }

  void check_certificates(CertificateUser user) {
    if (user == CertificateUser::none) return;
    const std::string path = "identity.client_certificate.user";
    if (std::ranges::none_of(settings_.listeners,
                             [](const Listener& l) { return l.tls && !l.tls->client_ca_file.empty(); }))
      error(path, fmt::format("{}: no listener asks for certificates: listeners[].tls.client_ca_file", path));
    if ((user == CertificateUser::sha256 || user == CertificateUser::spki_sha256) &&
        settings_.licensing.directory_file.empty())
      error(path, fmt::format("{}: a fingerprint is somebody's only by the column certificate of "
                              "licensing.directory_file",
                              path));
  }

  void check_lookup(const Lookup& lookup, const std::string& path) {
    if (lookup.url.empty()) {
      for (std::string_view key :
           {"ca_file", "timeout", "max_age", "negative_age", "client_id", "client_secret_file", "client_auth",
            "audience", "claims", "at", "authorization_file"})
        if (set(fmt::format("{}.{}", path, key)))
          warn(fmt::format("{}.{}", path, key),
               fmt::format("{}.{} is without effect: there is no url", path, key));
      return;
    }
    if (starts_with_ignore_case(lookup.url, "http://") && !is_loopback_url(lookup.url))
      error(path + ".url",
            fmt::format("{}.url: whoever is between reads the credentials; use https://", path));
  }

  void check_lookups(const Identity& identity) {
    check_lookup(identity.introspection.lookup, "identity.introspection");
    check_lookup(identity.current_user.lookup, "identity.current_user");
    check_lookup(identity.sessions.lookup.lookup, "identity.sessions.lookup");
    if (!identity.introspection.lookup.url.empty() && !identity.current_user.lookup.url.empty())
      error("identity.current_user.url",
            "identity.current_user.url: identity.introspection tells whose a token is already; keep one");
    const auto watches = [&](std::string_view kind) {
      return std::ranges::find(identity.sessions.kinds, kind) != identity.sessions.kinds.end();
    };
    if (!identity.sessions.lookup.lookup.url.empty() && !watches("creatio"))
      error("identity.sessions.lookup.url",
            "identity.sessions.lookup.url needs creatio in identity.sessions.kinds");
    for (const auto& [path, url] :
         {std::pair{"identity.introspection.url", &identity.introspection.lookup.url},
          std::pair{"identity.current_user.url", &identity.current_user.lookup.url}})
      if (!url->empty() && watches("cherwell"))
        error(path, fmt::format(
                        "{}: identity.sessions.kinds with cherwell tells whose a token is already; keep one",
                        path));
  }

  void check_directory_sync(const DirectorySync& sync) {
    const std::string path = "identity.directory.sync";
    if (sync.url.empty()) {
      if (set(path)) warn(path, fmt::format("{} is without effect: there is no url", path));
      return;
    }
    check_creatio_access(path, sync);
  }

  void check_creatio_access(const std::string& path, const CreatioAccess& access) {
    if (starts_with_ignore_case(access.url, "http://") && !is_loopback_url(access.url))
      error(path + ".url", fmt::format("{}.url: whoever is between reads the password; use https://", path));
    if (access.url.find_first_of("?#") != access.url.npos)
      error(path + ".url", fmt::format("{}.url: /odata is put behind it; it may have neither ? nor #", path));
    const CreatioAccess::OAuth& oauth = access.oauth;
    const bool client =
        !oauth.token_url.empty() && !oauth.client_id.empty() && !oauth.client_secret_file.empty();
    if (set(path + ".oauth") && !client)
      error(path + ".oauth", fmt::format("{}.oauth needs token_url, client_id and client_secret_file", path));
    if (starts_with_ignore_case(oauth.token_url, "http://") && !is_loopback_url(oauth.token_url))
      error(path + ".oauth.token_url",
            fmt::format("{}.oauth.token_url: whoever is between reads the secret; use https://", path));
    if (oauth.token_url.find('#') != oauth.token_url.npos)
      error(path + ".oauth.token_url", fmt::format("{}.oauth.token_url: a token endpoint has no #", path));
    const bool account = !access.user.empty() || !access.password_file.empty();
    if (account && (access.user.empty() || access.password_file.empty()))
      error(path, fmt::format("{} needs user and password_file together", path));
    if (account + !access.authorization_file.empty() + set(path + ".oauth") != 1)
      error(path,
            fmt::format("{} needs one way to log in: user and password_file, authorization_file, or oauth",
                        path));
  }

  void check_creatio_licensing(const Licensing& licensing) {
    const std::string path = "licensing.creatio";
    const bool creatio = licensing.system == "bpmonline" || licensing.system == "creatio_partner";
    if (!creatio && set(path))
      warn(path, fmt::format("{} is without effect: licensing.system is {}", path, licensing.system));
    if (!creatio) return;
    if (!licensing.creatio.lookup.url.empty())
      check_creatio_access(path + ".lookup", licensing.creatio.lookup);
    else if (set(path))
      warn(path, fmt::format("{} is without effect: lookup has no url", path));
  }

  void check_pass(const Identity& identity) {
    const IdentityPass& pass = identity.pass;
    if (pass.as == PassIdentity::token && pass.secret_file.empty())
      error("identity.pass", "identity.pass: as: token needs secret_file");
    if (pass.as != PassIdentity::token && !pass.secret_file.empty())
      warn("identity.pass.secret_file", "identity.pass.secret_file is without effect: as is not token");
    const std::pair<std::string_view, std::string_view> fields[] = {
        {"user_field", pass.user_field},
        {"tenant_field", pass.tenant_field},
        {"organization_field", pass.organization_field},
        {"user_type_field", pass.user_type_field},
        {"token_field", pass.token_field}};
    for (std::size_t i = 0; i < std::size(fields); ++i) {
      const auto& [key, name] = fields[i];
      const std::string path = fmt::format("identity.pass.{}", key);
      check_own_field(path, name);
      for (std::size_t j = 0; j < i; ++j)
        if (equals_ignore_case(fields[j].second, name))
          error(path, fmt::format("{}: {} is identity.pass.{} already", path, name, fields[j].first));
      const bool credential = std::ranges::any_of(
          identity.sources, [&](const auto& s) { return equals_ignore_case(s.header, name); });
      const bool api_key =
          !identity.api_keys.file.empty() && equals_ignore_case(name, identity.api_keys.header);
      if (credential || api_key || equals_ignore_case(name, "authorization") ||
          equals_ignore_case(name, "cookie"))
        error(path, fmt::format("{}: {} holds clients' credentials", path, name));
    }
  }

  void check_identity() {
    const Identity& identity = settings_.identity;
    for (std::size_t i = 0; i < identity.jwt.size(); ++i)
      check_issuer(identity.jwt[i], fmt::format("identity.jwt[{}]", i));
    bool metered = settings_.routes.empty() || std::any_of(settings_.routes.begin(), settings_.routes.end(),
                                                           [](const Route& r) { return r.metered; });
    if (identity.jwt.empty() && identity.sessions.kinds.empty() && identity.api_keys.file.empty() &&
        identity.certificate_user == CertificateUser::none && identity.introspection.lookup.url.empty() &&
        identity.current_user.lookup.url.empty() && metered)
      error("identity",
            "identity.jwt is missing (or sessions, api_keys, client_certificate, introspection, "
            "current_user): calls "
            "on metered routes cannot be authenticated");
    check_lookups(identity);
    check_directory_sync(identity.directory_sync);
    check_api_keys(identity);
    check_certificates(identity.certificate_user);
    check_sessions(identity.sessions);
    check_pass(identity);
    for (std::size_t i = 0; i < identity.sources.size(); ++i)
      if (identity.sources[i].header.empty() == identity.sources[i].cookie.empty())
        error(fmt::format("identity.sources[{}]", i),
              fmt::format("identity.sources[{}] needs exactly one of header and cookie", i));
    if (identity.max_token_bytes > settings_.limits.max_header_bytes)
      warn("identity.max_token_bytes", "identity.max_token_bytes is larger than limits.max_header_bytes");
  }

  void check_catalogue() {
    const Catalogue& catalogue = settings_.catalogue;
    std::vector<std::string_view> roots(catalogue.custom_sections.begin(), catalogue.custom_sections.end());
    for (const auto& [root, children] : catalogue.custom_children)
      if (std::none_of(roots.begin(), roots.end(), [&](auto name) { return equals_ignore_case(name, root); }))
        error("catalogue.custom_children." + root,
              fmt::format("catalogue.custom_children: \"{}\" is not in custom_sections{}", root,
                          did_you_mean(root, roots)));
  }

  void check_licensing() {
    const Licensing& licensing = settings_.licensing;
    const bool cherwell = licensing.system == "cherwell";
    if (licensing.system != "none" && !cherwell && licensing.rules_file.empty() &&
        licensing.main_products.empty())
      warn("licensing.main_products",
           "licensing.main_products is empty: portal products that need a certain main product are not "
           "available");
    const bool zoho = licensing.system == "zoho";
    if (zoho && !speaks("zoho"))
      error("licensing.system",
            "licensing.system zoho needs zoho in catalogue.dialects, or no call would be recognised");
    if (zoho && licensing.rules_file.empty() && licensing.user_types.empty())
      warn("licensing.user_types",
           "licensing.user_types is empty: no portal user may do anything; name a type and its modules");
    if (!zoho && !licensing.user_types.empty())
      error("licensing.user_types",
            fmt::format("licensing.user_types belong to zoho; licensing.system is {}", licensing.system));
    if (!zoho &&
        (licensing.portal_seats.purchased > 0 || licensing.portal_seats.client_users_at_release > 0 ||
         !licensing.portal_seats.client_user_types.empty()))
      error("licensing.portal_seats",
            fmt::format("licensing.portal_seats belong to zoho; licensing.system is {}", licensing.system));
    for (const PortalUserType& type : licensing.user_types)
      for (std::string_view pool : {"portal_users", "concurrent"})
        if (type.name == pool)
          error("licensing.user_types." + type.name,
                fmt::format("licensing.user_types: {} is the name of a pool of seats; choose another", pool));
    const auto& dialects = settings_.catalogue.dialects;
    if (cherwell && std::find(dialects.begin(), dialects.end(), "cherwell") == dialects.end())
      error("licensing.system",
            "licensing.system cherwell needs cherwell in catalogue.dialects, or no call would be recognised");
    if (!cherwell && set("licensing.cherwell"))
      warn("licensing.cherwell",
           fmt::format("licensing.cherwell is without effect: licensing.system is {}", licensing.system));
    const OwnerLookupSettings& lookup = licensing.cherwell.lookup;
    if (!lookup.url.empty() && (lookup.user.empty() || lookup.password_file.empty()))
      error("licensing.cherwell.lookup", "licensing.cherwell.lookup needs user and password_file");
    check_creatio_licensing(licensing);
    const ConcurrentSeats& seats = licensing.concurrent_seats;
    if (seats.capacity > 0 && seats.idle < 2 * licensing.seat_lease)
      error("licensing.concurrent_seats.idle",
            "licensing.concurrent_seats.idle is shorter than twice licensing.seat_lease");
  }

  bool speaks(std::string_view dialect) const {
    const std::vector<std::string>& dialects = settings_.catalogue.dialects;
    return std::find(dialects.begin(), dialects.end(), dialect) != dialects.end();
  }

  void check_quotas() {
    const auto& quotas = settings_.quotas;
    for (std::size_t i = 0; i < quotas.size(); ++i) {
      std::string path = fmt::format("quotas[{}]", i);
      const QuotaRule& rule = quotas[i];
      auto per = [&](std::string_view name) {
        return std::find(rule.per.begin(), rule.per.end(), name) != rule.per.end();
      };
      for (std::size_t j = 0; j < i; ++j)
        if (quotas[j].name == rule.name && !rule.name.empty())
          error(path + ".name", fmt::format("quota \"{}\" is there twice; first in {}", rule.name,
                                            where(fmt::format("quotas[{}].name", j))));
      if (rule.bucket > rule.window)
        error(path + ".bucket", fmt::format("{}.bucket is longer than its window", path));
      else if (rule.bucket.count() > 0 && rule.window / rule.bucket > kBucketsMax)
        error(path + ".bucket",
              fmt::format("{}: the window has {} buckets, at most {} are allowed: choose a longer bucket",
                          path, rule.window / rule.bucket, kBucketsMax));
      if (!rule.overrides.empty() && !per("user") && !per("organization"))
        error(path + ".overrides", fmt::format("{}.overrides needs user or organization in \"per\"", path));
      if (rule.on == "credits" && !speaks("zoho"))
        error(path + ".on", fmt::format("{}: credits are Zoho's; zoho is not in catalogue.dialects", path));
      if (rule.on == "credits")
        for (std::string_view dimension : {"product", "object", "operation"})
          if (per(dimension))
            error(path + ".per", fmt::format("{}: credits are counted by call, not by {}", path, dimension));
      if (rule.on == "all")
        for (std::string_view dimension : {"product", "object", "operation"})
          if (per(dimension))
            warn(path + ".per",
                 fmt::format("{}: calls counted with \"on: all\" have no {}", path, dimension));
    }
  }

  void check_limits() {
    const Limits& limits = settings_.limits;
    if (limits.max_request_line > limits.max_header_bytes)
      error(set("limits.max_request_line") ? "limits.max_request_line" : "limits.max_header_bytes",
            fmt::format("limits.max_request_line ({}) is larger than limits.max_header_bytes ({})",
                        size_text(limits.max_request_line), size_text(limits.max_header_bytes)));
  }

  ParseOutcome& outcome_;
  const Settings& settings_;
};

}  // namespace

Position position_of(const Positions& positions, std::string path) {
  while (!path.empty()) {
    if (auto found = positions.find(path); found != positions.end()) return found->second;
    std::size_t end = path.find_last_of(".[");
    path.resize(end == std::string::npos ? 0 : end);
  }
  auto root = positions.find("");
  return root == positions.end() ? Position{} : root->second;
}

void validate(ParseOutcome& outcome) {
  Validator(outcome).run();
}

}  // namespace tollgate::config
