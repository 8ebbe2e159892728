// Replies of our own: problem documents (RFC 9457), challenges (RFC 6750), quota replies and the usage page.
// Pure: text in, LocalReply out. Framing, Date, Connection and X-Request-Id are added by the sender.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "metering/quota/ledger.h"
#include "metering/seats/ledger.h"
#include "proxy/flow/call.h"

namespace tollgate::flow {

// A problem document for `reason`. `detail` is a sentence for the caller and may quote names, never secrets.
// Callers that accept OData JSON (call.odata_reply) also get the OData `error` object in the same document.
LocalReply problem(const Call& call, Reason reason, std::string_view detail);

// 401 with the Bearer challenge: without an error attribute when no token was sent (RFC 6750 section 3.1).
LocalReply unauthorized(const Call& call, Reason reason, std::string_view detail);

// 429 for call.states and the indexes of the charges without room. Retry-After is the moment at which the same call
// would be admitted, rounded up to a second; it is left out when the call can never fit (more units than the limit).
// memory: a reply that is no longer needed, whose memory is used again.
LocalReply quota_exceeded(const Call& call, std::span<const std::uint32_t> violated, LocalReply memory = {});

// No seat is free in the pool that the call wants: 403 for named seats, 429 for concurrent ones. Retry-After is the moment at
// which the first may become free, as long as its holder makes no call.
LocalReply seat_refused(const Call& call, const seats::Outcome& outcome);
// 503, with the moment at which seats are given again, where that is known.
LocalReply seat_unavailable(const Call& call, const seats::Outcome& outcome);

// GET /.tollgate/usage: call.charges with their states, what the caller did by object and operation, and his seats.
LocalReply usage(const Call& call, std::span<const quota::AccountState> states,
                 std::span<const quota::Ledger::Listed> objects, std::span<const Result<seats::Page>> seats);

// The body of that reply for any user: also what the admin API answers, without seats.
std::string usage_json(const Snapshot& snapshot, const identity::Principal& principal,
                       std::span<const quota::AccountCharge> accounts,
                       std::span<const quota::AccountState> states,
                       std::span<const quota::Ledger::Listed> objects,
                       std::span<const Result<seats::Page>> seats = {});

// RateLimit-Policy and RateLimit field lines for the states of call.charges; "" when no rule applies. `violated`: the
// indexes of the charges without room, of a refused call; then Retry-After is among the lines. memory: a text that is no
// longer needed, whose memory is used again.
std::string rate_limit_lines(const Call& call, std::span<const std::uint32_t> violated = {},
                             std::string memory = {});

}  // namespace tollgate::flow
