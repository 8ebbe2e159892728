// Everything a worker needs to decide about a request, immutable: built from the settings at start and at every
// reload, swapped as one pointer. An exchange holds the snapshot it began with until it ends, so a reload changes
// nothing in mid-call and drops no request.
#pragma once
#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "metering/base/error.h"
#include "metering/base/reason.h"
#include "metering/catalogue/classifier.h"
#include "metering/identity/api_keys.h"
#include "metering/identity/directory.h"
#include "metering/identity/lookup_table.h"
#include "metering/identity/session_table.h"
#include "metering/identity/token_verifier.h"
#include "metering/licence/owners.h"
#include "metering/licence/policy.h"
#include "metering/quota/rules.h"
#include "metering/seats/pool.h"
#include "proxy/flow/owner_lookup.h"
#include "proxy/http/address.h"

namespace tollgate::flow {

// config::FieldEdits made ready: names of fields and trailers to leave out (removed or set), and whole lines to add (set
// or added).
struct PreparedEdits {
  std::vector<std::string_view> drop;         // in the snapshot's settings
  std::vector<std::string_view> drop_legacy;  // and X-RateLimit-*
  std::string lines;
};
struct RouteEdits {
  PreparedEdits request, reply;  // request.drop: and fields that hold credentials, unless they are forwarded
};

// A pool of which calls may need a seat.
struct SeatPool {
  seats::Pool pool;
  std::string title;  // for sentences: "Self-service Portal", "portal users at once"
  // Not of callers, but of members that staff invites to a portal: Call::portal.
  bool of_members = false;
};
// No product's ids.
using licence::kConcurrentPool;
using licence::kPortalPool;

struct Snapshot {
  config::Settings settings;
  identity::TokenVerifier verifier;
  std::vector<std::shared_ptr<identity::KeyRing>> key_rings;  // one an issuer; their sets change while we run
  std::shared_ptr<const identity::Directory> directory;       // nullptr without licensing.directory_file
  std::shared_ptr<const identity::ApiKeys> api_keys;          // nullptr without identity.api_keys.file
  // Whose tokens, and sessions, only somebody else can tell; nullptr: nobody is asked. lookups is there with either; it
  // changes while we run.
  std::shared_ptr<const identity::LookupSource> token_lookup, session_lookup;
  std::shared_ptr<identity::LookupTable> lookups;
  std::shared_ptr<identity::SessionTable>
      sessions;                                 // nullptr without identity.sessions; changes while we run
  std::shared_ptr<OwnerLookup> owner_lookup;    // nullptr: nobody is asked
  std::shared_ptr<licence::OwnerTable> owners;  // nullptr unless asks_owners(); changes while we run
  catalogue::Classifier classifier;
  licence::Policy policy;
  quota::Rules rules;
  http::AddressSet trusted_proxies;
  http::AddressSet unlimited_addresses;  // limits.per_address.exempt
  std::string rate_limit_policy;         // value of RateLimit-Policy: the same for every caller
  // By Reason: the members of its problem document that are the same for every call, type, title and status.
  std::array<std::string, kReasonCount> problem_heads;
  std::vector<RouteEdits> edits;                   // one a route, in the order of settings.routes
  std::vector<std::string_view> identity_headers;  // of settings.identity.sources, .api_keys, .pass
  std::string pass_secret;                         // content of identity.pass.secret_file
  std::vector<std::string_view> dropped_cookies;   // those that hold credentials, unless they are forwarded
  // Of products that cap their users, in their order, then of concurrent_seats, then of portal users. At most 64.
  std::vector<SeatPool> seat_pools;
  std::vector<std::uint64_t> pool_of_product;  // by Rulebook::products: bit in Call::seats_needed, 0: no pool
  std::uint64_t concurrent_pool = 0;           // bit of kConcurrentPool; 0: there is none
  const SeatPool* portal_pool = nullptr;       // kPortalPool in seat_pools; nullptr: there is none
  std::uint64_t generation = 0;  // 1 at start, +1 a reload; token caches are emptied when it changes
};

// What the edges read from files and hand in.
struct SnapshotParts {
  config::Settings settings;
  licence::Rulebook rulebook;  // the preset with the operator's settings applied
  std::shared_ptr<const catalogue::Schema> schema;
  std::shared_ptr<const identity::Directory> directory;  // may be nullptr
  std::vector<std::shared_ptr<identity::KeyRing>>
      key_rings;  // one for each of settings.identity.jwt, in order
  std::shared_ptr<const identity::ApiKeys> api_keys = nullptr;
  std::shared_ptr<const identity::LookupSource> token_lookup = nullptr, session_lookup = nullptr;
  std::shared_ptr<identity::LookupTable> lookups = nullptr;
  std::shared_ptr<identity::SessionTable> sessions = nullptr;
  std::string pass_secret{};
  std::uint64_t generation = 1;
  std::shared_ptr<licence::OwnerTable> owners = nullptr;  // of the snapshot before, or a new one
  std::shared_ptr<OwnerLookup> owner_lookup = nullptr;
};
// Errors (origin config) say which setting cannot be used.
Result<std::shared_ptr<const Snapshot>> make_snapshot(SnapshotParts parts);

// Does a decision hang on whose a record is?
inline bool asks_owners(const licence::Rulebook& rulebook) {
  return rulebook.asks_owners || !rulebook.decisions.empty();
}

inline identity::SessionTimes session_times(const Snapshot& snapshot) {
  const config::Sessions& sessions = snapshot.settings.identity.sessions;
  return {.idle = sessions.idle, .recheck = sessions.recheck};
}

// Of a route in snapshot.settings.
inline const RouteEdits& edits_of(const Snapshot& snapshot, const config::Route& route) {
  return snapshot.edits[static_cast<std::size_t>(&route - snapshot.settings.routes.data())];
}

// The fields that hold one number, ours, when proxy.legacy_rate_limit_headers is set.
inline constexpr std::string_view kLegacyRateLimit[] = {"X-RateLimit-Limit", "X-RateLimit-Remaining",
                                                        "X-RateLimit-Reset"};

// The route for a request, or nullptr: a route that names the host before one that does not, then the longest prefix,
// matched on whole segments and without case, as the CRM matches paths. `path` is normalised (percent-decoded once, no
// dot segments). Cost: linear in the number of routes.
const config::Route* find_route(const config::Settings& settings, std::string_view host,
                                std::string_view path);

}  // namespace tollgate::flow
