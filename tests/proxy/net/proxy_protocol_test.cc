#include "proxy/net/proxy_protocol.h"

#include <gtest/gtest.h>

#include "metering/base/random.h"

namespace tollgate::net {
namespace {

using Status = ProxyHeader::Status;
using namespace std::string_literals;

const std::string kSignature = "\r\n\r\n\0\r\nQUIT\n"s;

std::string block(char command, char family, std::string body) {
  std::string out = kSignature + command + family;
  out.push_back(static_cast<char>(body.size() >> 8));
  out.push_back(static_cast<char>(body.size() & 0xff));
  return out + body;
}
const std::string kV4 =
    "\xc0\x00\x02\x01\x0a\x00\x00\x09\xdc\x04\x01\xbb"s;  // 192.0.2.1:56324 to 10.0.0.9:443
const std::string kV6 =
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"s + std::string(15, '\0') + "\x01\x30\x39\x01\xbb"s;

TEST(ProxyProtocol, Version1SaysTheSource) {
  const std::string line = "PROXY TCP4 192.0.2.1 10.0.0.9 56324 443\r\n";
  const auto v4 = parse_proxy_header(line + "GET / HTTP/1.1\r\n");
  EXPECT_EQ(v4.status, Status::complete);
  EXPECT_EQ(v4.size, line.size());
  EXPECT_EQ(v4.source, "192.0.2.1");
  EXPECT_EQ(v4.port, 56324);
  const auto v6 = parse_proxy_header("PROXY TCP6 2001:DB8::7 ::1 1 65535\r\n");
  EXPECT_EQ(v6.status, Status::complete);
  EXPECT_EQ(v6.source, "2001:db8::7");
  const auto unknown = parse_proxy_header("PROXY UNKNOWN ffff::1 whatever\r\nX");
  EXPECT_EQ(unknown.status, Status::complete);
  EXPECT_EQ(unknown.size, 32U);
  EXPECT_EQ(unknown.source, "");
}

TEST(ProxyProtocol, Version2SaysTheSource) {
  const auto v4 = parse_proxy_header(block(0x21, 0x11, kV4) + "\x16\x03\x01");
  EXPECT_EQ(v4.status, Status::complete);
  EXPECT_EQ(v4.size, 28U);
  EXPECT_EQ(v4.source, "192.0.2.1");
  EXPECT_EQ(v4.port, 56324);
  const auto v6 = parse_proxy_header(block(0x21, 0x21, kV6));
  EXPECT_EQ(v6.status, Status::complete);
  EXPECT_EQ(v6.source, "2001:db8::7");
  EXPECT_EQ(v6.port, 12345);
  // Unix sockets, unspecified and the sender's own health checks leave the peer's address as it is.
  for (const std::string& header :
       {block(0x21, 0x31, std::string(216, 'x')), block(0x21, 0x00, "anything"), block(0x20, 0x00, ""),
        block(0x20, 0x11, kV4), block(0x20, 0x41, "ignored"), block(0x20, 0x12, "")}) {
    const auto parsed = parse_proxy_header(header);
    EXPECT_EQ(parsed.status, Status::complete);
    EXPECT_EQ(parsed.size, header.size());
    EXPECT_EQ(parsed.source, "");
  }
}

TEST(ProxyProtocol, FieldsBehindTheAddressesMustBeWhole) {
  EXPECT_EQ(parse_proxy_header(block(0x21, 0x11, kV4 + "\x04\x00\x02xy"s)).status, Status::complete);
  EXPECT_EQ(parse_proxy_header(block(0x21, 0x11, kV4 + "\x04\x00\x03xy"s)).status, Status::failed);
  EXPECT_EQ(parse_proxy_header(block(0x21, 0x11, kV4 + "\x04\x00"s)).status, Status::failed);
}

TEST(ProxyProtocol, AChecksumIsVerified) {
  // CRC-32C of the whole header with its own four bytes as zero, by the bitwise definition.
  std::string header = block(0x21, 0x11, kV4 + "\x03\x00\x04\0\0\0\0"s);
  std::uint32_t crc = 0xffffffffU;
  for (const char c : header) {
    crc ^= static_cast<std::uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78U : crc >> 1;
  }
  crc = ~crc;
  EXPECT_EQ(parse_proxy_header(header).status, Status::failed);
  for (int i = 0; i < 4; ++i)
    header[header.size() - 4 + static_cast<std::size_t>(i)] = static_cast<char>(crc >> (24 - 8 * i));
  EXPECT_EQ(parse_proxy_header(header).status, Status::complete);
}

TEST(ProxyProtocol, AnythingElseFails) {
  for (const std::string& wrong : {"GET / HTTP/1.1\r\n"s,
                                   "\x16\x03\x01\x02"s,
                                   "PROXX"s,
                                   "proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n"s,
                                   "PROXY  TCP4 192.0.2.1 10.0.0.9 1 2\r\n"s,
                                   "PROXY TCP4 192.0.2.1  10.0.0.9 1 2\r\n"s,
                                   "PROXY TCP4 192.0.2.1 10.0.0.9 1 2 \r\n"s,
                                   "PROXY TCP4 192.0.2.1 10.0.0.9 1 2 3\r\n"s,
                                   "PROXY TCP4 192.0.2.1 10.0.0.9 01 2\r\n"s,
                                   "PROXY TCP4 192.0.2.1 10.0.0.9 1 65536\r\n"s,
                                   "PROXY TCP4 192.0.2.1 10.0.0.9 1\r\n"s,
                                   "PROXY TCP4 192.0.2.1 10.0.0.9 +1 2\r\n"s,
                                   "PROXY TCP4 ::1 10.0.0.9 1 2\r\n"s,
                                   "PROXY TCP6 192.0.2.1 10.0.0.9 1 2\r\n"s,
                                   "PROXY TCP4 192.0.2.01 10.0.0.9 1 2\r\n"s,
                                   "PROXY TCP4 192.0.2.256 10.0.0.9 1 2\r\n"s,
                                   "PROXY UDP4 192.0.2.1 10.0.0.9 1 2\r\n"s,
                                   "PROXY TCP4\t192.0.2.1 10.0.0.9 1 2\r\n"s,
                                   "PROXY TCP4 192.0.2.1 10.0.0.9 1 2\n"s + std::string(107, 'x'),
                                   "PROXY UNKNOWN "s + std::string(107, 'x'),
                                   block(0x11, 0x11, kV4),
                                   block(0x22, 0x11, kV4),
                                   block(0x21, 0x12, kV4),
                                   block(0x21, 0x41, kV4),
                                   block(0x21, 0x10, kV4),
                                   block(0x21, 0x01, kV4),
                                   block(0x21, 0x11, "short"),
                                   block(0x21, 0x21, kV4),
                                   block(0x21, 0x00, std::string(4'097, 'x')),
                                   block(0x20, 0x41, std::string(4'097, 'x'))})
    EXPECT_EQ(parse_proxy_header(wrong).status, Status::failed) << wrong;
}

TEST(ProxyProtocol, EveryBeginningOfAHeaderIsIncomplete) {
  for (const std::string& header :
       {"PROXY TCP4 192.0.2.1 10.0.0.9 56324 443\r\n"s, "PROXY UNKNOWN\r\n"s, block(0x21, 0x21, kV6)}) {
    for (std::size_t cut = 0; cut < header.size(); ++cut)
      EXPECT_EQ(parse_proxy_header(header.substr(0, cut)).status, Status::incomplete) << cut;
    EXPECT_EQ(parse_proxy_header(header).status, Status::complete);
  }
}

}  // namespace
}  // namespace tollgate::net
