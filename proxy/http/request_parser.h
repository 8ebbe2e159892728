// Strict, incremental parser of HTTP/1.1 request heads (RFC 9112). Bytes in, a RequestHead out; no socket, no
// copy.
//
// Rule: any doubt about where a message ends or whom it addresses is a refusal; the caller answers with
// failure().reason and closes the connection. Nothing is repaired. Refused, beyond plain syntax errors:
//   lines     bare CR or LF, control bytes, obs-fold, space before the colon, names that are not tokens
//   target    fragment, space, backslash in the path, control or non-ASCII byte, malformed %-encoding, %00,
//   schemes but http and https,
//             an absolute-form authority that differs from Host; CONNECT is 501, and so are TRACE and TRACK
//             (any case): their reply would echo the credentials and what we add (RFC 9110 section 9.3.8)
//   Host      missing on HTTP/1.1, empty, several, anything but name|IPv4|[IPv6] with an optional port
//   framing   Content-Length several times (even equal), listed, signed, empty, above 2^63-1; beside
//             Transfer-Encoding; Transfer-Encoding on HTTP/1.0, several times or anything but `chunked`
//             (a compression before a final `chunked` is 501)
//   singletons  Authorization, Content-Type, Expect, X-HTTP-Method and its kin more than once: two readers
//             could pick different ones. Expect other than 100-continue is 400.
//   Connection  naming a field that is not a connection's business (field_names.h): Host, Authorization,
//   Content-*... version   anything but HTTP/1.0 and HTTP/1.1 (400), the HTTP/2 preface among them
// Limits: request line 414, head bytes and field count 431.
//
// The outcome does not depend on how the bytes were cut into reads, and feeding byte by byte costs linear
// time. No allocation once the field vector has grown to its usual size. One parser a connection, one thread
// at a time.
//
//   RequestParser parser(limits);
//   switch (parser.parse(buffer)) {                       // buffer: all bytes since the message began
//     case ParseStatus::incomplete: read more, call again with the longer buffer (it may have moved)
//     case ParseStatus::complete:   parser.head(); the body begins at buffer[parser.head_size()]
//     case ParseStatus::failed:     reply parser.failure().reason, close
//   }
//   parser.reset();                                       // before the next message
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "proxy/http/head_reader.h"
#include "proxy/http/message.h"

namespace tollgate::http {

class RequestParser {
 public:
  explicit RequestParser(HeadLimits limits);

  // `bytes`: everything received since the start of this message, the same bytes as before plus more. Up to
  // kEmptyLinesBefore empty lines before the request line are skipped (RFC 9112 section 2.2). Once complete
  // or failed, the answer stays the same until reset().
  ParseStatus parse(std::string_view bytes);

  // After complete: views into the `bytes` of the last parse(), but that the path of "http://host" and
  // "http://host?q" is the literal "/" (or "*" for OPTIONS). If the buffer moves later (it grew while a body
  // was read), call parse() with it again: the head then points into it; until then its views dangle.
  const RequestHead& head() const { return head_; }
  std::size_t head_size() const { return reader_.consumed(); }  // bytes of the head with its final empty line
  bool started() const { return reader_.started(); }            // a byte of a request line was seen
  const ParseFailure& failure() const { return failure_; }
  // After incomplete or failed: the request line begins with HEAD, so that no reply may have content (RFC 9110
  // section 9.3.2), whatever is wrong with the rest.
  bool asks_head() const { return asks_head_; }
  void reset();

 private:
  ParseStatus fail(Reason reason, std::string_view detail);
  ParseStatus read(std::string_view bytes);
  void follow(std::string_view bytes);
  bool note_field(const Field& field);
  bool parse_request_line(std::string_view line);
  bool parse_target();
  bool parse_absolute_form();
  bool settle_host();
  bool settle_framing();
  bool settle_connection();
  ParseStatus finish();

  HeadReader reader_;
  RequestHead head_;
  ParseFailure failure_;
  ParseStatus status_ = ParseStatus::incomplete;
  // Indices into head_.fields, or kAbsent.
  static constexpr std::size_t kAbsent = static_cast<std::size_t>(-1);
  std::size_t host_ = kAbsent, content_length_ = kAbsent, transfer_encoding_ = kAbsent;
  bool has_connection_ = false, has_upgrade_ = false, asks_head_ = false;
  bool absolute_https_ = false;      // scheme of an absolute-form target
  std::size_t absolute_prefix_ = 0;  // its bytes before the path
  std::uint32_t singletons_ = 0;     // of Noted (request_parser.cc): bit 1 << i, seen
  std::uintptr_t base_ = 0;          // where the bytes of the last parse() began
};

}  // namespace tollgate::http
