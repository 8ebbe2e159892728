// Inside of the room: what a set of claims says, wherever it comes from: the payload of a signed token (token_verifier.h)
// or the reply to a look-up (lookup.h). The rules are those of token_verifier.h; refusals are sentences for the caller.
#pragma once
#include <expected>

#include "metering/identity/json_members.h"
#include "metering/identity/token_verifier.h"

namespace tollgate::identity {

// One of rules.audience has to be in `aud`, unless it is empty.
std::expected<void, TokenRefusal> check_audience(const JsonMembers& claims, const IssuerRules& rules);

// The moment at which it ends, by `exp` and leeway; UnixTime::max() without one, when the rules allow that. Refused when
// that is over by `now`.
std::expected<UnixTime, TokenRefusal> check_expiry(const JsonMembers& claims, const IssuerRules& rules,
                                                   UnixTime now);

// Sets the two bounds of `out` from exp, nbf and iat, leeway included, and compares them with `now`.
std::expected<void, TokenRefusal> check_times(const JsonMembers& claims, const IssuerRules& rules,
                                              UnixTime now, VerifiedToken& out);

// By the names of the rules; whoever has no user is refused.
std::expected<Principal, TokenRefusal> read_principal(const JsonMembers& claims, const IssuerRules& rules);

}  // namespace tollgate::identity
