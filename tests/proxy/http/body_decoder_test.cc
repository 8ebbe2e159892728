#include "proxy/http/body_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "metering/base/random.h"
#include "tests/proxy/http/support/feed.h"

namespace tollgate::http::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Case {
  std::string name;
  std::string bytes;
  Reason reason = Reason::bad_request;
};

std::string operator""_bytes(const char* text, std::size_t size) {
  return {text, size};
}

std::vector<Case> refused_cases() {
  return {
      {"SizeWithPlus", "+5\r\nhello\r\n0\r\n\r\n"},
      {"SizeWithMinus", "-5\r\nhello\r\n0\r\n\r\n"},
      {"SizeWith0x", "0x5\r\nhello\r\n0\r\n\r\n"},
      {"SizeWithLeadingSpace", " 5\r\nhello\r\n0\r\n\r\n"},
      {"SizeWithLeadingTab", "\t5\r\nhello\r\n0\r\n\r\n"},
      {"SizeWithTrailingSpace", "5 \r\nhello\r\n0\r\n\r\n"},
      {"SizeWithTrailingTab", "5\t\r\nhello\r\n0\r\n\r\n"},
      {"SizeWithUnderscore", "1_0\r\n"},
      {"SizeEmpty", "\r\nhello\r\n0\r\n\r\n"},
      {"SizeNotHex", "g\r\nhello\r\n0\r\n\r\n"},
      {"SizeNegativeZero", "-0\r\n\r\n"},
      {"SizeDecimalPoint", "5.0\r\nhello\r\n"},
      {"SizeWithSuffixH", "5h\r\nhello\r\n"},
      {"SizeQuoted", "\"5\"\r\nhello\r\n"},
      {"SizeOnlyExtension", ";a=b\r\n"},
      {"SizeOfSeventeenDigits", "00000000000000005\r\nhello\r\n"},
      {"SizeOf64Bits", "ffffffffffffffff\r\n"},
      {"SizeOf2To63", "8000000000000000\r\n"},
      {"SumOfSizesBeyond2To63", "5\r\nhello\r\n7fffffffffffffff\r\n"},
      {"SizeLineEndsInLf", "5\nhello\r\n0\r\n\r\n"},
      {"SizeLineEndsInCr", "5\rhello\r\n0\r\n\r\n"},
      {"SizeLineEndsInCrCrLf", "5\r\r\nhello\r\n0\r\n\r\n"},
      {"SizeLineWithNul", "5\0\r\nhello\r\n"_bytes},
      {"SizeLineWithVerticalTab", "5\x0b\r\nhello\r\n"},
      {"ChunkEndsInLf", "5\r\nhello\n0\r\n\r\n"},
      {"ChunkEndsInCr", "5\r\nhello\r0\r\n\r\n"},
      {"ChunkEndsInNothing", "5\r\nhello0\r\n\r\n"},
      {"ChunkLongerThanSize", "5\r\nhello!\r\n0\r\n\r\n"},
      {"ChunkShorterThanSize", "6\r\nhello\r\n0\r\n\r\n"},
      {"ChunkEndsInTwoOtherBytes", "5\r\nhelloXX0\r\n\r\n"},
      {"ExtensionWithoutName", "5;\r\nhello\r\n0\r\n\r\n"},
      {"ExtensionOfEquals", "5;=b\r\nhello\r\n"},
      {"ExtensionWithoutValue", "5;a=\r\nhello\r\n0\r\n\r\n"},
      {"ExtensionEndsInLf", "5;a\nhello\r\n0\r\n\r\n"},
      {"ExtensionValueEndsInLf", "5;a=b\nhello\r\n0\r\n\r\n"},
      {"ExtensionWithCrInside", "5;a\rb\r\nhello\r\n"},
      {"ExtensionWithNul", "5;a\0\r\nhello\r\n"_bytes},
      {"ExtensionQuoteUnclosed", "5;a=\"b\r\nhello\r\n"},
      {"ExtensionQuoteWithLf", "5;a=\"b\n\"\r\nhello\r\n"},
      {"ExtensionQuoteWithEscapedLf", "5;a=\"b\\\n\"\r\nhello\r\n"},
      {"ExtensionJunkAfterQuote", "5;a=\"b\"c\r\nhello\r\n"},
      {"ExtensionTrailingSpace", "5;a \r\nhello\r\n"},
      {"ExtensionTwoWords", "5;a b\r\nhello\r\n"},
      {"ExtensionWithComma", "5;a,b\r\nhello\r\n"},
      {"ExtensionWithNonAscii", "5;\xc3\xa9\r\nhello\r\n"},
      {"SpaceThenJunkAfterSize", "5 a\r\nhello\r\n"},
      {"SizeLineTooLong", "5;" + std::string(1100, 'a') + "\r\nhello\r\n"},
      {"LastChunkEndsInLf", "0\n\r\n"},
      {"BodyEndsInLf", "0\r\n\n"},
      {"BodyEndsInCrX", "0\r\n\rX"},
      {"TrailerEndsInLf", "0\r\nA: b\n\r\n"},
      {"TrailerWithBareCr", "0\r\nA: b\rc\r\n\r\n"},
      {"TrailerWithNul", "0\r\nA: \0\r\n\r\n"_bytes},
      {"TrailerFolded", "0\r\nA: b\r\n c\r\n\r\n"},
      {"TrailerSpaceBeforeColon", "0\r\nA : b\r\n\r\n"},
      {"TrailerWithoutColon", "0\r\nA\r\n\r\n"},
      {"TrailerWithEmptyName", "0\r\n: b\r\n\r\n"},
      {"TrailerContentLength", "0\r\nContent-Length: 5\r\n\r\n"},
      {"TrailerTransferEncoding", "0\r\ntransfer-encoding: chunked\r\n\r\n"},
      {"TrailerHost", "0\r\nHost: evil\r\n\r\n"},
      {"TrailerIsARequest", "0\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"TrailersTooLarge", "0\r\nA: " + std::string(9000, 'a') + "\r\n\r\n", Reason::header_too_large},
      {"TrailersTooMany",
       [] {
         std::string bytes = "0\r\n";
         for (int i = 0; i < 33; ++i) bytes += "A: b\r\n";
         return bytes + "\r\n";
       }(),
       Reason::header_too_large},
  };
}

class RefusedChunks : public ::testing::TestWithParam<Case> {};

TEST_P(RefusedChunks, AreRefusedHoweverTheyAreCut) {
  const Decoded decoded = chunked_however_cut(GetParam().bytes);
  EXPECT_TRUE(decoded.failed) << "payload " << decoded.payload << " rest " << decoded.rest;
  EXPECT_FALSE(decoded.done);
  EXPECT_EQ(code(decoded.failure.reason), code(GetParam().reason));
  EXPECT_FALSE(decoded.failure.detail.empty());
}

INSTANTIATE_TEST_SUITE_P(Case, RefusedChunks, ::testing::ValuesIn(refused_cases()),
                         [](const auto& test) { return test.param.name; });

TEST(ChunkedBody, ChunksAreJoinedAndTheRestIsTheNextMessage) {
  const Decoded decoded =
      chunked_however_cut("5\r\nhello\r\n1\r\n \r\n00A\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1\r\n");
  EXPECT_TRUE(decoded.done);
  EXPECT_EQ(decoded.payload, "hello 0123456789");
  EXPECT_EQ(decoded.rest, "GET / HTTP/1.1\r\n");
}

TEST(ChunkedBody, EmptyBodyIsOneLastChunk) {
  for (std::string last : {"0\r\n\r\n", "000\r\n\r\n", "0;a\r\n\r\n"}) {
    const Decoded decoded = chunked_however_cut(last);
    EXPECT_TRUE(decoded.done) << last;
    EXPECT_EQ(decoded.payload, "");
  }
}

TEST(ChunkedBody, SizesAreHexadecimalInBothCases) {
  const Decoded decoded = chunked_however_cut("a\r\n0123456789\r\nB\r\n0123456789A\r\n0\r\n\r\n");
  EXPECT_TRUE(decoded.done);
  EXPECT_EQ(decoded.payload.size(), 21U);
}

TEST(ChunkedBody, PayloadMayLookLikeFraming) {
  const Decoded decoded = chunked_however_cut("7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n");
  EXPECT_TRUE(decoded.done);
  EXPECT_EQ(decoded.payload, "0\r\n\r\n\r\n");
}

TEST(ChunkedBody, GoodExtensionsAreDropped) {
  for (std::string extension : {";a", ";a=b", " ; a = b", ";a=\"b\"", ";a=\"b;\\\"c\\\\ \xc3\xa9\t\" ;d",
                                "\t;\ta\t;b", ";a=\"\"", ";a;b;c=d"}) {
    const Decoded decoded = chunked_however_cut("5" + extension + "\r\nhello\r\n0" + extension + "\r\n\r\n");
    EXPECT_TRUE(decoded.done) << extension << ": " << decoded.failure.detail;
    EXPECT_EQ(decoded.payload, "hello");
  }
}

TEST(ChunkedBody, ManySmallChunksAreFairButManyExtensionsAreNot) {
  std::string fair, unfair;
  for (int i = 0; i < 20'000; ++i) fair += "1\r\nx\r\n";
  for (int i = 0; i < 100; ++i) unfair += "1;" + std::string(900, 'a') + "\r\nx\r\n";
  EXPECT_EQ(decode_chunked(fair + "0\r\n\r\n").payload.size(), 20'000U);
  const Decoded decoded = decode_chunked(unfair + "0\r\n\r\n");
  EXPECT_TRUE(decoded.failed);
  EXPECT_LT(decoded.payload.size(), 30U);
}

TEST(ChunkedBody, AllowedTrailersAreKeptAndDangerousOnesDropped) {
  const Decoded decoded = chunked_however_cut(
      "0\r\nX-Checksum:  abc \r\nAuthorization: Bearer x\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: "
      "6.6.6.6\r\n"
      "Set-Cookie: a=b\r\nContent-Type: text/html\r\nX-HTTP-Method: DELETE\r\nConnection: close\r\nTrailer: "
      "x\r\n"
      "grpc-status: 0\r\nETag: \"1\"\r\n\r\nrest");
  EXPECT_TRUE(decoded.done) << decoded.failure.detail;
  EXPECT_THAT(decoded.trailers, ElementsAre("X-Checksum: abc", "grpc-status: 0", "ETag: \"1\""));
  EXPECT_EQ(decoded.rest, "rest");
}

TEST(ChunkedBody, TrailersAtTheLimitsPass) {
  const BodyLimits limits{.trailer_bytes = 30, .trailer_count = 2};
  EXPECT_TRUE(chunked_however_cut("0\r\nA: b\r\nC: " + std::string(17, 'd') + "\r\n\r\n", limits).done);
  const Decoded decoded = chunked_however_cut("0\r\nA: b\r\nC: " + std::string(23, 'd') + "\r\n\r\n", limits);
  EXPECT_TRUE(decoded.failed);
  EXPECT_EQ(decoded.failure.reason, Reason::header_too_large);
}

TEST(ChunkedBody, BodyLimitCountsPayloadOnly) {
  const BodyLimits limits{.body_bytes = 10};
  EXPECT_TRUE(chunked_however_cut("5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n", limits).done);
  const Decoded decoded = chunked_however_cut("5\r\nhello\r\n6\r\nhello!\r\n0\r\n\r\n", limits);
  EXPECT_TRUE(decoded.failed);
  EXPECT_EQ(decoded.failure.reason, Reason::body_too_large);
  EXPECT_EQ(decoded.payload, "hello");
}

TEST(ChunkedBody, FailuresOfAnUpstreamAreUpstreamInvalid) {
  BodyDecoder decoder(Framing::chunked, 0, {}, Reason::upstream_invalid);
  EXPECT_TRUE(decoder.next("x").failed);
  EXPECT_EQ(decoder.failure().reason, Reason::upstream_invalid);
  ResponseHead head;
  head.framing = Framing::chunked;
  BodyDecoder trailers = BodyDecoder::of_response(head, {.trailer_bytes = 4});
  EXPECT_TRUE(trailers.next("0\r\nA: bcdef").failed);
  EXPECT_EQ(trailers.failure().reason, Reason::upstream_invalid);
}

TEST(ChunkedBody, EndOfConnectionInTheMiddleIsNotAnEnd) {
  for (std::string part : {"", "5", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "0\r\n\r", "0\r\nA: b\r\n"}) {
    BodyDecoder decoder(Framing::chunked, 0, {});
    std::string_view left = part;
    while (!left.empty()) left.remove_prefix(decoder.next(left).consumed);
    EXPECT_FALSE(decoder.may_end_here()) << part;
  }
}

TEST(ChunkedBody, WhatIsWrittenIsReadBack) {
  const std::uint64_t seed = 20261122;
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  Random random(seed);
  for (int round = 0; round < 200; ++round) {
    std::string payload, bytes;
    for (std::uint64_t i = random.below(6); i > 0; --i) {
      std::string chunk(static_cast<std::size_t>(1 + random.below(40)), '\0');
      for (char& c : chunk) c = static_cast<char>(random.below(256));
      append_chunk_start(bytes, chunk.size());
      bytes.append(chunk).append(kChunkEnd);
      payload += chunk;
    }
    append_last_chunk(bytes, {{"X-Sum", "1"}});
    const Decoded decoded = chunked_however_cut(bytes + "next");
    ASSERT_TRUE(decoded.done) << decoded.failure.detail;
    ASSERT_EQ(decoded.payload, payload);
    ASSERT_THAT(decoded.trailers, ElementsAre("X-Sum: 1"));
    ASSERT_EQ(decoded.rest, "next");
  }
}

TEST(ChunkedBody, SizesAreWrittenInHexadecimal) {
  std::string out;
  append_chunk_start(out, 1);
  append_chunk_start(out, 255);
  append_chunk_start(out, 0x123456789abcdef0);
  append_last_chunk(out);
  EXPECT_EQ(out, "1\r\nff\r\n123456789abcdef0\r\n0\r\n\r\n");
}

TEST(LengthBody, EndsAfterItsBytes) {
  for (std::size_t cut = 0; cut <= 8; ++cut) {
    const Decoded decoded = decode(BodyDecoder(Framing::length, 5, {}), "hello...", {cut});
    EXPECT_TRUE(decoded.done);
    EXPECT_EQ(decoded.payload, "hello");
    EXPECT_EQ(decoded.rest, "...");
  }
  BodyDecoder decoder(Framing::length, 5, {});
  EXPECT_FALSE(decoder.next("hell").done);
  EXPECT_FALSE(decoder.may_end_here());
  EXPECT_EQ(decoder.payload_bytes(), 4U);
}

TEST(LengthBody, WithoutBytesIsDoneAtOnce) {
  for (const Framing framing : {Framing::none, Framing::length}) {
    BodyDecoder decoder(framing, 0, {});
    EXPECT_TRUE(decoder.done());
    const BodyDecoder::Step step = decoder.next("GET");
    EXPECT_TRUE(step.done);
    EXPECT_EQ(step.consumed, 0U);
    EXPECT_TRUE(decoder.next("").done);
  }
}

TEST(LengthBody, BeyondTheLimitFailsBeforeAnyByte) {
  BodyDecoder decoder(Framing::length, 11, {.body_bytes = 10});
  const BodyDecoder::Step step = decoder.next("hello");
  EXPECT_TRUE(step.failed);
  EXPECT_EQ(step.consumed, 0U);
  EXPECT_EQ(decoder.failure().reason, Reason::body_too_large);
  EXPECT_TRUE(decoder.next("").failed);
}

TEST(UntilCloseBody, EndsOnlyWithTheConnection) {
  BodyDecoder decoder(Framing::until_close, 0, {.body_bytes = 8});
  BodyDecoder::Step step = decoder.next("hello");
  EXPECT_EQ(step.payload, "hello");
  EXPECT_FALSE(step.done);
  EXPECT_TRUE(decoder.may_end_here());
  EXPECT_TRUE(decoder.next("1234").failed) << "9 bytes";
}

TEST(BodyDecoder, PayloadIsASliceOfTheInput) {
  const std::string bytes = "5\r\nhello\r\n0\r\n\r\n";
  BodyDecoder decoder(Framing::chunked, 0, {});
  const BodyDecoder::Step step = decoder.next(bytes);
  EXPECT_EQ(step.payload.data(), bytes.data() + 3);
  EXPECT_EQ(step.consumed, 8U);
}

}  // namespace
}  // namespace tollgate::http::testing
