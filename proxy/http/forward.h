// Heads written anew for the next hop. Nothing of the received framing is passed on: the canonical head is
// built from the parsed one, so that both neighbours can only read it one way.
//
// Request:  METHOD SP origin-form SP HTTP/1.1, one Host, the end-to-end fields in their order, framing,
// X-Forwarded-*,
//           X-Request-Id. Dropped: Connection and what it names, Keep-Alive, Proxy-*, TE (but `TE: trailers`
//           is written anew), Trailer, Transfer-Encoding, Content-Length, Upgrade (unless forwarding one),
//           HTTP2-Settings, Expect (the proxy answers 100 itself), and fields by which a client could pass
//           for a proxy or address another resource than the one that was metered (field_names.h):
//           X-Original-URL, X-Rewrite-URL, from untrusted peers X-Forwarded-*, Forwarded, X-Real-IP. A name
//           that differs from one of those only by '_' for '-' is dropped too, since gateways that make
//           variables of fields mix them up. Max-Forwards of OPTIONS is lowered by one (max_forwards()).
// Response: HTTP/1.1 SP status SP phrase, end-to-end fields, framing, extra lines, X-Request-Id, Connection.
//
//   RequestForwarding f{.framing = Framing::length, .content_length = 12, .request_id = id, .peer_address =
//   "192.0.2.7"}; append_request_head(out, head, f);
//     POST /0/odata/Case HTTP/1.1
//     Host: crm.example
//     Authorization: Bearer ...
//     Content-Length: 12
//     X-Forwarded-For: 192.0.2.7
//     X-Forwarded-Proto: http
//     X-Forwarded-Host: crm.example
//     X-Request-Id: ...
// Views in the structs must outlive the call only. Values that come from elsewhere than a parsed head (ids,
// addresses, extra lines) must be free of CR and LF: CHECKed.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/body_decoder.h"
#include "proxy/http/message.h"
#include "proxy/http/reply_paths.h"

namespace tollgate::http {

struct RequestForwarding {
  std::string_view path{};           // asked for in place of the head's, its query stays; "": the head's own
  Framing framing = Framing::none;   // none, length or chunked: how the body will be sent
  std::uint64_t content_length = 0;  // for length
  std::string_view request_id{};     // X-Request-Id; "" keeps none
  std::string_view peer_address{};  // the socket's peer, IpAddress::to_string(), appended to X-Forwarded-For;
                                    // "" (it has none) is written as `unknown`
  bool trusted_peer = false;        // keep the peer's X-Forwarded-For and Forwarded in front of it
  bool https = false;               // X-Forwarded-Proto: ClientInfo::https
  std::string_view forwarded_host{};  // X-Forwarded-Host: ClientInfo::host; "" takes the head's authority
  std::string_view default_host{};    // Host when the request (HTTP/1.0) named none: the upstream's authority
  std::span<const std::string_view>
      drop_fields{};  // further field names to leave out, any case, '_' as '-' (e.g. "authorization")
  std::span<const std::string_view>
      identity_fields{};  // fields that may hold credentials: a name that is theirs but for '_' and '-' is left out
  std::span<const std::string_view> drop_cookies{};  // cookies to leave out of Cookie, by exact name
  bool upgrade = false;                              // forward Upgrade (only for a head with wants_upgrade)
  bool forward_expect = false;                       // pass Expect: 100-continue on
  std::string_view via{};           // pseudonym for Via (RFC 9110 section 7.6.3); "" adds no member
  std::string_view extra_fields{};  // complete lines, each ending in CRLF
};

void append_request_head(std::string& out, const RequestHead& head, const RequestForwarding& forwarding);

// Connection of the request names one of these fields: they would be dropped, so that the upstream misses what the proxy
// went by.
bool connection_names(const RequestHead& head, std::span<const std::string_view> names);

// The end of a chunked request body: last chunk, trailers, empty line. Trailers that Connection names are left out, and
// those that could pass for one of `identity_fields` or `drop_fields` (any case, '_' as '-').
void append_request_trailers(std::string& out, const RequestHead& head,
                             const std::vector<TrailerField>& trailers,
                             std::span<const std::string_view> identity_fields,
                             std::span<const std::string_view> drop_fields);

// What Connection of a response names, for its trailers, which come long after the head is gone: Connection takes header
// and trailer fields away (RFC 9110 section 7.6.1).
std::vector<std::string> names_in_connection(const ResponseHead& head);

// The end of a chunked response body without the trailers named in `connection` (names_in_connection) and `drop_fields`
// (ResponseForwarding).
void append_response_trailers(std::string& out, const std::vector<TrailerField>& trailers,
                              std::span<const std::string> connection,
                              std::span<const std::string_view> drop_fields);

// A 101 may only switch to protocols that the request offered (RFC 9110 section 7.8): every protocol of `reply`'s Upgrade
// is in the request's, and there is one.
bool switches_as_offered(const RequestHead& request, const ResponseHead& reply);

// Hops that an OPTIONS request may still make (RFC 9110 section 7.6.2). 0: it must not be forwarded but be
// answered here. nullopt: it does not say, or the method is another, for which the field means nothing.
std::optional<std::uint64_t> max_forwards(const RequestHead& head);

struct ResponseForwarding {
  Framing framing = Framing::none;   // see client_framing()
  std::uint64_t content_length = 0;  // for length
  std::string_view request_id{};     // replaces the upstream's X-Request-Id; "" removes it
  std::string_view extra_fields{};   // complete lines, each ending in CRLF (RateLimit, ...)
  std::span<const std::string_view>
      drop_fields{};        // upstream fields to leave out, e.g. those set by extra_fields
  std::string_view date{};  // written when the upstream sent no Date (RFC 9110 section 6.6.1); "" never
  std::uint8_t client_minor_version = 1;
  bool close = false;                 // the client connection ends with this response
  bool upgrade = false;               // 101: Connection: upgrade and the Upgrade field are passed
  const ReplyPaths* paths = nullptr;  // addresses in the fields are mapped so; nullptr: they stay as they are
};

// A 1xx other than 101 gets neither framing nor Connection. Framing none keeps the Content-Length that a
// reply to HEAD or a 304 carries. Chunked to an HTTP/1.0 client is written as until_close; until_close
// implies close.
void append_response_head(std::string& out, const ResponseHead& head, const ResponseForwarding& forwarding);

// How to send on to the client a body that arrives as head.framing: until_close becomes chunked for HTTP/1.1,
// chunked becomes until_close for HTTP/1.0.
Framing client_framing(const ResponseHead& head, std::uint8_t client_minor_version);

}  // namespace tollgate::http
