// Chunked bodies: payload, trailers and end do not depend on how bytes are cut; what is accepted and written
// anew as chunks reads back the same; a plain decoder written from the grammar alone agrees about every
// accepted body. llhttp reads what goes out as that body, and what came in too, unless it refuses (blanks in extensions).
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "proxy/http/body_decoder.h"
#include "tests/fuzz/second_reader.h"

namespace {

using namespace tollgate;
using namespace tollgate::http;

constexpr BodyLimits kLimits{.body_bytes = 4096,
                             .chunk_line_bytes = 64,
                             .chunk_overhead = 256,
                             .trailer_bytes = 256,
                             .trailer_count = 8};

struct Outcome {
  std::string payload;
  bool done = false, failed = false;
  std::size_t consumed = 0;
  ParseFailure failure;
  std::vector<TrailerField> trailers;
};

Outcome decode(std::string_view bytes, std::size_t step_size, const BodyLimits& limits = kLimits) {
  BodyDecoder decoder(Framing::chunked, 0, limits);
  Outcome outcome;
  std::size_t at = 0;
  while (at < bytes.size() && !outcome.done && !outcome.failed) {
    const std::string piece(bytes.substr(at, step_size));
    std::string_view left = piece;
    while (!left.empty() && !outcome.done && !outcome.failed) {
      const BodyDecoder::Step step = decoder.next(left);
      CHECK(step.consumed <= left.size() && (step.consumed > 0 || step.done || step.failed), "no progress");
      outcome.payload += step.payload;
      outcome.done = step.done;
      outcome.failed = step.failed;
      left.remove_prefix(step.consumed);
      at += step.consumed;
    }
  }
  outcome.consumed = at;
  outcome.failure = decoder.failure();
  outcome.trailers = decoder.trailers();
  return outcome;
}

// The payload as the grammar has it, for a body that is known to be good. No state machine: looks for line
// ends.
std::string decode_plainly(std::string_view bytes, std::size_t& consumed) {
  std::string payload;
  std::size_t at = 0;
  for (;;) {
    std::uint64_t size = 0;
    const std::size_t line_end = bytes.find("\r\n", at);
    CHECK(line_end != std::string_view::npos, "an accepted body has a size line without end");
    for (std::size_t i = at; i < line_end && hex_value(bytes[i]) >= 0; ++i)
      size = size * 16 + static_cast<std::uint64_t>(hex_value(bytes[i]));
    at = line_end + 2;
    if (size == 0) break;
    payload += bytes.substr(at, static_cast<std::size_t>(size));
    at += static_cast<std::size_t>(size);
    CHECK(bytes.substr(at, 2) == "\r\n", "an accepted chunk does not end in CRLF");
    at += 2;
  }
  while (bytes.substr(at, 2) != "\r\n") {
    at = bytes.find("\r\n", at);
    CHECK(at != std::string_view::npos, "an accepted trailer has no end");
    at += 2;
  }
  consumed = at + 2;
  return payload;
}

void check_second_reading(std::string_view body, std::string_view payload, bool may_refuse) {
  std::string request = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  request.append(body).append("GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
  const fuzz::Reading seen = fuzz::read_requests(request);
  if (may_refuse && !seen.error.empty()) return;
  CHECK(seen.error.empty() && seen.messages.size() == 2, "llhttp finds another end");
  CHECK(seen.messages[0].body == payload && seen.messages[1].target == "/next", "llhttp finds another body");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Outcome whole = decode(bytes, bytes.size() + 1);
  for (const std::size_t step : {1U, 2U, 3U, 17U}) {
    const Outcome cut = decode(bytes, step);
    CHECK(cut.payload == whole.payload && cut.done == whole.done && cut.failed == whole.failed,
          "depends on how bytes are cut");
    CHECK(cut.failure.reason == whole.failure.reason && cut.failure.detail == whole.failure.detail,
          "another failure when cut");
    CHECK(!whole.done || cut.consumed == whole.consumed, "another end when cut");
    CHECK(cut.trailers.size() == whole.trailers.size(), "other trailers when cut");
  }
  if (!whole.done) return 0;
  std::size_t consumed = 0;
  CHECK(decode_plainly(bytes, consumed) == whole.payload && consumed == whole.consumed,
        "another reading than the grammar's");
  check_second_reading(bytes.substr(0, whole.consumed), whole.payload, true);
  std::string again;
  if (!whole.payload.empty()) {
    append_chunk_start(again, whole.payload.size());
    again.append(whole.payload).append(kChunkEnd);
  }
  append_last_chunk(again, whole.trailers);
  check_second_reading(again, whole.payload, false);
  BodyLimits roomy = kLimits;
  roomy.trailer_bytes += 2 * kLimits.trailer_count;  // "name:value" is written as "name: value"
  const Outcome twice = decode(again, again.size(), roomy);
  CHECK(twice.done && twice.payload == whole.payload && twice.trailers.size() == whole.trailers.size(),
        "round trip");
  return 0;
}
