// Finds the payload inside the bytes of a body, and where the body ends. Sans I/O, no copy of payload.
//
// Chunked coding (RFC 9112 section 7.1) is read strictly: 1 to 16 hexadecimal digits and nothing else (no
// sign, no 0x, no space), size at most 2^63-1, exact CRLF; extensions are checked for syntax, bounded and
// dropped; trailer lines obey the same rules as head fields and are bounded. Trailer fields that frame, route
// or authenticate (field_names.h) are dropped; Content-Length, Transfer-Encoding and Host among them fail the
// message.
//
//   BodyDecoder body = BodyDecoder::of_request(head, limits);
//   for (;;) {
//     BodyDecoder::Step step = body.next(bytes);
//     use(step.payload);                      // a slice of `bytes`, perhaps empty
//     bytes.remove_prefix(step.consumed);
//     if (step.failed) ... body.failure()     // nothing after the payload can be trusted: close
//     if (step.done) break;                   // what is left of `bytes` is the next message
//     if (step.consumed == 0) break;          // needs more bytes
//   }
// Each byte is looked at once however reads are cut. No allocation unless there are trailers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/http/message.h"

namespace tollgate::http {

struct BodyLimits {
  std::uint64_t body_bytes = 0;            // payload; 0: no limit. Beyond it: body_too_large
  std::size_t chunk_line_bytes = 1024;     // one size line with its extensions
  std::size_t chunk_overhead = 16 * 1024;  // size lines beyond 2 bytes a payload byte and 16 a chunk
  std::size_t trailer_bytes = 8 * 1024;    // all trailer lines
  std::size_t trailer_count = 32;          // trailer fields, dropped ones too
};

struct TrailerField {
  std::string name, value;
};

class BodyDecoder {
 public:
  struct Step {
    std::size_t consumed = 0;
    std::string_view payload{};  // inside `bytes`, valid as long as they stay in place
    bool done = false;
    bool failed = false;
  };

  // `malformed` is the reason of syntax failures: bad_request of a client, upstream_invalid of an upstream.
  BodyDecoder(Framing framing, std::uint64_t content_length, BodyLimits limits,
              Reason malformed = Reason::bad_request);
  static BodyDecoder of_request(const RequestHead& head, BodyLimits limits);
  static BodyDecoder of_response(const ResponseHead& head, BodyLimits limits);

  // At most one payload slice a call. Done and failed are final: later calls consume nothing and say the
  // same. Bodies that have no bytes are done at the first call, even with empty `bytes`.
  Step next(std::string_view bytes);

  bool done() const { return state_ == State::done; }
  // The peer closed the connection: was that the end of the body? True when done and for until_close.
  bool may_end_here() const { return done() || state_ == State::until_close; }
  std::uint64_t payload_bytes() const { return payload_bytes_; }           // so far
  const std::vector<TrailerField>& trailers() const { return trailers_; }  // allowed ones, after done
  const ParseFailure& failure() const { return failure_; }

 private:
  enum class State : std::uint8_t {
    length,
    until_close,
    size_first,
    size,
    ext_bws,
    ext_name_start,
    ext_name,
    ext_name_bws,
    ext_value_start,
    ext_value,
    ext_quoted,
    ext_quoted_pair,
    ext_after,
    size_lf,
    payload,
    payload_cr,
    payload_lf,
    trailer,
    trailer_lf,
    done,
    failed
  };

  Step fail(std::size_t consumed, Reason reason, std::string_view detail);
  Step take_payload(std::string_view bytes, std::size_t begin);
  std::string_view on_size_digit(int digit);
  std::string_view on_size_line(char c);
  std::string_view on_extension(char c);
  std::string_view on_size_line_end();
  std::string_view on_trailer_line();
  std::size_t read_trailers(std::string_view bytes, std::size_t at);

  BodyLimits limits_;
  Reason malformed_;
  State state_;
  std::uint64_t left_ = 0;  // payload bytes of the chunk, or of the body
  std::uint64_t payload_bytes_ = 0;
  std::size_t digits_ = 0;
  std::size_t line_bytes_ = 0;
  std::uint64_t overhead_ = 0;
  std::size_t trailer_bytes_ = 0, trailer_count_ = 0;
  std::string trailer_line_;
  std::vector<TrailerField> trailers_;
  ParseFailure failure_;
};

// Writing chunked coding. `size` > 0, followed by that many payload bytes and kChunkEnd.
inline constexpr std::string_view kChunkEnd = "\r\n";
void append_chunk_start(std::string& out, std::uint64_t size);
// The last chunk with its trailer section: "0\r\n" name ": " value ... "\r\n".
void append_last_chunk(std::string& out, const std::vector<TrailerField>& trailers = {});

}  // namespace tollgate::http
