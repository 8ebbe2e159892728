// What a reply says about quotas: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11, structured
// fields of RFC 9651), Retry-After (RFC 9110 section 10.2.3), and the older X-RateLimit-*.
//
//   RateLimit-Policy: "daily";q=1000;w=86400, "burst";q=50;w=1     every rule, the same for every caller
//   RateLimit: "daily";r=127;t=4211                                the one policy nearest to exhaustion
//   Retry-After: 4211                                              refused calls only
//
// Seconds are rounded UP: a client that waits as told is never early. Pure.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "metering/quota/rules.h"

namespace tollgate::quota {

// Value of RateLimit-Policy; "" when there are no rules. Candidate limits (shadow) are not policies. w is the window in whole seconds, rounded up.
std::string rate_limit_policy(std::span<const Rule> rules);

// Which of the charges the fields speak of: of a refused call the violated one that opens last, else the one with the
// smallest part of its limit left (then the fewest units, then the first). Unlimited accounts, observations and
// candidate limits are left out; nullopt when nothing else is there. `states[i]` belongs to `charges[i]`.
std::optional<std::size_t> nearest_to_exhaustion(std::span<const AccountCharge> charges,
                                                 std::span<const AccountState> states,
                                                 std::span<const std::uint32_t> violated = {});

// Value of RateLimit for one account. `t`, seconds until more quota returns, is left out while nothing is used.
std::string rate_limit(std::string_view policy_name, const AccountState& state);

// Seconds for Retry-After of a refused call: when every violated account has room, at least 1. nullopt when the call can
// never be admitted (it asks for more units than the limit): then no time is a true answer.
std::optional<std::uint64_t> retry_after_seconds(std::span<const AccountState> states,
                                                 std::span<const std::uint32_t> violated);

struct FieldOptions {
  bool rate_limit = true;
  bool legacy = false;  // X-RateLimit-Limit, -Remaining, -Reset (seconds from now, not a date)
};
// Complete field lines, each ending in CRLF, for a call with these charges and states. `policy` is the value of
// rate_limit_policy(rules). "" when no rule applies to the call. Retry-After is added when `violated` is not empty.
// memory: an earlier answer, whose memory is used again.
std::string rate_limit_field_lines(const FieldOptions& options, std::string_view policy,
                                   std::span<const Rule> rules, std::span<const AccountCharge> charges,
                                   std::span<const AccountState> states,
                                   std::span<const std::uint32_t> violated = {}, std::string memory = {});

// Whole seconds, rounded up.
std::uint64_t seconds_up(Milliseconds duration);

// An sf-string with its quotes (RFC 9651 section 3.3.3). Bytes outside printable ASCII become %XX.
std::string structured_string(std::string_view text);

}  // namespace tollgate::quota
