// Every ending of a call has one short, stable code. The same code stands in the reply, the access log, the
// metrics, the admin pages and docs/problems/. Never rename one: they are promises to API clients and to billing.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace tollgate {

enum class Reason : std::uint8_t {
  ok,  // forwarded; the status is the upstream's
  // identity: 401
  token_missing,
  token_invalid,
  token_expired,
  // licence: 403, never costs quota
  license_missing,
  product_unavailable,
  section_not_licensed,
  operation_not_licensed,
  custom_section_limit,
  seat_cap_reached,
  license_required,
  // capacity that was bought: 429
  concurrent_licenses_exhausted,
  quota_exceeded,
  // protocol
  bad_request,
  not_found,
  body_uninspectable,
  body_too_large,
  unsupported_media_type,
  header_too_large,
  uri_too_long,
  request_timeout,
  not_implemented,
  // the world failed
  upstream_unreachable,
  upstream_invalid,
  upstream_timeout,
  upstream_closed,           // the connection ended without a byte of a reply
  upstream_connect_timeout,  // never received
  upstream_deadline,         // upstreams.*.total_timeout
  upstream_unavailable,      // every server is down by its health checks; never received
  store_unavailable,
  overloaded,
  draining,
  // the client went away before the reply was complete; nothing is sent
  client_closed,
  // protection (limits.per_address): 429, never costs quota
  address_rate_exceeded,
  // nobody answers whose credential this is: 503
  identity_unavailable,
  // a page of the proxy's own, asked for by another method than it has: 405
  method_not_allowed,
  kCount
};
inline constexpr std::size_t kReasonCount = static_cast<std::size_t>(Reason::kCount);

struct ReasonInfo {
  std::string_view code;   // stable
  int status;              // HTTP status of the reply (ok: 200 stands for the upstream's own)
  std::string_view title;  // short summary of the problem type (RFC 9457 section 3.1.3)
};

const ReasonInfo& info(Reason reason);
inline std::string_view code(Reason reason) {
  return info(reason).code;
}

}  // namespace tollgate
