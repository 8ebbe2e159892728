// One call on its way through the gate: what is known about it so far and what was decided.
// Owned by the exchange; filled by the Gate; read at the end to make the usage fact.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "metering/catalogue/classification.h"
#include "metering/identity/client_certificate.h"
#include "metering/identity/principal.h"
#include "metering/identity/session.h"
#include "metering/licence/policy.h"
#include "metering/quota/ledger.h"
#include "proxy/flow/life.h"
#include "proxy/flow/sessions.h"
#include "proxy/flow/shed.h"
#include "proxy/flow/snapshot.h"

namespace tollgate::flow {

// A reply of our own. Framing, Date, X-Request-Id and Connection are added by whoever sends it.
struct LocalReply {
  int status = 0;
  Reason reason = Reason::ok;
  std::string
      fields;  // complete field lines, each ending in CRLF: content type, WWW-Authenticate, Retry-After, ...
  std::string body;
};

// What a call has to do with a session of the CRM's own log-in (identity.sessions).
struct CallSession {
  identity::SessionStep step = identity::SessionStep::none;
  identity::SessionKind kind = identity::SessionKind::creatio;
  // Of the cookie (creatio) or token (cherwell) that the request carries; log_in: of the refresh token, if there is one.
  identity::SessionKey key{};
  std::string_view cookie;  // its name, in the settings
  bool asks = false;        // the store has to be asked whose it is
  std::optional<SessionAnswer> answer;
  std::shared_ptr<const identity::SessionRecord> record;  // whose it is; nullptr: nobody's
  bool counted = false;                                   // the caller is known by it
  bool learnt = false;                                    // a look-up told whose it is: the others may know
  // The caller is known by a token, and the session is not his: it stays here.
  bool foreign = false;
  std::string user;      // log_in, creatio: who wants to
  std::string site;      // log_in, cherwell: to which portal
  bool refresh = false;  // log_in, cherwell: with a refresh token, which `key` is of
};

// A credential that only somebody else can tell the owner of (identity/lookup.h).
struct CallLookup {
  std::shared_ptr<const identity::LookupSource> source;
  identity::SessionKey key{};  // in the snapshot's table
  std::string credential;
  bool asks = false;  // LookupService has to be asked
  std::shared_ptr<const identity::LookupVerdict>
      verdict;  // nullptr when it was asked: it could not settle it
};

// A request that adds members to a portal or takes some from it (Classification::portal), where these have seats.
struct CallPortal {
  seats::Pool pool;        // its capacity is that of the user types that the new members are to be of
  std::string invitation;  // of the seats (seats/ledger.h), given by the edge
  bool settled = false;    // the store has been told what became of it
};

struct Call {
  // Set by the exchange before Gate::on_head.
  std::shared_ptr<const Snapshot> snapshot;
  std::string request_id;      // already chosen: kept from the client if well formed, else new
  std::string client_address;  // after trusted proxies
  std::shared_ptr<const identity::ClientCertificate> certificate;  // of our own handshake; nullptr: none
  Life* life = nullptr;       // of a request that is watched; outlives the call
  bool no_anonymous = false;  // too busy for requests without a valid token

  // Filled by the gate.
  const config::Route* route = nullptr;  // in snapshot->settings
  std::string
      upstream_path;  // asked for in place of the head's (rewrite.h), without query; "": the head's own
  std::shared_ptr<const identity::VerifiedToken> token;  // who calls; nullptr on unmetered routes
  bool without_token = false;                            // known by an API key or a certificate alone
  std::unique_ptr<CallSession> session;                  // nullptr: none is carried and none begins
  std::unique_ptr<CallLookup> lookup;                    // nullptr: nobody has to be asked who calls
  catalogue::Classification classification;
  licence::Decision decision;
  std::vector<licence::Owner> owners;  // of the uses, as far as it is known here
  bool owners_asked = false;           // the CRM was asked about those that are not
  bool learns = false;                 // its reply may say whose records are
  bool moves_owner = false;            // it may make its records somebody else's
  std::uint64_t seats_needed = 0;      // bit i: a seat of snapshot->seat_pools[i], which it has not got yet
  std::unique_ptr<CallPortal> portal;  // nullptr: nobody's membership is at stake
  std::vector<quota::AccountCharge> charges, spare_charges;  // and memory for them, of the call before
  std::vector<quota::AccountState> states;                   // of the charges, after the store answered
  quota::Receipt receipt;                                    // empty: nothing to give back
  Reason reason = Reason::ok;
  bool degraded = false;                  // let through without a store decision
  bool shed = false;                      // refused because of no_anonymous
  bool usage_request = false;             // GET /.tollgate/usage
  quota::Rules::Observation observation;  // usage_request: what to list
  bool odata_reply = false;               // the caller accepts OData JSON
  LocalReply reply;                       // when the gate said Next::reply
  std::string response_fields;  // field lines to add to a forwarded reply (License-Seat, RateLimit, ...)

  // A step, to whoever watches: call.tell(&Life::answers, 429). Of most requests it costs one look at `life`.
  template <class... Parameters, class... Arguments>
  void tell(void (Life::*step)(Parameters...), Arguments&&... arguments) const {
    if (life != nullptr) [[unlikely]]
      (life->*step)(std::forward<Arguments>(arguments)...);
  }
};

}  // namespace tollgate::flow
