// Who is calling: by a token, a key, a certificate, or a session of the CRM.
#include <algorithm>
#include <memory>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "proxy/flow/credentials.h"
#include "proxy/flow/gate_steps.h"

namespace tollgate::flow {
namespace {

constexpr std::string_view kTwoUsers = "The request carries credentials of two different users.";

// RFC 7515 section 7.1: three parts, the first of them a JSON object in base64url, so that it begins with "ey".
bool is_jwt(std::string_view token) {
  return token.starts_with("ey") && std::count(token.begin(), token.end(), '.') == 2;
}

// What is not said about a tenant contradicts nothing.
bool same_caller(const identity::Principal& a, const identity::Principal& b) {
  return a.user == b.user && (a.tenant == b.tenant || a.tenant.empty() || b.tenant.empty());
}

LocalReply refuse_inactive(const Call& call) {
  const identity::TokenRefusal refusal = identity::inactive_user();
  return unauthorized(call, refusal.reason, refusal.detail);
}

// A token that the CRM made, not an issuer of identity.jwt: three parts with two dots are those of the others (RFC 7515
// section 3.1).
bool is_session_token(const Snapshot& snapshot, std::string_view token) {
  return watches(snapshot, identity::SessionKind::cherwell) &&
         (snapshot.settings.identity.jwt.empty() || std::ranges::count(token, '.') != 2);
}

}  // namespace

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
  return take_session(call, now);
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
      return take_session(call, now);
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
std::optional<LocalReply> Gate::take_session(Call& call, UnixTime now) {
  const identity::SessionRecord& record = *call.session->record;
  call.session->counted = true;
  session_id_.assign(reinterpret_cast<const char*>(call.session->key.data()), call.session->key.size());
  session_id_.push_back(static_cast<char>(record.user_type));
  session_id_.append(record.user).append(1, '\0').append(record.site);
  call.token = cache_.find(session_id_, now);
  if (call.token != nullptr) return std::nullopt;
  identity::VerifiedToken known;
  known.principal.user = record.user;
  known.principal.user_type = record.user_type;
  known.principal.site = record.site;
  known.not_before = UnixTime::min();
  known.expires_at = record.deadline;
  if (const identity::Directory* directory = call.snapshot->directory.get())
    known.principal = directory->apply_folded(std::move(known.principal));
  if (!known.principal.active) return refuse_inactive(call);
  call.token = std::make_shared<const identity::VerifiedToken>(std::move(known));
  cache_.insert(session_id_, call.token);
  return std::nullopt;
}

std::optional<LocalReply> Gate::authenticate_token(Call& call, std::string_view token, UnixTime now) {
  const Snapshot& snapshot = *call.snapshot;
  call.token = cache_.find(token, now);
  if (call.token != nullptr) return std::nullopt;
  if (snapshot.token_lookup != nullptr && (snapshot.key_rings.empty() || !is_jwt(token)))
    return look_up_token(call, token, now);
  auto verified = snapshot.verifier.verify(token, now);
  if (!verified) return unauthorized(call, verified.error().reason, verified.error().detail);
  return learn_token(call, token, std::move(*verified));
}

// What the directory says of a user wins; the next call with this token finds him in the cache.
std::optional<LocalReply> Gate::learn_token(Call& call, std::string_view token, Proof user) {
  if (const identity::Directory* directory = call.snapshot->directory.get()) {
    auto known = std::make_shared<identity::VerifiedToken>(*user);
    known->principal = directory->apply(std::move(known->principal));
    if (!known->principal.active) return refuse_inactive(call);
    user = std::move(known);
  }
  call.token = std::move(user);
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
  return learn_token(call, token, verdict->user);
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

}  // namespace tollgate::flow
