// What a field name means to a proxy, in one place: which belong to one connection, which nobody may strip by
// naming them in Connection, which a client may not send past us, which are not allowed after a body.
#pragma once
#include <cstdint>
#include <string_view>

namespace tollgate::http {

enum class FieldRole : std::uint8_t {
  end_to_end,     // passed on
  connection,     // Connection itself
  hop,            // Keep-Alive, Proxy-*, TE, Trailer, Upgrade, HTTP2-Settings: of one connection (RFC 9110
                  // section 7.6.1)
  framing,        // Content-Length, Transfer-Encoding: written anew
  host,           // Host: written anew
  request_id,     // X-Request-Id: written anew
  forwarded_for,  // X-Forwarded-For: appended to or replaced
  forwarded,      // Forwarded
  forwarded_set,  // X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Scheme, ...: always written anew
  forwarded_by,   // what only a proxy in front may say about the client: other X-Forwarded-*, X-Real-IP,
  // True-Client-IP, Remote-User, Client-Cert, X-SSL-Client-*, X-Auth-Request-*, ...: kept from trusted peers only
  rewrite,  // X-Original-URL, X-Rewrite-URL, ...: another target than the one that was metered; never passed
  expect,   // Expect
  cookie,   // Cookie
  date,     // Date
};

// Role of a field in a request or response. Names compare without case. '_' counts as '-' for every role but
// end_to_end, cookie and date, so X_Forwarded_For has the role of X-Forwarded-For. Cost: one look at the
// name.
FieldRole role_of(std::string_view name);

// Of a name with the role forwarded_by: as its proxy writes it, without '_' but for OIDC_CLAIM_*. Another spelling may be
// the client's, which the proxy in front did not replace.
bool is_vouched_spelling(std::string_view name);

// The same name for a gateway that makes variables of fields: without case, '_' as '-'.
bool is_same_variable(std::string_view a, std::string_view b);

// Fields that may not be removed by naming them in Connection: they frame, route, authenticate or describe
// the message end to end (Host, Content-*, Transfer-Encoding, Authorization, Cookie, X-Forwarded-*,
// X-HTTP-Method, traceparent, ...). In a request such a Connection is refused; in a response the naming is
// ignored.
bool is_protected_from_connection(std::string_view name);

// Fields that mean something only ahead of the content (RFC 9110 section 6.5.1): framing, routing, request
// modifiers, authentication, content description, and all of one connection. Dropped from trailers.
bool is_forbidden_trailer(std::string_view name);

}  // namespace tollgate::http
