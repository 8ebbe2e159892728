// Request heads: the outcome does not depend on how bytes are cut; what is accepted, written anew and read
// again is the same message with the same end; what is refused has a reason of the client's and a text.
// What is accepted together with its body reaches an upstream as one message in canonical form: llhttp, and a reader of
// the grammar, see exactly one request with that body, and then the next one. What came in llhttp refuses (it knows fewer methods, and
// no blanks in chunk extensions) or reads in the same way.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "metering/base/check.h"
#include "proxy/http/address.h"
#include "proxy/http/body_decoder.h"
#include "proxy/http/forward.h"
#include "proxy/http/request_parser.h"
#include "tests/fuzz/forwarded_body.h"
#include "tests/fuzz/second_reader.h"

namespace {

using namespace tollgate;
using namespace tollgate::http;

constexpr HeadLimits kLimits{.head_bytes = 2048, .request_line = 512, .field_count = 24};

void check_same(const RequestParser& a, const RequestParser& b) {
  CHECK(a.head_size() == b.head_size(), "size of the head");
  const RequestHead &x = a.head(), &y = b.head();
  CHECK(x.method == y.method && x.target == y.target && x.path == y.path && x.query == y.query,
        "request line");
  CHECK(x.authority == y.authority && x.framing == y.framing && x.content_length == y.content_length,
        "framing");
  CHECK(x.keep_alive == y.keep_alive && x.wants_upgrade == y.wants_upgrade &&
            x.expect_continue == y.expect_continue,
        "flags");
  CHECK(x.fields.size() == y.fields.size(), "field count");
  for (std::size_t i = 0; i < x.fields.size(); ++i)
    CHECK(x.fields[i].name == y.fields[i].name && x.fields[i].value == y.fields[i].value, "field");
}

// As a connection would: a growing buffer that moves at each read of `step` bytes.
void check_in_steps(std::string_view bytes, std::size_t step, const RequestParser& whole,
                    ParseStatus expected) {
  RequestParser parser(kLimits);
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
  if (status == ParseStatus::complete) check_same(parser, whole);
}

void check_forwarding(const RequestHead& head, bool trusted) {
  RequestForwarding how{
      .framing = head.framing, .content_length = head.content_length, .request_id = "abcdefgh"};
  how.peer_address = "192.0.2.1";
  how.trusted_peer = trusted;
  how.default_host = "default";
  const std::string_view cookies[] = {"a", "b"};
  how.drop_cookies = cookies;
  how.upgrade = true;
  std::string out;
  append_request_head(out, head, how);
  RequestParser again({});
  CHECK(again.parse(out) == ParseStatus::complete, "a head of our own is refused");
  CHECK(again.head_size() == out.size(), "a head of our own ends early");
  CHECK(again.head().method == head.method && again.head().path == head.path &&
            again.head().query == head.query,
        "target");
  CHECK(again.head().framing == head.framing && again.head().content_length == head.content_length,
        "framing");
  CHECK(again.head().wants_upgrade == head.wants_upgrade, "upgrade");
}

constexpr std::string_view kNext = "GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

// The whole message for the upstream, by the functions that the proxy uses.
std::string forwarded(const RequestHead& head, bool trusted, bool upgrade, std::string_view payload,
                      const std::vector<TrailerField>& trailers) {
  RequestForwarding how{
      .framing = head.framing, .content_length = head.content_length, .request_id = "abcdefgh"};
  how.peer_address = "192.0.2.1";
  how.trusted_peer = trusted;
  how.default_host = "default";
  how.upgrade = upgrade;
  std::string out;
  append_request_head(out, head, how);
  const std::string wrong = fuzz::not_canonical(out);
  CHECK(wrong.empty(), wrong.c_str());
  fuzz::append_body(out, head.framing, payload, trailers);
  return out;
}

void check_second_reading(RequestHead head, std::string_view received, std::string_view payload,
                          const std::vector<TrailerField>& trailers) {
  const bool known = fuzz::knows_method(head.method);
  if (known && !head.wants_upgrade) {
    const fuzz::Reading raw = fuzz::read_requests(received);
    CHECK(!raw.error.empty() || (raw.messages.size() == 1 && raw.messages[0].complete),
          "llhttp finds another end in what came in");
    CHECK(!raw.error.empty() || raw.messages[0].body == payload, "llhttp finds another body in what came in");
  }
  if (!known) head.method = "POST";
  for (const bool trusted : {false, true}) {
    std::string out = forwarded(head, trusted, false, payload, trailers);
    out.append(kNext);
    const fuzz::Reading sent = fuzz::read_requests(out);
    CHECK(sent.error.empty() && sent.messages.size() == 2, "not one request for llhttp");
    const fuzz::Message& first = sent.messages[0];
    CHECK(first.complete && first.body == payload && !first.upgrade, "another body for llhttp");
    CHECK(first.method == head.method, "another method for llhttp");
    std::string target(head.path);
    if (head.has_query) target.append("?").append(head.query);
    CHECK(first.target == target, "another target for llhttp");
    CHECK(sent.messages[1].target == "/next" && sent.messages[1].complete, "another next request for llhttp");
  }
  forwarded(head, false, true, payload, trailers);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  RequestParser parser(kLimits);
  const ParseStatus status = parser.parse(bytes);
  for (const std::size_t step : {1U, 2U, 7U, 64U}) check_in_steps(bytes, step, parser, status);
  if (status == ParseStatus::failed) {
    CHECK(!parser.failure().detail.empty(), "a failure without a text");
    CHECK(
        info(parser.failure().reason).status / 100 == 4 || parser.failure().reason == Reason::not_implemented,
        "reason");
  }
  if (status != ParseStatus::complete) return 0;
  check_forwarding(parser.head(), false);
  check_forwarding(parser.head(), true);
  const auto trusted = AddressSet::parse(std::vector<std::string>{"10.0.0.0/8", "192.0.2.0/24"});
  const ClientInfo client = client_of("192.0.2.1", false, parser.head(), *trusted);
  CHECK(parse_address(client.address), "the client has no address");
  BodyDecoder body = BodyDecoder::of_request(parser.head(), {});
  std::string_view left = bytes.substr(parser.head_size());
  std::string payload;
  for (;;) {
    const BodyDecoder::Step step = body.next(left);
    CHECK(step.consumed <= left.size(), "more consumed than given");
    left.remove_prefix(step.consumed);
    payload.append(step.payload);
    if (step.done)
      check_second_reading(parser.head(), bytes.substr(0, bytes.size() - left.size()), payload,
                           body.trailers());
    if (step.done || step.failed || step.consumed == 0) break;
  }
  return 0;
}
