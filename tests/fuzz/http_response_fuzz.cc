// Response heads: the same outcome however cut; what is accepted and written anew reads back with the same
// status and an end that the client can see. The first byte of the input chooses the method of the request.
// What is accepted together with its body reaches a client as one response: llhttp sees exactly that one, and then the next.
#include <cstdint>
#include <string>
#include <string_view>

#include "metering/base/check.h"
#include "proxy/http/body_decoder.h"
#include "proxy/http/forward.h"
#include "proxy/http/response_parser.h"
#include "tests/fuzz/forwarded_body.h"
#include "tests/fuzz/second_reader.h"

namespace {

using namespace tollgate;
using namespace tollgate::http;

constexpr HeadLimits kLimits{.head_bytes = 2048, .request_line = 512, .field_count = 24};

void check_in_steps(std::string_view bytes, std::string_view method, std::size_t step,
                    const ResponseParser& whole, ParseStatus expected) {
  ResponseParser parser(kLimits);
  parser.expect(method);
  std::string buffer, next;
  ParseStatus status = parser.parse(buffer);
  for (std::size_t size = step; status == ParseStatus::incomplete; size += step) {
    next.assign(bytes.substr(0, size));
    next.shrink_to_fit();
    status = parser.parse(next);
    buffer.swap(next);
    if (size >= bytes.size()) break;
  }
  CHECK(status == expected, "the outcome depends on how bytes are cut");
  if (status == ParseStatus::failed)
    CHECK(parser.failure().detail == whole.failure().detail, "another failure when cut");
  if (status != ParseStatus::complete) return;
  CHECK(parser.head_size() == whole.head_size(), "size of the head");
  const ResponseHead &a = parser.head(), &b = whole.head();
  CHECK(a.status == b.status && a.reason_phrase == b.reason_phrase && a.framing == b.framing,
        "status line, framing");
  CHECK(a.content_length == b.content_length && a.keep_alive == b.keep_alive &&
            a.fields.size() == b.fields.size(),
        "rest");
  for (std::size_t i = 0; i < a.fields.size(); ++i)
    CHECK(a.fields[i].name == b.fields[i].name && a.fields[i].value == b.fields[i].value, "field");
}

void check_forwarding(const ResponseHead& head, std::string_view method, std::uint8_t minor) {
  const Framing framing = client_framing(head, minor);
  std::string out;
  append_response_head(out, head,
                       {.framing = framing,
                        .content_length = head.content_length,
                        .request_id = "abcdefgh",
                        .client_minor_version = minor,
                        .upgrade = head.status == 101});
  ResponseParser again({});
  again.expect(method);
  CHECK(again.parse(out) == ParseStatus::complete, "a head of our own is refused");
  CHECK(again.head_size() == out.size() && again.head().status == head.status,
        "a head of our own reads differently");
  CHECK(again.head().framing == framing, "framing");
  if (framing == Framing::length) CHECK(again.head().content_length == head.content_length, "length");
}

void check_second_reading(const ResponseHead& head, std::string_view method, std::string_view payload,
                          const std::vector<TrailerField>& trailers) {
  if (method == "CONNECT" || head.status == 101) return;  // no message ends there
  const Framing framing = client_framing(head, 1);
  std::string out;
  append_response_head(out, head,
                       {.framing = framing, .content_length = head.content_length, .request_id = "abcdefgh"});
  fuzz::append_body(out, framing, payload, trailers);
  out.append("HTTP/1.1 299 Next\r\nContent-Length: 0\r\n\r\n");
  // llhttp leaves it to its user that a 304 has no body.
  const fuzz::Reading seen = fuzz::read_responses(out, method == "HEAD" || head.status == 304, true);
  CHECK(seen.error.empty() && seen.messages.size() == 2, "not one response for llhttp");
  CHECK(seen.messages[0].status == head.status && seen.messages[0].body == payload,
        "another response for llhttp");
  CHECK(seen.messages[1].status == 299, "another next response for llhttp");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.empty()) return 0;
  const std::string_view method = bytes[0] == 'C' ? "CONNECT" : bytes[0] == 'D' ? "HEAD" : "GET";
  bytes.remove_prefix(1);
  ResponseParser parser(kLimits);
  parser.expect(method);
  const ParseStatus status = parser.parse(bytes);
  for (const std::size_t step : {1U, 2U, 7U, 64U}) check_in_steps(bytes, method, step, parser, status);
  if (status == ParseStatus::failed)
    CHECK(parser.failure().reason == Reason::upstream_invalid && !parser.failure().detail.empty(), "reason");
  if (status != ParseStatus::complete) return 0;
  check_forwarding(parser.head(), method, 1);
  check_forwarding(parser.head(), method, 0);
  BodyDecoder body = BodyDecoder::of_response(parser.head(), {});
  std::string_view left = bytes.substr(parser.head_size());
  std::string payload;
  for (;;) {
    const BodyDecoder::Step step = body.next(left);
    CHECK(step.consumed <= left.size(), "more consumed than given");
    left.remove_prefix(step.consumed);
    payload.append(step.payload);
    if (step.done || (left.empty() && body.may_end_here()))
      check_second_reading(parser.head(), method, payload, body.trailers());
    if (step.done || step.failed || step.consumed == 0) break;
  }
  return 0;
}
