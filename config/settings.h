// The whole configuration as plain structs with their defaults: the meaning of every key of the YAML file.
// Keys in the file are the member names. parse.h reads them; docs/configuration.md and `tollgate schema`
// describe them. Durations: "250ms", "10s", "5m", "24h", "31d". Sizes: "512", "64KiB", "8MiB", "1GiB". Paths:
// relative to the file.
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "metering/base/time.h"

namespace tollgate::config {

struct ListenerTls {
  struct Certificate {
    std::string certificate_file, key_file, ocsp_file;
  };
  std::string certificate_file, key_file;  // the default certificate (PEM chain, leaf first)
  std::string ocsp_file;                   // its OCSP response (DER), stapled until it expires
  std::vector<Certificate> certificates;   // further ones, chosen by SNI from the names inside them
  std::string client_ca_file;              // set: client certificates are required and verified
  std::string min_version = "1.2";         // "1.2" | "1.3"
  // Secrets that session tickets are sealed with: the first seals, all open. Proxies with equal files take
  // each other's tickets. None: a secret of this process's own.
  std::vector<std::string> ticket_secret_files;
  Milliseconds ticket_rotation{43'200'000};  // the keys made from a secret change so often, at equal moments
};

struct Listener {
  std::string address;  // "127.0.0.1:8080", "[::1]:8080", "0.0.0.0:8080", "unix:/run/tollgate.sock"
  std::optional<ListenerTls> tls;
  bool proxy_protocol = false;                   // a PROXY header (version 1 or 2) begins each connection
  std::vector<std::string> proxy_protocol_from;  // CIDR: who may connect then; empty: anybody
};

struct Admin {
  std::string address = "127.0.0.1:9901";  // "" switches the admin port off
  std::string token_file;                  // bearer token for all but /livez /readyz /metrics /version
};

struct UpstreamTls {
  std::string ca_file;                     // default: the system's store
  bool verify = true;                      // false is for tests: names and chains are not checked
  std::string server_name;                 // SNI and name to verify; default: the host of the server URL
  std::string certificate_file, key_file;  // client certificate
  bool operator==(const UpstreamTls&) const = default;
};

enum class Balance : std::uint8_t { round_robin, least_connections, hash };

// Active checks: once per proxy, not per worker.
struct HealthCheck {
  std::string path;  // "": no checks
  std::string host;  // Host field; "": the server's own
  Milliseconds interval{5'000};
  Milliseconds timeout{2'000};            // of the whole check
  std::uint32_t unhealthy_threshold = 3;  // failed checks in a row that take a server out
  std::uint32_t healthy_threshold = 2;    // passed ones that bring it back
  std::vector<std::string> statuses{"200-399"};
  bool operator==(const HealthCheck&) const = default;
};

// What real calls tell, per worker.
struct Outlier {
  std::uint32_t failures = 5;  // in a row; 0: servers are never left out for failing
  std::vector<std::string> statuses{"502", "503", "504"};  // replies that are failures
  Milliseconds ejection{30'000};
  Milliseconds ejection_max{300'000};
  std::uint32_t max_ejected_percent = 50;
  bool operator==(const Outlier&) const = default;
};

struct Upstream {
  std::string name;
  std::vector<std::string> servers;              // "http://host:port", "https://host:port", "unix:/path"
  std::map<std::string, std::uint64_t> weights;  // server -> 1 .. 1000; 1 for those that are not in it
  Balance balance = Balance::round_robin;
  std::string hash_key = "user";  // user | ip | header:NAME
  UpstreamTls tls;
  Milliseconds resolve_interval{30'000};
  Milliseconds connect_timeout{2'000};
  Milliseconds response_timeout{60'000};     // request sent .. response head
  Milliseconds idle_timeout{60'000};         // between two reads or writes of a body
  Milliseconds keepalive_timeout{55'000};    // idle connection kept in the pool
  std::uint32_t max_idle_connections = 256;  // per worker
  std::uint32_t max_connections = 1'024;     // per worker; beyond it a request waits up to queue_timeout
  Milliseconds queue_timeout{1'000};
  Milliseconds total_timeout{
      0};  // call ready for the upstream .. last byte of the reply, retries included; 0: none
  std::uint32_t max_retries = 1;
  std::vector<std::string> retry_on{"connect", "closed"};  // connect | closed | timeout | 502 | 503 | 504
  std::uint32_t retry_budget =
      20;  // percent of the calls that may be repeated though a server may have received them
  Milliseconds slow_start{0};
  HealthCheck health_check;
  Outlier outlier;
  bool operator==(const Upstream&) const = default;
};

// "200" or "200-399", well-formed: is the status in one of them?
bool has_status(const std::vector<std::string>& ranges, int status);

// What is changed in the fields of a message that is passed on: removed, set (in place of any there), added.
struct FieldEdits {
  std::vector<std::string> remove;
  std::map<std::string, std::string> set, add;
};

// The path that the upstream is asked for. Routes match the path as it was sent; what is classified, licensed
// and counted is the path that the upstream sees (proxy/flow/rewrite.h).
struct Rewrite {
  std::string
      replace_prefix;  // in place of path_prefix; "/" takes it away; "": the path goes on as it was sent
  bool map_replies =
      true;  // addresses in the reply's head are given path_prefix again (proxy/http/reply_paths.h)
};

struct Route {
  std::string host;               // "" matches every Host
  std::string path_prefix = "/";  // longest prefix wins, matched on whole segments of the normalised path
  std::string upstream;
  bool metered = true;         // false: proxied without token, licence or quota (health pages, public assets)
  bool allow_upgrade = true;   // WebSocket and other Upgrade requests
  std::uint64_t max_body = 0;  // largest request body on this route, beside limits.max_body; 0: no limit
  Rewrite rewrite;
  FieldEdits request_fields, reply_fields;
};

enum class OnOutage : std::uint8_t { lease, allow, deny };

// How a grant survives the death of the store's server: replay, the proxies' journals restore what a failover
// lost; wait, a grant is used only when the replicas have confirmed it, so that a failover loses nothing that
// was used.
enum class Durability : std::uint8_t { replay, wait };

struct Store {
  // embedded:DIR | redis://[user[:password]@]host:port/db | rediss://... | redis+unix://PATH?db=0
  // | redis+sentinel://host[:port],.../name[/db] | redis+cluster://host[:port],... (rediss+...: over TLS)
  std::string url = "embedded:redis";
  std::string password_file;  // wins over a password in the URL
  std::string user;
  OnOutage on_outage = OnOutage::lease;
  Milliseconds timeout{50};  // longest a call waits for the store
  Milliseconds connect_timeout{1'000};
  std::string ca_file;      // rediss://: default the system's store
  std::string server_name;  // rediss://: SNI and name to verify; default: the URL's host
  bool verify = true;
  std::string redis_server = "redis-server";  // program started by embedded:
  Durability durability = Durability::replay;
  std::uint32_t min_replicas = 1;  // wait: fewer confirmations are none
  Milliseconds wait_timeout{100};  // wait: longest for these
  bool strict = false;             // refuse to start when the server's settings do not keep the promises
  Milliseconds session{900'000};   // how long leases serve while the store is away
  Milliseconds ping_interval{60'000};
  Milliseconds flush_interval{
      960'000};  // use is settled at the latest after this and a tenth: what dashboards lag behind
  std::uint32_t lease_max = 400;    // tokens lent to one proxy ahead of need, per account
  Milliseconds fence_wait{10'000};  // after a failover: longest wait for proxies that have not replayed
};

enum class OnJournalFailure : std::uint8_t { refuse, proceed };

// Always on: what is billed is what is in it. One directory belongs to one running proxy.
struct Journal {
  std::string directory = "journal";
  std::uint64_t segment_size = 64ULL << 20;
  Milliseconds commit_interval{1'000};  // the most that a power loss takes; a killed process loses nothing
  Milliseconds retention{172'800'000};  // kept at least as long for replays, however soon it is rolled up
  std::uint64_t max_size = 0;           // of all segments; 0: the disk
  std::uint32_t accounts = 262'144;     // quota accounts that leases are kept of: 512 bytes of disk each
  OnJournalFailure on_failure =
      OnJournalFailure::refuse;  // refuse: no metered call while none can be recorded
};

struct AccessLog {
  std::string file = "-";  // "-" is standard output, "" is off
};

struct JwtIssuer {
  std::string issuer;                   // required value of `iss`; "" accepts any
  std::vector<std::string> audience;    // one of them must be in `aud`; empty accepts any
  std::vector<std::string> algorithms;  // HS256.. EdDSA; required
  std::string secret_file;              // exactly one of the three
  std::string jwks_file;
  std::string jwks_url;
  std::string jwks_ca_file;
  Milliseconds jwks_refresh{300'000};      // age at which a set is fetched again
  Milliseconds jwks_min_interval{10'000};  // never more often, whatever tokens arrive
  Milliseconds leeway{30'000};             // for exp, nbf, iat
  bool require_expiry = true;
  struct Claims {
    std::string user = "sub", tenant = "tenant", organization = "org", user_type = "user_type",
                licenses = "licenses", site = "site", customer = "customer", account = "account",
                security_right = "security_right", consume_license = "consume_license";
  } claims;
};

// Whose a credential is, asked of somebody else; metering/identity/lookup.h.
struct Lookup {
  std::string url;  // "": nobody is asked
  std::string ca_file;
  Milliseconds timeout{2'000};
  Milliseconds max_age{60'000};       // of what was answered, when it names somebody
  Milliseconds negative_age{10'000};  // when it names nobody
};

// OAuth token introspection (RFC 7662).
struct Introspection {
  Lookup lookup;
  std::string client_id, client_secret_file;
  std::string client_auth = "basic";  // basic | form
  std::vector<std::string> audience;
  JwtIssuer::Claims claims;
};

// The CRM, asked with the caller's own token who its user is.
struct CurrentUser {
  Lookup lookup;
  std::string at = "/users/0";  // JSON pointer to the user
  JwtIssuer::Claims claims{.user = "email"};
};

// The CRM, asked whose session it is that no log-in was seen of.
struct SessionLookup {
  Lookup lookup;
  std::string
      authorization_file;  // service account: the value of Authorization; "": the session itself is sent
  std::string at;
  JwtIssuer::Claims claims{.user = "user"};
};

// Log-ins that the CRM itself answers are watched, and the session that it opens is the user's from then on.
struct Sessions {
  std::vector<std::string> kinds;  // creatio, cherwell; none: only tokens say who is calling
  std::string secret_file;  // shared by all proxies: the key of the hashes that sessions are stored under
  std::vector<std::string> cookies{".ASPXAUTH",
                                   "BPMLOADER"};  // creatio: the first that a request has is its session
  Milliseconds idle{7'200'000};
  Milliseconds max_age{86'400'000};
  Milliseconds recheck{5'000};      // a session that ended at another proxy may serve for so long
  std::uint32_t entries = 100'000;  // remembered by this proxy; beyond it the store is asked again
  SessionLookup lookup;
};

// What the CRM (or a gateway in front of it) is told of who was found to call. Fields of these names that a
// client sends go no further, whatever `as` says.
enum class PassIdentity : std::uint8_t { none, plain, token };
struct IdentityPass {
  PassIdentity as = PassIdentity::none;
  std::string user_field = "X-Tollgate-User", tenant_field = "X-Tollgate-Tenant",
              organization_field = "X-Tollgate-Organization", user_type_field = "X-Tollgate-User-Type";
  std::string token_field = "X-Tollgate-Identity";
  std::string secret_file;  // token: HS256
  Milliseconds lifetime{60'000};
};

// Keys that callers send instead of a token (metering/identity/api_keys.h).
struct ApiKeys {
  std::string file;  // CSV: hash, user, tenant, organization, license, user_type, expires; "": there are none
  std::string header = "X-API-Key";
  std::string secret_file;  // of keyed hashes
  bool forward = false;     // pass the key on to the upstream
};

// Which part of a client's certificate names the caller; as identity::CertificateName.
enum class CertificateUser : std::uint8_t {
  none,
  subject_cn,
  san_uri,
  san_dns,
  san_email,
  sha256,
  spki_sha256
};

// How OData of Creatio is asked by an account of our own (proxy/net/creatio_conversation.h).
struct CreatioAccess {
  std::string url{};  // "https://crm.example/0": /odata stands below it; "": nobody is asked
  std::string ca_file{};
  std::string user{}, password_file{};  // the service account; or
  std::string authorization_file{};     // the value of Authorization; or
  struct OAuth {                        // a client of the CRM's authorization server
    std::string token_url{}, client_id{}, client_secret_file{}, scope{};
  } oauth{};
  Milliseconds timeout{10'000};
};

// The CRM, asked again and again who its users are (proxy/net/directory_sync.h). The names are those of
// Creatio's entities and columns; metering/identity/creatio_users.h says where they are from.
struct DirectorySync : CreatioAccess {
  std::string system = "creatio";  // the only one
  Milliseconds interval{300'000};
  std::uint32_t page_rows = 5'000, max_rows = 500'000;
  struct Users {
    std::string entity = "SysAdminUnit", filter = "SysAdminUnitTypeValue eq 4", id = "Id", name = "Name",
                active = "Active", type = "ConnectionType", organization = "Contact/Account/Name",
                account = "Contact/Account/Id";
  } users;
  struct Licenses {
    std::string entity = "SysLicUser", user = "SysUserId", name = "SysLicPackage/Name", active = "Active";
  } licenses;
};

struct Identity {
  std::vector<JwtIssuer> jwt;
  DirectorySync directory_sync;  // key: directory.sync
  ApiKeys api_keys;
  CertificateUser certificate_user = CertificateUser::none;
  Introspection introspection;  // of tokens that are no JSON Web Tokens of `jwt`
  CurrentUser current_user;     // the same
  std::uint32_t lookup_entries = 100'000;
  Sessions sessions;
  struct Source {
    std::string header;  // "authorization" (Bearer scheme) or any other header that holds the bare token
    std::string cookie;  // exactly one of the two
  };
  std::vector<Source> sources;  // tried in order; default: Authorization
  std::size_t max_token_bytes = 8 * 1024;
  std::uint32_t token_cache_entries = 65'536;  // per worker
  bool forward_token = true;                   // pass the token on to the upstream
  IdentityPass pass;
};

struct Catalogue {
  std::vector<std::string> dialects{"creatio"};
  std::vector<std::string> custom_sections;  // root entities, at most 3
  std::vector<std::string> custom_prefixes{"Usr"};
  std::vector<std::string> unlicensed_objects;  // entities with a custom prefix that belong to no section
  std::map<std::string, std::vector<std::string>>
      custom_children;                      // custom section root -> its detail entities
  std::map<std::string, std::string> uids;  // schema UId -> entity of this installation
  std::map<std::string, std::string>
      relations;  // "Object.Column" or "*.Column" -> entity that the column points to
  std::map<std::string, std::vector<std::pair<std::string, std::string>>>
      processes;                           // process -> [(entity, operation)]
  bool allow_unknown = true;               // calls whose object or effect cannot be told from the request
  std::size_t max_body = 8 * 1024 * 1024;  // largest body buffered for inspection
};

// A portal user type of Zoho: what its users may do, module by module.
struct PortalUserType {
  std::string name;  // "client"
  std::vector<std::string>
      license_names;  // licences (whole names, any case) that make a user one; empty: the type's name
  std::map<std::string, std::vector<std::string>> modules;  // module -> view, create, edit, delete
};

// How many portal users may be active at once; with every licence system.
struct ConcurrentSeats {
  std::uint64_t capacity = 0;    // 0: as many as there are
  Milliseconds idle{1'200'000};  // how long a seat outlives its holder's last call
};

// Portal users of Zoho that the organisation may have beyond the free ones of its rulebook
// (licence/rulebook.h).
struct PortalSeatSettings {
  std::uint32_t purchased = 0;                 // licences bought, the free ones included
  std::uint32_t client_users_at_release = 0;   // active Client Portal users when the terms changed
  std::vector<std::string> client_user_types;  // ids of the user types that these are of; empty: all types
};

// A One-Step of Cherwell: nothing in a call says what it does.
struct OneStep {
  std::string name;  // "944ab", the part of its stand-in key behind "Id:", or the whole key
  bool alters_data = true;
  std::string kind = "normal";  // normal | journal_entry | rating
  bool rating_field = false;    // rating: a logical or numeric field is configured to hold it
};

// The account with which Cherwell is asked whose a record is that no reply has shown yet.
struct OwnerLookupSettings {
  std::string url;  // "": nobody is asked
  std::string ca_file;
  std::string user, password_file, client_id;
  std::string auth_mode = "Internal";
  Milliseconds timeout{500};
};

// Circumstances of Cherwell's licence rules that no call tells.
struct CherwellLicensing {
  std::vector<std::string> always_use_sites;  // portals on which everything takes a licence
  std::string always_site_view = "deny";      // deny | free: there, for who may not take one
  bool consume_license = true;                // may users of whom nothing is said take one?
  bool security_right = true;                 // and see records of others, as far as the CRM lets them?
  std::vector<OneStep> one_steps;
  std::vector<std::string> journal_objects;  // records of these below another are journal entries
  std::vector<std::string> owner_fields{
      "CustomerRecID"};              // name or id of the fields that hold a record's requester
  std::uint32_t records = 100'000;   // whose owners this proxy remembers
  Milliseconds record_age{300'000};  // and for how long
  OwnerLookupSettings lookup;
};

// What a licence costs, in place of the rulebook's price (metering/licence/price.h).
struct LicensePrice {
  std::string name;  // id of a product, or of a pool of seats: "concurrent", "portal_users"
  std::uint64_t minor_units = 0;
  std::string currency;
  std::string per = "user";    // user | named_seat | concurrent_seat | call
  std::string every = "year";  // year | month; of calls: neither
  std::uint64_t included = 0;  // units of the whole installation that cost nothing
  std::string source, as_of;
};

// Sections that the rulebook opens for one's own organization only: whose single records are.
struct CreatioLicensing {
  std::uint32_t records = 100'000;   // whose owners this proxy remembers
  Milliseconds record_age{300'000};  // and for how long
  CreatioAccess lookup{.timeout = Milliseconds(2'000)};
};

struct Licensing {
  std::string system = "bpmonline";  // bpmonline | creatio_partner | zoho | cherwell | none
  std::string edition;  // which of the vendor's documents applies where they disagree; "": the preset's own
  std::vector<std::string> main_products;
  std::uint32_t main_product_users = 0;
  std::string directory_file;              // CSV: user, organization, license, user_type, certificate
  std::string rules_file;                  // a rulebook of one's own instead of the preset
  std::vector<PortalUserType> user_types;  // zoho
  PortalSeatSettings portal_seats;         // zoho
  CherwellLicensing cherwell;
  CreatioLicensing creatio;
  ConcurrentSeats concurrent_seats;
  std::vector<LicensePrice> prices;
  Milliseconds seat_lease{30'000};  // how long a seat is taken for held without having heard of the store
};

// shadow: a candidate limit. Counted and evaluated beside the enforced ones and reported; it refuses nothing.
enum class QuotaMode : std::uint8_t { enforce, shadow };

struct QuotaRule {
  std::string name;
  QuotaMode mode = QuotaMode::enforce;
  std::uint64_t limit = 0;
  Milliseconds window{86'400'000};
  Milliseconds bucket{0};  // 0: chosen from the window
  std::vector<std::string> per{"user"};
  std::string on = "licensed";
  bool staff = false;  // bind staff too
  std::map<std::string, std::uint64_t> overrides;
};

// What one client address (IPv4, or IPv6 /64) may do, all workers together. 0: no limit; a burst of 0 is one
// second's worth.
struct PerAddress {
  std::uint32_t connections = 0;
  std::uint32_t connection_rate = 0, connection_burst = 0;  // new connections a second
  std::uint32_t request_rate = 0, request_burst = 0;        // requests a second
  std::vector<std::string> exempt;                          // CIDR
};

struct Limits {
  std::size_t max_header_bytes = 64 * 1024;
  std::size_t max_request_line = 16 * 1024;
  std::uint32_t max_header_count = 128;
  std::uint64_t max_body = 0;              // 0: no limit
  std::uint32_t max_connections = 20'000;  // per worker
  std::size_t buffer = 64 * 1024;          // per direction of one exchange; beyond it the sender is paused
  // Bytes a second below which a client that is waited for is cut off; 0: none. 240 is what Kestrel asks for.
  std::uint64_t min_body_rate = 240;   // of a request body
  std::uint64_t min_reply_rate = 240;  // taken of a reply
  Milliseconds rate_window{10'000};    // over which these are judged
  PerAddress per_address;
};

// When a worker cannot keep up, anonymous requests are turned away before metered ones
// (proxy/net/overload.h).
struct OverloadSettings {
  Milliseconds lag{250};     // lateness of the event loop that does not pass; 0: is no reason
  std::uint64_t memory = 0;  // of this process; 0: 90 % of what the control group or the machine has
};

struct Timeouts {
  Milliseconds tls_handshake{10'000};
  Milliseconds request_head{10'000};  // first byte .. end of head
  Milliseconds request_body{60'000};  // between two reads of the body
  Milliseconds client_idle{75'000};   // keep-alive connection without a request
  Milliseconds client_write{60'000};  // client that does not read
  Milliseconds upgrade_idle{3'600'000};
  Milliseconds drain{30'000};   // SIGTERM: longest wait for calls in flight
  Milliseconds drain_delay{0};  // SIGTERM: /readyz says no for this long before listeners close
};

struct Proxy {
  std::vector<std::string> trusted_proxies;  // CIDR; only these may set X-Forwarded-* and Forwarded
  std::string problem_base_url =
      "https://tollgate.example/problems/";   // prefix of `type` in problem documents
  bool odata_errors = true;                   // add the OData error object for callers that accept OData JSON
  std::string rate_limit_headers = "always";  // always | never
  bool legacy_rate_limit_headers = false;     // X-RateLimit-Limit/-Remaining/-Reset too
  std::string via;                            // pseudonym for Via of forwarded requests; "": none
};

struct Settings {
  int version = 1;
  std::uint32_t workers = 0;  // 0: one per core
  std::vector<Listener> listeners;
  Admin admin;
  std::vector<Upstream> upstreams;
  std::vector<Route> routes;
  Store store;
  Journal journal;
  AccessLog access_log;
  Identity identity;
  Catalogue catalogue;
  Licensing licensing;
  std::vector<QuotaRule> quotas;
  bool usage_by_object = true;  // count per (object, operation) for GET /.tollgate/usage
  Limits limits;
  OverloadSettings overload;
  Timeouts timeouts;
  Proxy proxy;
  std::string base_directory;  // folder of the file: what relative paths are relative to; not a key
};

}  // namespace tollgate::config
