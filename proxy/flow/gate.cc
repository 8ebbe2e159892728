#include "proxy/flow/gate.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/catalogue/url.h"
#include "metering/identity/cherwell_login.h"
#include "metering/identity/creatio_login.h"
#include "proxy/flow/credentials.h"
#include "proxy/flow/reply.h"
#include "proxy/flow/rewrite.h"

namespace tollgate::flow {
namespace {

constexpr std::string_view kOwnPrefix = "/.tollgate";
constexpr std::string_view kTwoUsers = "The request carries credentials of two different users.";
constexpr std::string_view kUsagePath = "/.tollgate/usage";

Next reply_with(Call& call, LocalReply reply) {
  call.reason = reply.reason;
  call.reply = std::move(reply);
  return Next::reply;
}

Next refuse(Call& call, Reason reason, std::string_view detail) {
  return reply_with(call, problem(call, reason, detail));
}

// A browser asks before a call from another site, and may send no token with it (Fetch standard, section 4.8).
// It does nothing by itself: the CRM says what it allows.
bool is_preflight(const http::RequestHead& head) {
  if (head.method != "OPTIONS" || head.framing != http::Framing::none) return false;
  bool origin = false, method = false;
  for (const http::Field& field : head.fields) {
    if (equals_ignore_case(field.name, "Origin")) origin = true;
    if (equals_ignore_case(field.name, "Access-Control-Request-Method")) method = true;
    if (starts_with_ignore_case(field.name, "X-HTTP-Method") ||
        starts_with_ignore_case(field.name, "X-Method-Override"))
      return false;  // some frameworks would take it for another method
  }
  return origin && method;
}

Next shed(Call& call) {
  call.shed = true;
  return refuse(call, Reason::overloaded,
                "This proxy is too busy for requests without a token at the moment.");
}

// Does the caller read OData errors? It says so by an OData version field or by an Accept with an OData parameter.
bool accepts_odata(const http::RequestHead& head) {
  for (const http::Field& field : head.fields) {
    if (equals_ignore_case(field.name, "OData-Version") ||
        equals_ignore_case(field.name, "OData-MaxVersion") ||
        equals_ignore_case(field.name, "DataServiceVersion") ||
        equals_ignore_case(field.name, "MaxDataServiceVersion"))
      return true;
    if (!equals_ignore_case(field.name, "Accept")) continue;
    if (field.value.size() < std::string_view("application/json;odata").size()) continue;
    const std::string accept = to_lower(field.value);
    if (accept.find("application/json") != std::string::npos && accept.find("odata") != std::string::npos)
      return true;
  }
  return false;
}

quota::Caller caller_of(const identity::Principal& principal) {
  return {.tenant = principal.tenant,
          .organization = principal.organization,
          .user = principal.user,
          .staff = principal.is_staff()};
}

// What new members of these user types may fill of the portal's seats.
std::uint64_t capacity_for(const Snapshot& snapshot, const catalogue::PortalChange& change) {
  const std::vector<std::string>& client = snapshot.settings.licensing.portal_seats.client_user_types;
  const bool all_client = client.empty() || std::ranges::all_of(change.user_types, [&](const auto& type) {
                            return std::ranges::find(client, type) != client.end();
                          });
  const licence::PortalSeats& seats = snapshot.policy.rulebook().portal_seats;
  return all_client ? seats.capacity() : seats.capacity_of_others();
}

// Who has to be asked before it is known who calls.
std::optional<Next> awaited(const Call& call) {
  if (call.session != nullptr && call.session->asks) return Next::find_session;
  if (call.lookup != nullptr && call.lookup->asks) return Next::look_up;
  return std::nullopt;
}

// RFC 7515 section 7.1: three parts, the first of them a JSON object in base64url, so that it begins with "ey".
bool is_jwt(std::string_view token) {
  return token.starts_with("ey") && std::count(token.begin(), token.end(), '.') == 2;
}

// What is not said about a tenant contradicts nothing.
bool same_caller(const identity::Principal& a, const identity::Principal& b) {
  return a.user == b.user && (a.tenant == b.tenant || a.tenant.empty() || b.tenant.empty());
}

// What is watched for: a log-in of which CRM.
bool watches(const Snapshot& snapshot, identity::SessionKind kind) {
  const auto& kinds = snapshot.settings.identity.sessions.kinds;
  return std::ranges::find(kinds, identity::name(kind)) != kinds.end();
}

// A token that the CRM made, not an issuer of identity.jwt: three parts with two dots are those of the others (RFC 7515
// section 3.1).
bool is_session_token(const Snapshot& snapshot, std::string_view token) {
  return watches(snapshot, identity::SessionKind::cherwell) &&
         (snapshot.settings.identity.jwt.empty() || std::ranges::count(token, '.') != 2);
}

identity::SessionStep step_of(identity::SessionKind kind, const http::RequestHead& head,
                              std::string_view lower_path) {
  return kind == identity::SessionKind::cherwell ? identity::cherwell_step(head.method, lower_path)
                                                 : identity::creatio_step(head.method, lower_path);
}

bool may_be_anonymous(catalogue::Kind kind) {
  return kind == catalogue::Kind::authentication || kind == catalogue::Kind::asset;
}

// Is the requester of a record this user?
bool is_requester(const identity::Principal& principal, std::string_view owner) {
  return !owner.empty() && (equals_ignore_case(owner, principal.user) ||
                            (!principal.customer.empty() && equals_ignore_case(owner, principal.customer)));
}

bool contains_ignore_case(std::string_view text, std::string_view part) {
  return std::ranges::search(text, part, [](char a, char b) {
           return ascii_lower(a) == ascii_lower(b);
         }).begin() != text.end();
}

}  // namespace

Gate::Gate(std::size_t token_cache_entries, std::uint64_t hash_seed)
    : cache_(token_cache_entries, hash_seed) {}

void Gate::forget(Call& call) {
  constexpr std::size_t kKept = 8, kTextKept = 1024;  // one large batch must not make the worker large
  if (call.charges.capacity() > 0 && call.charges.size() <= kKept) spare_charges_ = std::move(call.charges);
  const auto emptied = [](auto& list) {
    auto memory = list.capacity() <= kKept ? std::move(list) : std::remove_reference_t<decltype(list)>{};
    memory.clear();
    return memory;
  };
  auto uses = emptied(call.classification.uses);
  auto units = emptied(call.decision.units);
  auto states = emptied(call.states);
  auto items = emptied(call.receipt.items);
  const auto emptied_text = [](std::string& text) {
    std::string memory = text.capacity() <= kTextKept ? std::move(text) : std::string();
    memory.clear();
    return memory;
  };
  std::string request_id = emptied_text(call.request_id), fields = emptied_text(call.response_fields);
  std::destroy_at(&call);  // half the work of assigning a new one
  std::construct_at(&call);
  call.classification.uses = std::move(uses);
  call.decision.units = std::move(units);
  call.states = std::move(states);
  call.receipt.items = std::move(items);
  call.request_id = std::move(request_id);
  call.response_fields = std::move(fields);
}

void Gate::fail(Call& call, Reason reason, std::string_view detail) {
  call.reason = reason;
  call.reply = problem(call, reason, detail);
}

catalogue::Request Gate::request_of(const Call& call, const http::RequestHead& head, std::string_view body) {
  headers_.clear();
  for (const http::Field& field : head.fields) headers_.push_back({field.name, field.value});
  // What is forwarded is the origin-form, also of a target sent in absolute-form, with the path that the upstream gets.
  std::string_view target = head.target;
  if (!call.upstream_path.empty() || (!target.starts_with('/') && head.path != "*")) {
    target_.assign(call.upstream_path.empty() ? head.path : call.upstream_path);
    if (head.has_query) target_.append("?").append(head.query);
    target = target_;
  }
  return {.method = head.method, .target = target, .headers = headers_, .body = body};
}

Next Gate::on_head(Call& call, const http::RequestHead& head, UnixTime now) {
  CHECK(call.snapshot != nullptr, "an exchange has a snapshot");
  const Snapshot& snapshot = *call.snapshot;
  call.odata_reply = snapshot.settings.proxy.odata_errors && accepts_odata(head);
  call.upstream_path.clear();  // of the time before the store was asked for the session

  if (strips_token(snapshot.settings.identity, head))
    return refuse(call, Reason::bad_request, "Connection names a field that holds the caller's credentials.");
  catalogue::Request request = request_of(call, head, {});
  std::string_view path = "/";
  if (head.path != "*") {
    if (auto read = catalogue::normalise(request.target, path_); !read)
      return refuse(call, Reason::bad_request, read.error().message);
    request.path = &path_;
    path = path_.path;
  }
  const bool own =
      path.starts_with(kOwnPrefix) && (path.size() == kOwnPrefix.size() || path[kOwnPrefix.size()] == '/');
  if (own) {
    if (path != kUsagePath)
      return refuse(call, Reason::not_found, "There is no such page. Try /.tollgate/usage.");
    if (head.method != "GET" && head.method != "HEAD")
      return refuse(call, Reason::not_implemented, "/.tollgate/usage answers GET only.");
    auto refusal = authenticate(call, head, now);
    if (const auto next = awaited(call)) return *next;
    if (refusal) return reply_with(call, std::move(*refusal));
    return begin_usage(call);
  }

  call.route = find_route(snapshot.settings, head.authority, path);
  if (call.route == nullptr)
    return refuse(call, Reason::not_found, "No route leads from this host and path to a CRM.");
  if (call.route->max_body != 0 && head.framing == http::Framing::length &&
      head.content_length > call.route->max_body)
    return refuse(call, Reason::body_too_large, "The request body is larger than this route accepts.");
  if (rewrites(*call.route) && request.path != nullptr) {
    call.upstream_path = rewritten_path(*call.route, head.path, path_);
    request = request_of(call, head, {});
    if (auto read = catalogue::normalise(request.target, path_); !read)
      return refuse(call, Reason::bad_request, read.error().message);
    request.path = &path_;
  }
  if (snapshot.sessions != nullptr) [[unlikely]]
    if (auto next = begin_login(call, head, request)) return *next;
  if (!call.route->metered || is_preflight(head)) return call.no_anonymous ? shed(call) : Next::forward;

  call.tell(&Life::enter, Phase::authenticate);
  std::optional<LocalReply> refusal = authenticate(call, head, now);
  if (const auto next = awaited(call)) return *next;
  if (call.session != nullptr && call.session->record != nullptr && request.path != nullptr) [[unlikely]]
    call.session->step = step_of(call.session->kind, head, request.path->lower);
  if (!refusal && call.session != nullptr && call.session->counted) [[unlikely]]
    refusal = check_site(call, request);
  if (!refusal) call.tell(&Life::authenticated, call);
  if (refusal) {
    // Who is about to log in has no token yet, and browsers send none for scripts and pictures.
    if (snapshot.classifier.body_need(request) == catalogue::BodyNeed::none) {
      catalogue::Classification seen = snapshot.classifier.classify(request);
      if (may_be_anonymous(seen.kind)) {
        if (call.no_anonymous) return shed(call);
        call.classification = std::move(seen);
        return Next::forward;
      }
    }
    return reply_with(call, std::move(*refusal));
  }
  if (head.framing != http::Framing::none &&
      snapshot.classifier.body_need(request) == catalogue::BodyNeed::whole) {
    if (head.framing == http::Framing::length && head.content_length > snapshot.settings.catalogue.max_body)
      return refuse(call, Reason::body_uninspectable,
                    "This kind of request must be inspected and is too large for that.");
    return Next::need_body;
  }
  return decide(call, request, now);
}

Next Gate::on_session(Call& call, const http::RequestHead& head, SessionAnswer answer, UnixTime now) {
  call.session->answer = std::move(answer);
  call.session->asks = false;
  if (call.session->step == identity::SessionStep::log_in) return on_refresh(call, look_up(call, now));
  return on_head(call, head, now);
}

Next Gate::on_lookup(Call& call, const http::RequestHead& head,
                     std::shared_ptr<const identity::LookupVerdict> verdict, UnixTime now) {
  call.lookup->verdict = std::move(verdict);
  call.lookup->asks = false;
  return on_head(call, head, now);
}

// nullopt: it is none.
std::optional<Next> Gate::begin_login(Call& call, const http::RequestHead& head,
                                      const catalogue::Request& request) {
  std::optional<identity::SessionKind> kind;
  for (const auto each : {identity::SessionKind::creatio, identity::SessionKind::cherwell})
    if (request.path != nullptr && watches(*call.snapshot, each) &&
        step_of(each, head, request.path->lower) == identity::SessionStep::log_in)
      kind = each;
  if (!kind) return std::nullopt;
  catalogue::Classification seen = call.snapshot->classifier.classify(request);
  if (seen.kind != catalogue::Kind::authentication) return std::nullopt;
  call.classification = std::move(seen);
  if (call.no_anonymous) return shed(call);
  if (http::find(head.fields, "Content-Encoding") != nullptr)
    return refuse(call, Reason::unsupported_media_type, "The body of a log-in must not be compressed.");
  if (head.framing == http::Framing::length && head.content_length > kLoginBodyMax)
    return refuse(call, Reason::body_uninspectable, "The body of a log-in is too large.");
  call.session = std::make_unique<CallSession>();
  call.session->kind = *kind;
  call.session->step = identity::SessionStep::log_in;
  return Next::need_body;
}

Next Gate::read_login(Call& call, const http::RequestHead& head, std::string_view body) {
  CallSession& session = *call.session;
  if (session.kind == identity::SessionKind::creatio) {
    auto user = identity::creatio_login_user(body);
    if (!user) return refuse(call, Reason::bad_request, user.error().message);
    session.user = *std::move(user);
    return Next::forward;
  }
  auto login = identity::read_cherwell_login(head.query, body);
  if (!login) return refuse(call, Reason::bad_request, login.error().message);
  session.site = std::move(login->site);
  session.refresh = !login->refresh_token.empty();
  if (!session.refresh) return Next::forward;
  session.key = call.snapshot->sessions->secret().key_of(session.kind, call.route->upstream,
                                                         identity::refresh_credential(login->refresh_token));
  return Next::find_session;
}

// Whose refresh token it is: who he becomes says the CRM, but not a site that he never logged in to.
Next Gate::on_refresh(Call& call, SessionState state) {
  CallSession& session = *call.session;
  if (state == SessionState::unavailable)
    return refuse(call, Reason::store_unavailable,
                  "Whose refresh token this is cannot be found out at the moment; try again.");
  if (state != SessionState::known || (!session.site.empty() && session.site != session.record->site))
    return reply_with(call, unauthorized(call, Reason::token_invalid,
                                         "The refresh token is not known here, has ended, or is of another "
                                         "site: log in again."));
  session.site = session.record->site;
  return Next::forward;
}

// A session of one portal site is nobody's at another.
std::optional<LocalReply> Gate::check_site(Call& call, const catalogue::Request& request) {
  if (call.session->kind != identity::SessionKind::cherwell || request.path == nullptr) return std::nullopt;
  const auto site = identity::cherwell_site(request.path->path, request.path->query);
  if (!site)
    return problem(call, Reason::bad_request, "The address names two sites, or one that is no name.");
  if (site->empty() || *site == call.session->record->site) return std::nullopt;
  return unauthorized(call, Reason::token_invalid, "The token is of another site: log in to this one.");
}

Next Gate::on_body(Call& call, const http::RequestHead& head, std::string_view body, UnixTime now) {
  if (call.session != nullptr && call.session->step == identity::SessionStep::log_in) {
    const Next next = read_login(call, head, body);
    if (next != Next::find_session) return next;
    const SessionState state = look_up(call, now);
    return state == SessionState::asks ? next : on_refresh(call, state);
  }
  call.tell(&Life::enter, Phase::classify);
  return decide(call, request_of(call, head, body), now);
}

std::optional<LocalReply> Gate::authenticate(Call& call, const http::RequestHead& head, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  std::uint64_t keys = 0;
  for (const auto& ring : snapshot.key_rings) keys += ring->version();
  if (generation_ != snapshot.generation || keys_version_ != keys) {
    cache_.clear();  // rules or keys changed: every token has to prove itself again
    generation_ = snapshot.generation;
    keys_version_ = keys;
  }
  call.without_token = false;
  auto other = find_key_owner(snapshot, head, now);
  if (!other) return unauthorized(call, other.error().reason, other.error().detail);
  auto certified = find_certificate_owner(call, now);
  if (!certified) return unauthorized(call, certified.error().reason, certified.error().detail);
  if (*certified != nullptr) [[unlikely]] {
    if (*other == nullptr)
      other = *std::move(certified);
    else if (!same_caller((*other)->principal, (*certified)->principal))
      return unauthorized(call, Reason::token_invalid, kTwoUsers);
  }
  auto token = find_token(snapshot.settings.identity, head);
  if (snapshot.sessions == nullptr) [[likely]]
    return settle_caller(call, token, *std::move(other), now);
  if (token && is_session_token(snapshot, *token)) {
    auto refusal = authenticate_session_token(call, *token, head, now);
    if (refusal || *other == nullptr || awaited(call) ||
        same_caller(call.token->principal, (*other)->principal))
      return refusal;
    return unauthorized(call, Reason::token_invalid, kTwoUsers);
  }
  const auto session = look_for_session(call, head, now);
  if (!session) return unauthorized(call, session.error().reason, session.error().detail);
  if (*session == SessionState::asks) return std::nullopt;
  if (token || *other != nullptr || token.error().reason != Reason::token_missing ||
      *session == SessionState::none) {
    auto refusal = settle_caller(call, token, *std::move(other), now);
    if (!refusal && call.token != nullptr && *session != SessionState::none) {
      const auto& record = call.session->record;
      call.session->foreign =
          record == nullptr || identity::session_user(call.token->principal.user) != record->user;
    }
    return refusal;
  }
  if (*session == SessionState::unavailable)
    return problem(call, Reason::store_unavailable,
                   "Whose session this is cannot be found out at the moment; try again.");
  if (*session == SessionState::unknown) {
    auto refusal = look_up_session(call, head, now);
    if (refusal || awaited(call)) return refusal;
  }
  take_session(call, now);
  return std::nullopt;
}

std::expected<Gate::Proof, identity::TokenRefusal> Gate::find_key_owner(const Snapshot& snapshot,
                                                                        const http::RequestHead& head,
                                                                        UnixTime now) {
  if (snapshot.api_keys == nullptr) [[likely]]
    return nullptr;
  const auto key = find_api_key(snapshot.settings.identity.api_keys, head);
  if (!key) return std::unexpected(key.error());
  if (!*key) return nullptr;
  return snapshot.api_keys->find(**key, now);
}

std::expected<Gate::Proof, identity::TokenRefusal> Gate::find_certificate_owner(const Call& call,
                                                                                UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  const auto kind = static_cast<identity::CertificateName>(snapshot.settings.identity.certificate_user);
  if (call.certificate == nullptr || kind == identity::CertificateName::none) [[likely]]
    return nullptr;
  if (auto known = cache_.find(call.certificate->cache_id(), now)) return known;
  auto owner = identity::caller_of(*call.certificate, kind, snapshot.directory.get(), now);
  if (owner && *owner != nullptr) cache_.insert(call.certificate->cache_id(), *owner);
  return owner;
}

std::optional<LocalReply> Gate::settle_caller(
    Call& call, const std::expected<std::string_view, identity::TokenRefusal>& token, Proof other,
    UnixTime now) {
  if (token) {
    auto refusal = authenticate_token(call, *token, now);
    if (refusal || call.token == nullptr || other == nullptr) return refusal;
    if (same_caller(call.token->principal, other->principal)) return std::nullopt;
    return unauthorized(call, Reason::token_invalid, kTwoUsers);
  }
  if (other == nullptr || token.error().reason != Reason::token_missing)
    return unauthorized(call, token.error().reason, token.error().detail);
  call.token = std::move(other);
  call.without_token = true;
  return std::nullopt;
}

std::expected<Gate::SessionState, identity::TokenRefusal> Gate::look_for_session(
    Call& call, const http::RequestHead& head, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  if (!watches(snapshot, identity::SessionKind::creatio)) return SessionState::none;
  const auto cookie = find_session(snapshot.settings.identity.sessions, head);
  if (!cookie) return std::unexpected(cookie.error());
  const config::Route* route =
      call.route != nullptr ? call.route : find_route(snapshot.settings, head.authority, "/");
  if (!*cookie || route == nullptr) return SessionState::none;
  if (call.session == nullptr) {
    call.session = std::make_unique<CallSession>();
    call.session->cookie = (*cookie)->name;
    call.session->key =
        snapshot.sessions->secret().key_of(identity::SessionKind::creatio, route->upstream, (*cookie)->value);
  }
  return look_up(call, now);
}

Gate::SessionState Gate::look_up(Call& call, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  CallSession& session = *call.session;
  if (session.answer) {
    session.record = session.answer->record;
    if (session.answer->unavailable) return SessionState::unavailable;
    return session.record != nullptr ? SessionState::known : SessionState::unknown;
  }
  auto found = snapshot.sessions->find(session.key, now, session_times(snapshot));
  session.record = std::move(found.record);
  session.asks = found.state == identity::SessionTable::State::absent ||
                 found.state == identity::SessionTable::State::stale;
  if (session.asks) return SessionState::asks;
  return session.record != nullptr ? SessionState::known : SessionState::unknown;
}

std::optional<LocalReply> Gate::authenticate_session_token(Call& call, std::string_view token,
                                                           const http::RequestHead& head, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  const config::Route* route =
      call.route != nullptr ? call.route : find_route(snapshot.settings, head.authority, "/CherwellAPI");
  if (call.session == nullptr && route != nullptr &&
      token.size() <= snapshot.settings.identity.max_token_bytes) {
    call.session = std::make_unique<CallSession>();
    call.session->kind = identity::SessionKind::cherwell;
    call.session->key = snapshot.sessions->secret().key_of(call.session->kind, route->upstream, token);
  }
  switch (call.session == nullptr ? SessionState::unknown : look_up(call, now)) {
    case SessionState::asks:
      return std::nullopt;
    case SessionState::known:
      take_session(call, now);
      return std::nullopt;
    case SessionState::unavailable:
      return problem(call, Reason::store_unavailable,
                     "Whose token this is cannot be found out at the moment; try again.");
    case SessionState::unknown:
    case SessionState::none:
      break;
  }
  return unauthorized(call, Reason::token_invalid,
                      "The access token is not known here, or has ended: log in again.");
}

// What a record says is kept with what the directory adds to it, under the session's key and the record's own words:
// no token can spell these bytes, and a session that changes hands is another entry.
void Gate::take_session(Call& call, UnixTime now) {
  const identity::SessionRecord& record = *call.session->record;
  call.session->counted = true;
  session_id_.assign(reinterpret_cast<const char*>(call.session->key.data()), call.session->key.size());
  session_id_.push_back(static_cast<char>(record.user_type));
  session_id_.append(record.user).append(1, '\0').append(record.site);
  call.token = cache_.find(session_id_, now);
  if (call.token != nullptr) return;
  identity::VerifiedToken known;
  known.principal.user = record.user;
  known.principal.user_type = record.user_type;
  known.principal.site = record.site;
  known.not_before = UnixTime::min();
  known.expires_at = record.deadline;
  if (const identity::Directory* directory = call.snapshot->directory.get())
    known.principal = directory->apply_folded(std::move(known.principal));
  call.token = std::make_shared<const identity::VerifiedToken>(std::move(known));
  cache_.insert(session_id_, call.token);
}

std::optional<LocalReply> Gate::authenticate_token(Call& call, std::string_view token, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  call.token = cache_.find(token, now);
  if (call.token != nullptr) return std::nullopt;
  if (snapshot.token_lookup != nullptr && (snapshot.key_rings.empty() || !is_jwt(token)))
    return look_up_token(call, token, now);
  auto verified = snapshot.verifier.verify(token, now);
  if (!verified) return unauthorized(call, verified.error().reason, verified.error().detail);
  call.token = std::move(*verified);
  if (snapshot.directory != nullptr) {
    auto known = std::make_shared<identity::VerifiedToken>(*call.token);
    known->principal = snapshot.directory->apply(std::move(known->principal));
    call.token = std::move(known);
  }
  cache_.insert(token, call.token);
  return std::nullopt;
}

void Gate::find_owner(Call& call, const std::shared_ptr<const identity::LookupSource>& source,
                      std::string_view credential, UnixTime now) {
  if (call.lookup != nullptr) return;  // the answer is there
  identity::LookupTable& table = *call.snapshot->lookups;
  call.lookup = std::make_unique<CallLookup>();
  call.lookup->source = source;
  call.lookup->key = table.key_of(identity::lookup_identity(*source), credential);
  call.lookup->verdict = table.find(call.lookup->key, now);
  call.lookup->asks = call.lookup->verdict == nullptr;
  if (call.lookup->asks) call.lookup->credential = credential;
}

std::optional<LocalReply> Gate::look_up_token(Call& call, std::string_view token, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  if (token.size() > snapshot.settings.identity.max_token_bytes)
    return unauthorized(call, Reason::token_invalid, "The access token is too long.");
  find_owner(call, snapshot.token_lookup, token, now);
  if (call.lookup->asks) return std::nullopt;
  const auto& verdict = call.lookup->verdict;
  if (verdict == nullptr)
    return problem(call, Reason::identity_unavailable,
                   "Whose token this is cannot be found out at the moment; try again.");
  if (verdict->user == nullptr) return unauthorized(call, verdict->refusal.reason, verdict->refusal.detail);
  call.token = verdict->user;
  if (snapshot.directory != nullptr) {
    auto known = std::make_shared<identity::VerifiedToken>(*call.token);
    known->principal = snapshot.directory->apply(std::move(known->principal));
    call.token = std::move(known);
  }
  cache_.insert(token, call.token);
  return std::nullopt;
}

std::optional<LocalReply> Gate::look_up_session(Call& call, const http::RequestHead& head, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  constexpr std::string_view kUnknown = "The session is not known here, or has ended: log in again.";
  if (snapshot.session_lookup == nullptr) return unauthorized(call, Reason::token_invalid, kUnknown);
  const auto cookie = find_session(snapshot.settings.identity.sessions, head);
  CHECK(cookie && *cookie, "it was there before");
  const bool asked_as_caller = snapshot.session_lookup->place == identity::LookupSource::Place::header;
  std::string credential(asked_as_caller ? (*cookie)->name : "");
  if (asked_as_caller) credential += '=';
  find_owner(call, snapshot.session_lookup, credential.append((*cookie)->value), now);
  if (call.lookup->asks) return std::nullopt;
  const auto& verdict = call.lookup->verdict;
  if (verdict == nullptr)
    return problem(call, Reason::identity_unavailable,
                   "Whose session this is cannot be found out at the moment; try again.");
  const auto user =
      verdict->user == nullptr ? std::nullopt : identity::session_user(verdict->user->principal.user);
  if (!user) return unauthorized(call, Reason::token_invalid, kUnknown);
  CallSession& session = *call.session;
  session.learnt = true;
  session.record = std::make_shared<const identity::SessionRecord>(
      identity::SessionRecord{.kind = identity::SessionKind::creatio,
                              .user = *user,
                              .user_type = verdict->user->principal.user_type,
                              .deadline = now + snapshot.settings.identity.sessions.max_age});
  return std::nullopt;
}

void Gate::look_at_owners(Call& call, const catalogue::Request& request, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  const config::CherwellLicensing& settings = snapshot.settings.licensing.cherwell;
  call.owners.clear();
  for (const catalogue::ObjectUse& use : call.classification.uses) {
    auto& owner = call.owners.emplace_back(licence::Owner::unknown);
    const bool alters =
        use.operation == catalogue::Operation::edit || use.operation == catalogue::Operation::execute;
    call.learns = call.learns || !alters;
    if (use.record.empty()) continue;
    const auto known = snapshot.owners->find(call.route->upstream, use.record, now, settings.record_age);
    if (known)
      owner = is_requester(call.token->principal, *known) ? licence::Owner::own : licence::Owner::other;
    for (const std::string& field : settings.owner_fields)
      if (alters && contains_ignore_case(request.body, field)) call.moves_owner = true;
  }
}

// Would it be decided otherwise if what is unknown were the caller's own?
bool Gate::hangs_on_owners(const Call& call) const {
  if (unknown_owners(call).empty()) return false;
  std::vector<licence::Owner> owners = call.owners;
  std::ranges::replace(owners, licence::Owner::unknown, licence::Owner::own);
  const licence::Decision other =
      call.snapshot->policy.decide(call.token->principal, call.classification, {}, owners);
  return other.reason != call.decision.reason || other.consumes != call.decision.consumes;
}

std::vector<std::string> Gate::unknown_owners(const Call& call) {
  std::vector<std::string> records;
  const auto& uses = call.classification.uses;
  for (std::size_t i = 0; i < uses.size() && records.size() < kOwnersAskedMax; ++i) {
    const std::string& record = uses[i].record;
    const bool named = !record.empty() && !record.ends_with("//");
    if (named && call.owners[i] == licence::Owner::unknown &&
        std::ranges::find(records, record) == records.end())
      records.push_back(record);
  }
  return records;
}

Next Gate::on_owners(Call& call, const http::RequestHead& head, std::string_view body, UnixTime now) {
  call.owners_asked = true;
  return decide(call, request_of(call, head, body), now);
}

Next Gate::decide(Call& call, const catalogue::Request& request, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  const identity::Principal& principal = call.token->principal;
  call.classification = snapshot.classifier.classify(request, std::move(call.classification));
  const catalogue::Classification& seen = call.classification;
  call.tell(&Life::classified, call);
  switch (seen.kind) {
    case catalogue::Kind::reject:
      return refuse(call, seen.unsupported_media ? Reason::unsupported_media_type : Reason::bad_request,
                    seen.reject_detail);
    case catalogue::Kind::unknown:
      if (!snapshot.settings.catalogue.allow_unknown && !principal.is_staff())
        return refuse(call, Reason::section_not_licensed,
                      "It cannot be told from this request what it touches, and such requests are not let "
                      "through here.");
      break;
    default:
      break;
  }
  if (snapshot.owners != nullptr) [[unlikely]]
    look_at_owners(call, request, now);
  call.decision = snapshot.policy.decide(principal, seen, std::move(call.decision), call.owners);
  if (snapshot.owner_lookup != nullptr && !call.owners_asked && hangs_on_owners(call)) [[unlikely]]
    return Next::find_owners;
  if (call.decision.reason != Reason::ok) return refuse(call, call.decision.reason, call.decision.detail);

  if (snapshot.owners != nullptr) [[unlikely]] {
    call.seats_needed = call.decision.consumes ? snapshot.concurrent_pool : 0;
    return call.seats_needed != 0 ? Next::seat : begin_charge(call);
  }
  if (!snapshot.seat_pools.empty() && call.decision.metered && !principal.is_staff()) {
    call.seats_needed = snapshot.concurrent_pool;
    for (std::size_t i = 0; i < snapshot.pool_of_product.size(); ++i)
      if ((call.decision.seat_products >> i & 1) != 0) call.seats_needed |= snapshot.pool_of_product[i];
    if (call.seats_needed != 0) return Next::seat;
  }
  if (seen.portal != nullptr && snapshot.portal_pool != nullptr) [[unlikely]] {
    call.portal = std::make_unique<CallPortal>();
    call.portal->pool = snapshot.portal_pool->pool;
    call.portal->pool.capacity = capacity_for(snapshot, *seen.portal);
    if (seen.portal->way == catalogue::PortalChange::Way::add) return Next::seat;
  }
  return begin_charge(call);
}

const seats::Pool& Gate::wanted_seat(const Call& call) {
  if (call.portal != nullptr) return call.portal->pool;
  CHECK(call.seats_needed != 0, "asked for after Next::seat");
  return call.snapshot->seat_pools[static_cast<std::size_t>(std::countr_zero(call.seats_needed))].pool;
}

Next Gate::on_seat(Call& call, const seats::Outcome& outcome) {
  const seats::Pool& pool = wanted_seat(call);
  switch (outcome.status) {
    case seats::Outcome::Status::held:
      if (outcome.taken) call.response_fields.append("License-Seat: ").append(pool.id).append(";taken\r\n");
      break;
    case seats::Outcome::Status::full:
      return reply_with(call, seat_refused(call, outcome));
    case seats::Outcome::Status::unavailable:
      call.degraded = true;
      if (call.snapshot->settings.store.on_outage != config::OnOutage::allow)
        return reply_with(call, seat_unavailable(call, outcome));
      break;
  }
  call.seats_needed &= call.seats_needed - 1;
  return call.seats_needed != 0 ? Next::seat : begin_charge(call);
}

Next Gate::begin_charge(Call& call) {
  const Snapshot& snapshot = *call.snapshot;
  operations_.clear();
  for (const licence::Unit& unit : call.decision.units)
    operations_.push_back(
        {.object = unit.object, .operation = catalogue::name(unit.operation), .product = unit.product});
  if (call.charges.capacity() == 0) call.charges = std::move(spare_charges_);
  quota::Caller caller = caller_of(call.token->principal);
  caller.credits = call.classification.credits;
  snapshot.rules.list_charges(caller, operations_, call.charges);
  call.tell(&Life::decided, call);
  return call.charges.empty() ? Next::forward : Next::charge;
}

Next Gate::on_charge(Call& call, quota::ChargeOutcome&& outcome) {
  switch (outcome.status) {
    case quota::ChargeOutcome::Status::admitted:
      std::swap(call.states, outcome.states);
      std::swap(call.receipt, outcome.receipt);
      call.degraded |= outcome.degraded;
      if (call.response_fields.empty())
        call.response_fields = rate_limit_lines(call, {}, std::move(call.response_fields));
      else  // of a seat
        call.response_fields += rate_limit_lines(call);
      return Next::forward;
    case quota::ChargeOutcome::Status::exceeded:
      std::swap(call.states, outcome.states);
      reply_with(call, quota_exceeded(call, outcome.violated));
      call.reply.fields += call.response_fields;
      return Next::reply;
    case quota::ChargeOutcome::Status::unavailable:
      break;
  }
  call.degraded = true;
  // The ledger itself lets calls through and counts them later; what it could not even note is let through all the same.
  if (call.snapshot->settings.store.on_outage == config::OnOutage::allow) return Next::forward;
  return refuse(
      call, Reason::store_unavailable,
      "Calls cannot be counted at the moment, so none are let through. Nothing was charged; try again.");
}

Next Gate::begin_usage(Call& call) {
  call.tell(&Life::authenticated, call);
  call.usage_request = true;
  call.classification.kind = catalogue::Kind::basic_function;
  const quota::Caller caller = caller_of(call.token->principal);
  call.charges = call.snapshot->rules.accounts(caller);
  call.observation = call.snapshot->rules.observation(caller);
  return Next::read_usage;
}

Next Gate::on_usage(Call& call, Result<std::vector<quota::AccountState>>&& states,
                    Result<std::vector<quota::Ledger::Listed>>&& objects, const SeatLooks& seats) {
  if (!states || !objects)
    return refuse(call, Reason::store_unavailable, "The counts cannot be read at the moment; try again.");
  call.states = std::move(*states);
  return reply_with(call, usage(call, call.states, *objects, seats));
}

}  // namespace tollgate::flow
