// Strict, incremental parser of HTTP/1.1 response heads from an upstream (RFC 9112). The twin of
// request_parser.h: same calls, same refusals of lines and framing. Every failure is upstream_invalid (502);
// the upstream connection must then be closed, since nobody knows where the next response begins.
//
// Framing of the body (RFC 9112 section 6.3):
//   reply to HEAD, 1xx, 204, 304          none (a Content-Length of a HEAD or 304 reply stays in the fields)
//   2xx reply to CONNECT, 101             none, and the connection leaves HTTP (keep_alive is false)
//   Transfer-Encoding: chunked            chunked
//   Content-Length: n                     length
//   neither                               until_close (keep_alive is false)
// Refused: Content-Length together with Transfer-Encoding, several Content-Lengths (even equal), any
// Transfer-Encoding but exactly `chunked`, Transfer-Encoding on HTTP/1.0, a 1xx that announces a body, a
// status outside 100..599, a 101 that nobody asked for. The reason phrase may be missing together with its
// space (common, and without consequence).
//
//   parser.expect("GET");               // before each response: the method of the request it answers
//   parser.parse(buffer) ...            // 1xx: forward or drop it, take head_size() off the buffer, reset(),
//   parse on
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

#include "proxy/http/head_reader.h"
#include "proxy/http/message.h"

namespace tollgate::http {

class ResponseParser {
 public:
  explicit ResponseParser(HeadLimits limits);

  // Holds until the next expect(); reset() keeps it, for the responses that follow a 1xx.
  // upgrade_offered: the request was forwarded with Upgrade; when false a 101 is a failure.
  void expect(std::string_view request_method, bool upgrade_offered = true);

  // As RequestParser::parse. No empty line before the status line is skipped.
  ParseStatus parse(std::string_view bytes);

  const ResponseHead& head() const { return head_; }  // after complete: views into the last `bytes`
  std::size_t head_size() const { return reader_.consumed(); }
  const ParseFailure& failure() const { return failure_; }
  void reset();

 private:
  enum class Asked : std::uint8_t { other, head, connect };

  ParseStatus fail(std::string_view detail);
  void follow(std::string_view bytes);
  bool note_field(const Field& field);
  bool parse_status_line(std::string_view line);
  bool settle_framing();
  bool settle_connection();
  ParseStatus finish();

  HeadReader reader_;
  ResponseHead head_;
  ParseFailure failure_;
  ParseStatus status_ = ParseStatus::incomplete;
  Asked asked_ = Asked::other;
  bool upgrade_offered_ = true;
  static constexpr std::size_t kAbsent = static_cast<std::size_t>(-1);
  std::size_t content_length_ = kAbsent, transfer_encoding_ = kAbsent;
  bool has_connection_ = false;
  std::uintptr_t base_ = 0;  // where the bytes of the last parse() began
};

}  // namespace tollgate::http
