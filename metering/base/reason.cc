#include "metering/base/reason.h"

#include "metering/base/check.h"

namespace tollgate {
namespace {

constexpr std::array<ReasonInfo, kReasonCount> kInfo = {{
    {"ok", 200, "Forwarded"},
    {"token_missing", 401, "No access token"},
    {"token_invalid", 401, "The access token is not valid"},
    {"token_expired", 401, "The access token has expired"},
    {"license_missing", 403, "The user has no portal licence"},
    {"product_unavailable", 403, "The portal product is not available with the main product"},
    {"section_not_licensed", 403, "The section is not part of the portal licence"},
    {"operation_not_licensed", 403, "The operation is not part of the portal licence"},
    {"custom_section_limit", 403, "The custom section is not one of the permitted ones"},
    {"seat_cap_reached", 403, "All seats of the portal product are taken"},
    {"license_required", 403, "The operation needs a licence that the user may not take"},
    {"concurrent_licenses_exhausted", 429, "All concurrent licences are in use"},
    {"quota_exceeded", 429, "The quota is used up"},
    {"bad_request", 400, "The request is malformed"},
    {"not_found", 404, "No route"},
    {"body_uninspectable", 413, "The request body is too large to be inspected"},
    {"body_too_large", 413, "The request body is too large"},
    {"unsupported_media_type", 415, "The format of the request body is not supported here"},
    {"header_too_large", 431, "The request header is too large"},
    {"uri_too_long", 414, "The request target is too long"},
    {"request_timeout", 408, "The request took too long to arrive"},
    {"not_implemented", 501, "Not implemented"},
    {"upstream_unreachable", 502, "The CRM could not be reached"},
    {"upstream_invalid", 502, "The CRM sent a reply that is not valid"},
    {"upstream_timeout", 504, "The CRM did not answer in time"},
    {"upstream_closed", 502, "The CRM closed the connection without a reply"},
    {"upstream_connect_timeout", 504, "Connecting to the CRM took too long"},
    {"upstream_deadline", 504, "The call took longer than it may"},
    {"upstream_unavailable", 503, "No server of the CRM is well"},
    {"store_unavailable", 503, "The quota store is unavailable"},
    {"overloaded", 503, "Too busy"},
    {"draining", 503, "Shutting down"},
    {"client_closed", 499, "The client closed the connection"},
    {"address_rate_exceeded", 429, "Too many requests from this address"},
    {"identity_unavailable", 503, "It cannot be found out who is calling"},
    {"method_not_allowed", 405, "The page has no such method"},
}};

}  // namespace

const ReasonInfo& info(Reason reason) {
  CHECK(reason < Reason::kCount, "unknown reason");
  return kInfo[static_cast<std::size_t>(reason)];
}

}  // namespace tollgate
