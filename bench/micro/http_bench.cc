// The HTTP room on what a CRM portal sends: a 1.2 KiB request with cookies and a bearer token, its head
// written anew, chunked bodies. Goal: request head <= 0.5 us, no allocation in steady state.
#include <benchmark/benchmark.h>

#include <string>
#include <string_view>

#include "metering/base/check.h"
#include "proxy/http/address.h"
#include "proxy/http/body_decoder.h"
#include "proxy/http/forward.h"
#include "proxy/http/request_parser.h"
#include "proxy/http/response_parser.h"

namespace tollgate::http {
namespace {

// 1.2 KiB, 15 fields.
const std::string& crm_request() {
  static const std::string kRequest =
      "GET "
      "/0/odata/"
      "Case?$filter=StatusId%20eq%20ae5f2f10-f46b-1410-fd9a-0050ba5d6c38&$select=Id,Number,Subject&$top=20 "
      "HTTP/1.1\r\n"
      "Host: crm.example.com\r\n"
      "Connection: keep-alive\r\n"
      "Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." +
      std::string(230, 'x') + "." + std::string(43, 'y') +
      "\r\n"
      "Accept: application/json;odata=verbose\r\n"
      "Accept-Encoding: gzip, deflate, br\r\n"
      "Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n"
      "BPMCSRF: oGvKd8JGYv5nUn7eHyHmqu\r\n"
      "Cache-Control: no-cache\r\n"
      "Cookie: BPMSESSIONID=qobtf3hmkmcqoxwbzyz1icjf; .ASPXAUTH=" +
      std::string(96, 'A') +
      "; BPMCSRF=oGvKd8JGYv5nUn7eHyHmqu; BPMLOADER=zwbqtwxkzpqwp0kegl2sgsdy; UserType=83|83|80|79|78\r\n"
      "ForceUseSession: true\r\n"
      "Referer: https://crm.example.com/0/Nui/ViewModule.aspx\r\n"
      "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
      "Chrome/124.0 Safari/537.36\r\n"
      "X-Requested-With: XMLHttpRequest\r\n"
      "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
      "X-Request-Id: 4bf92f3577b34da6\r\n"
      "\r\n";
  return kRequest;
}

void BM_ParseCrmRequestHead(benchmark::State& state) {
  const std::string& bytes = crm_request();
  RequestParser parser({});
  for (auto _ : state) {
    parser.reset();
    CHECK(parser.parse(bytes) == ParseStatus::complete, "the request of the bench is good");
    benchmark::DoNotOptimize(parser.head().path.data());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * bytes.size()));
  state.counters["head_bytes"] = static_cast<double>(bytes.size());
}
BENCHMARK(BM_ParseCrmRequestHead);

void BM_ParseCrmRequestHeadInReadsOf100Bytes(benchmark::State& state) {
  const std::string_view bytes = crm_request();
  RequestParser parser({});
  for (auto _ : state) {
    parser.reset();
    ParseStatus status = ParseStatus::incomplete;
    for (std::size_t size = 100; status == ParseStatus::incomplete; size += 100)
      status = parser.parse(bytes.substr(0, size));
    CHECK(status == ParseStatus::complete, "the request of the bench is good");
  }
}
BENCHMARK(BM_ParseCrmRequestHeadInReadsOf100Bytes);

void BM_ForwardCrmRequestHead(benchmark::State& state) {
  RequestParser parser({});
  CHECK(parser.parse(crm_request()) == ParseStatus::complete, "the request of the bench is good");
  RequestForwarding how;
  how.request_id = "4bf92f3577b34da6";
  how.peer_address = "192.0.2.7";
  std::string out;
  for (auto _ : state) {
    out.clear();
    append_request_head(out, parser.head(), how);
    benchmark::DoNotOptimize(out.data());
  }
}
BENCHMARK(BM_ForwardCrmRequestHead);

constexpr std::string_view kResponse =
    "HTTP/1.1 200 OK\r\nServer: Microsoft-IIS/10.0\r\nCache-Control: no-cache\r\nContent-Type: "
    "application/json; "
    "odata.metadata=minimal\r\nOData-Version: 4.0\r\nX-Content-Type-Options: nosniff\r\nDate: Sun, 06 Nov "
    "1994 08:49:37 "
    "GMT\r\nContent-Length: 1024\r\nSet-Cookie: BPMSESSIONID=qobtf3hmkmcqoxwbzyz1icjf; path=/; "
    "HttpOnly\r\n\r\n";

void BM_ParseResponseHead(benchmark::State& state) {
  ResponseParser parser({});
  parser.expect("GET");
  for (auto _ : state) {
    parser.reset();
    CHECK(parser.parse(kResponse) == ParseStatus::complete, "the response of the bench is good");
  }
}
BENCHMARK(BM_ParseResponseHead);

void BM_ForwardResponseHead(benchmark::State& state) {
  ResponseParser parser({});
  parser.expect("GET");
  CHECK(parser.parse(kResponse) == ParseStatus::complete, "the response of the bench is good");
  ResponseForwarding how;
  how.framing = Framing::length;
  how.content_length = 1024;
  how.request_id = "4bf92f3577b34da6";
  how.extra_fields = "RateLimit-Policy: \"daily\";q=1000;w=86400\r\nRateLimit: \"daily\";r=127;t=4211\r\n";
  std::string out;
  for (auto _ : state) {
    out.clear();
    append_response_head(out, parser.head(), how);
    benchmark::DoNotOptimize(out.data());
  }
}
BENCHMARK(BM_ForwardResponseHead);

// Argument: payload bytes of each chunk; 64 KiB of payload in all.
void BM_DecodeChunkedBody(benchmark::State& state) {
  const auto chunk = static_cast<std::size_t>(state.range(0));
  std::string bytes;
  for (std::size_t sent = 0; sent < 64 * 1024; sent += chunk) {
    append_chunk_start(bytes, chunk);
    bytes.append(chunk, 'x').append(kChunkEnd);
  }
  append_last_chunk(bytes);
  for (auto _ : state) {
    BodyDecoder decoder(Framing::chunked, 0, {});
    std::string_view left = bytes;
    std::size_t payload = 0;
    while (!decoder.done()) {
      const BodyDecoder::Step step = decoder.next(left);
      CHECK(!step.failed, "the body of the bench is good");
      payload += step.payload.size();
      left.remove_prefix(step.consumed);
    }
    CHECK(payload >= 64 * 1024, "all of it");
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * bytes.size()));
}
BENCHMARK(BM_DecodeChunkedBody)->Arg(16)->Arg(1024)->Arg(16 * 1024);

void BM_ClientBehindTwoTrustedProxies(benchmark::State& state) {
  const std::string bytes =
      "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.2\r\nX-Forwarded-Proto: "
      "https\r\n\r\n";
  RequestParser parser({});
  CHECK(parser.parse(bytes) == ParseStatus::complete, "the request of the bench is good");
  const std::vector<std::string> networks = {"10.0.0.0/8", "192.168.0.0/16", "fd00::/8"};
  const auto trusted = AddressSet::parse(networks);
  for (auto _ : state) benchmark::DoNotOptimize(client_of("10.0.0.1", false, parser.head(), *trusted));
}
BENCHMARK(BM_ClientBehindTwoTrustedProxies);

}  // namespace
}  // namespace tollgate::http
