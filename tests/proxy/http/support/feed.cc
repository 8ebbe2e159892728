#include "tests/proxy/http/support/feed.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <ostream>

#include "proxy/http/request_parser.h"
#include "proxy/http/response_parser.h"

namespace tollgate::http::testing {
namespace {

std::string describe(const Fields& fields) {
  std::string out;
  for (const Field& field : fields) out += fmt::format("  {}: {}\n", field.name, field.value);
  return out;
}

// A heap block of exactly these bytes.
struct Block {
  explicit Block(std::string_view bytes)
      : size(bytes.size()), memory(new char[bytes.size() + (bytes.empty() ? 1 : 0)]) {
    bytes.copy(memory.get(), size);
  }
  std::string_view view() const { return {memory.get(), size}; }
  std::size_t size;
  std::unique_ptr<char[]> memory;
};

template <class Parser>
Parsed run(Parser& parser, std::string_view bytes, const std::vector<std::size_t>& cuts) {
  Parsed parsed;
  std::vector<std::size_t> sizes = cuts;
  sizes.push_back(bytes.size());
  std::unique_ptr<Block> block;
  for (std::size_t size : sizes) {
    auto longer = std::make_unique<Block>(bytes.substr(0, size));
    parsed.status = parser.parse(longer->view());
    block = std::move(longer);  // the old bytes are gone only now: a view into them would be caught below
  }
  if (parsed.status == ParseStatus::failed) parsed.failure = parser.failure();
  if (parsed.status == ParseStatus::complete) {
    parsed.head = testing::describe(parser.head());
    parsed.head_size = parser.head_size();
  }
  return parsed;
}

std::vector<std::string> texts(const std::vector<TrailerField>& trailers) {
  std::vector<std::string> out;
  for (const TrailerField& field : trailers) out.push_back(field.name + ": " + field.value);
  return out;
}

}  // namespace

std::string describe(const RequestHead& head) {
  return fmt::format(
      "{} target={} path={} query={}{} authority={} HTTP/1.{} framing={} length={} keep_alive={} continue={} "
      "upgrade={}\n{}",
      head.method, head.target, head.path, head.has_query ? "?" : "-", head.query, head.authority,
      head.minor_version, static_cast<int>(head.framing), head.content_length, head.keep_alive,
      head.expect_continue, head.wants_upgrade, describe(head.fields));
}

std::string describe(const ResponseHead& head) {
  return fmt::format("HTTP/1.{} {} phrase={} framing={} length={} keep_alive={}\n{}", head.minor_version,
                     head.status, head.reason_phrase, static_cast<int>(head.framing), head.content_length,
                     head.keep_alive, describe(head.fields));
}

bool Parsed::operator==(const Parsed& other) const {
  return status == other.status && failure.reason == other.failure.reason &&
         failure.detail == other.failure.detail && head_size == other.head_size && head == other.head;
}

std::ostream& operator<<(std::ostream& out, const Parsed& parsed) {
  switch (parsed.status) {
    case ParseStatus::incomplete:
      return out << "incomplete";
    case ParseStatus::failed:
      return out << "failed: " << code(parsed.failure.reason) << ": " << parsed.failure.detail;
    case ParseStatus::complete:
      break;
  }
  return out << "complete, " << parsed.head_size << " bytes: " << parsed.head;
}

Parsed parse_request(std::string_view bytes, const std::vector<std::size_t>& cuts, HeadLimits limits) {
  RequestParser parser(limits);
  return run(parser, bytes, cuts);
}

Parsed parse_response(std::string_view bytes, Asking asking, const std::vector<std::size_t>& cuts,
                      HeadLimits limits) {
  ResponseParser parser(limits);
  parser.expect(asking.method, asking.upgrade_offered);
  return run(parser, bytes, cuts);
}

Decoded decode(BodyDecoder decoder, std::string_view bytes, const std::vector<std::size_t>& cuts) {
  Decoded decoded;
  std::vector<std::size_t> sizes = cuts;
  sizes.push_back(bytes.size());
  std::size_t begin = 0;
  for (std::size_t size : sizes) {
    const Block block(bytes.substr(begin, size - begin));
    std::string_view left = block.view();
    for (;;) {
      const BodyDecoder::Step step = decoder.next(left);
      EXPECT_LE(step.consumed, left.size());
      EXPECT_TRUE(step.payload.empty() ||
                  (step.payload.data() >= left.data() &&
                   step.payload.data() + step.payload.size() <= left.data() + step.consumed))
          << "payload outside of what was consumed";
      decoded.payload += step.payload;
      left.remove_prefix(step.consumed);
      decoded.done = step.done;
      decoded.failed = step.failed;
      if (step.done || step.failed || step.consumed == 0) break;
    }
    begin = size - left.size();
  }
  decoded.rest = bytes.substr(begin);
  decoded.trailers = texts(decoder.trailers());
  decoded.failure = decoder.failure();
  return decoded;
}

Decoded decode_chunked(std::string_view bytes, const std::vector<std::size_t>& cuts, BodyLimits limits) {
  return decode(BodyDecoder(Framing::chunked, 0, limits), bytes, cuts);
}

std::vector<std::size_t> every_position(std::string_view bytes) {
  std::vector<std::size_t> cuts;
  for (std::size_t i = 0; i < bytes.size(); ++i) cuts.push_back(i);
  return cuts;
}

Parsed request_however_cut(std::string_view bytes, HeadLimits limits) {
  const Parsed whole = parse_request(bytes, {}, limits);
  for (std::size_t cut = 0; cut < bytes.size(); ++cut)
    EXPECT_EQ(parse_request(bytes, {cut}, limits), whole) << "cut at " << cut;
  EXPECT_EQ(parse_request(bytes, every_position(bytes), limits), whole) << "byte by byte";
  return whole;
}

Parsed response_however_cut(std::string_view bytes, Asking asking, HeadLimits limits) {
  const Parsed whole = parse_response(bytes, asking, {}, limits);
  for (std::size_t cut = 0; cut < bytes.size(); ++cut)
    EXPECT_EQ(parse_response(bytes, asking, {cut}, limits), whole) << "cut at " << cut;
  EXPECT_EQ(parse_response(bytes, asking, every_position(bytes), limits), whole) << "byte by byte";
  return whole;
}

Decoded chunked_however_cut(std::string_view bytes, BodyLimits limits) {
  const Decoded whole = decode_chunked(bytes, {}, limits);
  const auto expect_same = [&](const std::vector<std::size_t>& cuts) {
    const Decoded other = decode_chunked(bytes, cuts, limits);
    EXPECT_EQ(other.payload, whole.payload);
    EXPECT_EQ(other.trailers, whole.trailers);
    EXPECT_EQ(other.done, whole.done);
    EXPECT_EQ(other.failed, whole.failed);
    EXPECT_EQ(other.failure.reason, whole.failure.reason);
    EXPECT_EQ(other.failure.detail, whole.failure.detail);
    if (whole.done) {
      EXPECT_EQ(other.rest, whole.rest);
    }
  };
  for (std::size_t cut = 0; cut < bytes.size(); ++cut) expect_same({cut});
  expect_same(every_position(bytes));
  return whole;
}

}  // namespace tollgate::http::testing
