// The decision about one call, in order: route, token, what it touches, licence, seats, quota. Pure: no socket, no clock,
// no thread; the store's answer comes in as an event. One Gate a worker (it holds that worker's token cache).
//
//      on_head ──> forward            (unmetered route)
//         │  ├───> reply              (401, 403, 404, 413, usage is Next::read_usage)
//         │  ├───> need_body ─> buffer the whole body (limit body_limit(), past it body_too_large()) ─> on_body
//         │  ├───> seat ──────> SeatLedger::take(wanted_seat(call)) ─> on_seat ─> seat | charge | forward | reply
//         │  └───> charge ────> Ledger::charge(call.charges) ─> on_charge ─> forward | reply
//         │          (no charges: no rule limits what is billed all the same; write it down and forward)
//      on_body ──> seat | charge | forward | reply
//      find_owners ──> OwnerLookup::find(unknown_owners(call)) ──> on_owners ──> as on_body
//      find_session ──> SessionStore::find(call.session->key) ──> on_session ──> as on_head
//      look_up ──> LookupService::ask(*call.lookup) ──> on_lookup ──> as on_head
//
// Who calls is said by a token, an API key, a client certificate or a session of the CRM's own; docs/identity.md has their order. A credential
// that is there has to be good, and those that are sent on purpose have to name one user: else 401.
//
// Sessions of the CRM's own log-in (identity.sessions): a request without a token is its user's whose session it
// carries; with one, the session goes on to the CRM only when it is the same user's. A log-in is forwarded as nobody's;
// what its reply says makes the session (exchange_session.cc). Cherwell's sessions are tokens themselves: where JSON Web
// Tokens are trusted too, what has their shape is one. Such a session is of one portal site, and nobody's at another;
// a refresh token that is not known here gets nobody a new one.
//
// Requests that need no identity (login pages and token endpoints, scripts and pictures of the application) are
// forwarded without a token: Kind::authentication and Kind::asset.
//
// Seats: a call of a portal user on licensed objects needs one of licensing.concurrent_seats, if there is such a pool, and
// one of each product that caps its users and alone grants an operation of it (licence/policy.h); where a table decides
// (Cherwell), the calls that it says consume, and those alone. They come before the
// quota, so that a call without a seat costs none; a call that the quota then refuses keeps its seat. What took one
// says so: `License-Seat: self_service;taken`, a structured field (RFC 9651) with the pool's name.
//
// Seats of others: who invites somebody to a portal (Call::portal) needs seats for those that are invited, all or none.
// What the reply says of them settles it (exchange_portal.cc).
//
// A Next::forward means: send the request to call.route->upstream, add call.response_fields to the reply's head.
// A Next::reply means: send call.reply. If the upstream never received a forwarded call: give back call.receipt to the Ledger.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/time.h"
#include "metering/identity/token_cache.h"
#include "metering/seats/ledger.h"
#include "proxy/flow/call.h"
#include "proxy/http/message.h"

namespace tollgate::flow {

// What the store says of the caller's seats, one a pool, in the order of the snapshot's.
using SeatLooks = std::vector<Result<seats::Page>>;

enum class Next : std::uint8_t {
  forward,
  need_body,
  seat,
  charge,
  read_usage,
  find_session,
  look_up,
  find_owners,
  reply
};

// Records of one call that are looked up; of more it stays unknown whose they are.
inline constexpr std::size_t kOwnersAskedMax = 20;
// A log-in's body is small, and is read from everybody.
inline constexpr std::size_t kLoginBodyMax = 16 * 1024;

class Gate {
 public:
  Gate(std::size_t token_cache_entries, std::uint64_t hash_seed);

  Next on_head(Call& call, const http::RequestHead& head, UnixTime now);
  // The answer to Next::find_session.
  Next on_session(Call& call, const http::RequestHead& head, SessionAnswer answer, UnixTime now);
  // The answer to Next::look_up; nullptr: none that settles anything.
  Next on_lookup(Call& call, const http::RequestHead& head,
                 std::shared_ptr<const identity::LookupVerdict> verdict, UnixTime now);
  // `body` is the whole decoded body, of at most body_max(call) bytes. `head` is the same as in on_head.
  Next on_body(Call& call, const http::RequestHead& head, std::string_view body, UnixTime now);
  // Next::find_owners: the decision hangs on whose these records are, and no reply has told.
  static std::vector<std::string> unknown_owners(const Call& call);
  Next on_owners(Call& call, const http::RequestHead& head, std::string_view body, UnixTime now);
  // Next::seat: of which pool.
  static const seats::Pool& wanted_seat(const Call& call);
  Next on_seat(Call& call, const seats::Outcome& outcome);
  Next on_charge(Call& call, quota::ChargeOutcome&& outcome);
  // Answers to Next::read_usage: Ledger::read of call.charges, Ledger::list of call.observation and SeatLedger::look at
  // each of snapshot->seat_pools, all asked for at once. Always ends in Next::reply.
  Next on_usage(Call& call, Result<std::vector<quota::AccountState>>&& states,
                Result<std::vector<quota::Ledger::Listed>>&& objects, const SeatLooks& seats);

  // Largest body that may be buffered.
  static std::size_t body_max(const Call& call) {
    return call.session != nullptr && call.session->step == identity::SessionStep::log_in
               ? kLoginBodyMax
               : call.snapshot->settings.catalogue.max_body;
  }

  // The call is over and becomes as new; memory that the next one fills again is kept.
  void forget(Call& call);

  // A failure outside the gate becomes a reply in the same form (body past the limit, upstream dead, time-outs, ...).
  static void fail(Call& call, Reason reason, std::string_view detail);

  std::uint64_t token_cache_hits() const { return cache_.hits(); }
  std::uint64_t token_cache_misses() const { return cache_.misses(); }

 private:
  using Proof = std::shared_ptr<const identity::VerifiedToken>;
  // The refusal, or nullopt and call.token is set, or somebody has to be asked first (call.session,
  // call.lookup).
  std::optional<LocalReply> authenticate(Call& call, const http::RequestHead& head, UnixTime now);
  std::optional<LocalReply> authenticate_token(Call& call, std::string_view token, UnixTime now);
  std::optional<LocalReply> learn_token(Call& call, std::string_view token, Proof user);
  // Whose API key it is; nullptr: none was sent.
  static std::expected<Proof, identity::TokenRefusal> find_key_owner(const Snapshot& snapshot,
                                                                     const http::RequestHead& head,
                                                                     UnixTime now);
  // Whose certificate the connection has; nullptr: none, or nobody's.
  std::expected<Proof, identity::TokenRefusal> find_certificate_owner(const Call& call, UnixTime now);
  // Of the token that was found, and of what else proves who calls (may be nullptr). All must name one user.
  std::optional<LocalReply> settle_caller(
      Call& call, const std::expected<std::string_view, identity::TokenRefusal>& token, Proof other,
      UnixTime now);
  std::optional<LocalReply> look_up_token(Call& call, std::string_view token, UnixTime now);
  // Sets call.lookup; its verdict is there, or it asks, or it was asked in vain.
  static void find_owner(Call& call, const std::shared_ptr<const identity::LookupSource>& source,
                         std::string_view credential, UnixTime now);
  // A session that nobody knows: the CRM may. Sets call.session->record when it does.
  std::optional<LocalReply> look_up_session(Call& call, const http::RequestHead& head, UnixTime now);
  // Sets call.session when the request carries one; answers how it stands with it.
  enum class SessionState : std::uint8_t { none, known, unknown, unavailable, asks };
  std::expected<SessionState, identity::TokenRefusal> look_for_session(Call& call,
                                                                       const http::RequestHead& head,
                                                                       UnixTime now);
  static SessionState look_up(Call& call, UnixTime now);  // of call.session->key
  std::optional<LocalReply> authenticate_session_token(Call& call, std::string_view token,
                                                       const http::RequestHead& head, UnixTime now);
  static std::optional<LocalReply> check_site(Call& call, const http::RequestHead& head,
                                              const catalogue::Request& request);
  Next read_login(Call& call, const http::RequestHead& head, std::string_view body);
  static Next on_refresh(Call& call, SessionState state);
  // call.token: whose session it is. A reply: the user is not active.
  std::optional<LocalReply> take_session(Call& call, UnixTime now);
  std::optional<Next> begin_login(Call& call, const http::RequestHead& head,
                                  const catalogue::Request& request);
  Next decide(Call& call, const catalogue::Request& request, UnixTime now);
  bool hangs_on_owners(const Call& call) const;
  static void look_at_owners(Call& call, const catalogue::Request& request, UnixTime now);
  static void look_at_requesters(Call& call, const catalogue::Request& request, UnixTime now);
  Next begin_charge(Call& call);
  Next begin_usage(Call& call);
  catalogue::Request request_of(const Call& call, const http::RequestHead& head, std::string_view body);

  identity::TokenCache cache_;
  std::uint64_t generation_ = 0, keys_version_ = 0;  // of the snapshot whose tokens are in the cache
  std::vector<catalogue::HeaderField> headers_;      // scratch of request_of
  std::string target_;                               // scratch of request_of
  std::string session_id_;                           // scratch of take_session
  catalogue::NormalPath path_;                       // scratch of on_head
  std::vector<quota::CountedOperation> operations_;  // scratch of decide
};

}  // namespace tollgate::flow
