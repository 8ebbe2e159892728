// Request heads: the outcome does not depend on how bytes are cut; what is accepted, written anew and read
// again is the same message with the same end; what is refused has a reason of the client's and a text.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "metering/base/check.h"
#include "proxy/http/address.h"
#include "proxy/http/body_decoder.h"
#include "proxy/http/forward.h"
#include "proxy/http/request_parser.h"

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
  for (;;) {
    const BodyDecoder::Step step = body.next(left);
    CHECK(step.consumed <= left.size(), "more consumed than given");
    left.remove_prefix(step.consumed);
    if (step.done || step.failed || step.consumed == 0) break;
  }
  return 0;
}
