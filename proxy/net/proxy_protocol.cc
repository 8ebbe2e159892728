#include "proxy/net/proxy_protocol.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "metering/base/ascii.h"
#include "proxy/http/address.h"

namespace tollgate::net {

namespace {

using Status = ProxyHeader::Status;

constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::string_view kWord = "PROXY ";
constexpr std::size_t kLineMax = 107;
constexpr std::size_t kFixed = 16;
constexpr std::uint8_t kCrc32c = 0x03;

std::uint8_t byte(std::string_view bytes, std::size_t at) {
  return static_cast<std::uint8_t>(bytes[at]);
}
std::uint16_t word(std::string_view bytes, std::size_t at) {
  return static_cast<std::uint16_t>(byte(bytes, at) << 8 | byte(bytes, at + 1));
}

// Up to the next blank, which is taken too.
std::string_view take_word(std::string_view& rest) {
  const std::size_t blank = std::min(rest.find(' '), rest.size());
  const std::string_view taken = rest.substr(0, blank);
  rest.remove_prefix(std::min(blank + 1, rest.size()));
  return taken;
}

std::optional<std::uint16_t> port_of(std::string_view text) {
  if (text.empty() || text.size() > 5 || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  const auto number = parse_decimal(text);
  if (!number || *number > 65'535) return std::nullopt;
  return static_cast<std::uint16_t>(*number);
}

ProxyHeader parse_line(std::string_view bytes) {
  const std::size_t end = bytes.substr(0, kLineMax).find("\r\n");
  if (end == std::string_view::npos)
    return {.status = bytes.size() < kLineMax ? Status::incomplete : Status::failed};
  std::string_view rest = bytes.substr(kWord.size(), end - kWord.size());
  const std::size_t size = end + 2;
  const std::string_view family = take_word(rest);
  if (family == "UNKNOWN") return {.status = Status::complete, .size = size};
  if (family != "TCP4" && family != "TCP6") return {};
  const std::string_view source = take_word(rest), destination = take_word(rest);
  const auto source_port = port_of(take_word(rest));
  if (rest.find(' ') != std::string_view::npos) return {};
  const auto destination_port = port_of(rest);
  const bool v6 = family == "TCP6";
  for (const std::string_view address : {source, destination})
    if (!http::parse_address(address) || (address.find(':') != std::string_view::npos) != v6) return {};
  if (!source_port || !destination_port) return {};
  return {.status = Status::complete,
          .size = size,
          .source = http::parse_address(source)->to_string(),
          .port = *source_port};
}

// CRC-32C (RFC 4960 appendix B), with `hole` bytes at `at` taken as zero.
std::uint32_t crc32c(std::string_view bytes, std::size_t at, std::size_t hole) {
  std::uint32_t crc = ~std::uint32_t{0};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    crc ^= i >= at && i < at + hole ? 0U : byte(bytes, i);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (0x82f63b78U & (0U - (crc & 1)));
  }
  return ~crc;
}

// The fields behind the addresses: whole, and with a checksum that is right if there is one.
bool fields_are_sound(std::string_view header, std::size_t at) {
  while (at < header.size()) {
    if (header.size() - at < 3) return false;
    const std::uint8_t type = byte(header, at);
    const std::size_t length = word(header, at + 1);
    at += 3;
    if (header.size() - at < length) return false;
    if (type == kCrc32c) {
      if (length != 4) return false;
      const std::uint32_t sent = static_cast<std::uint32_t>(word(header, at)) << 16 | word(header, at + 2);
      if (sent != crc32c(header, at, 4)) return false;
    }
    at += length;
  }
  return true;
}

http::IpAddress v4_address(std::string_view bytes) {
  http::IpAddress address;
  address.bytes[10] = address.bytes[11] = 0xff;
  std::memcpy(address.bytes.data() + 12, bytes.data(), 4);
  return address;
}

http::IpAddress v6_address(std::string_view bytes) {
  http::IpAddress address;
  std::memcpy(address.bytes.data(), bytes.data(), 16);
  return address;
}

ProxyHeader parse_block(std::string_view bytes) {
  if (bytes.size() < kFixed) return {.status = Status::incomplete};
  const std::uint8_t command = byte(bytes, 12);
  const std::uint8_t family = byte(bytes, 13) >> 4, transport = byte(bytes, 13) & 15;
  const std::size_t length = word(bytes, 14);
  if (command != 0x20 && command != 0x21) return {};
  const bool local =
      command == 0x20;  // a health check of the sender's own: all but the length is to be ignored
  if (!local && (family > 3 || transport > 1 || (family == 0) != (transport == 0))) return {};
  if (length > kProxyHeaderMax - kFixed) return {};
  constexpr std::array<std::size_t, 4> kAddresses = {0, 12, 36, 216};
  if (!local && length < kAddresses[family]) return {};
  if (bytes.size() < kFixed + length) return {.status = Status::incomplete};
  const std::string_view header = bytes.substr(0, kFixed + length);
  ProxyHeader out{.status = Status::complete, .size = header.size()};
  if (local) return out;
  if (family != 0 && !fields_are_sound(header, kFixed + kAddresses[family])) return {};
  if (family == 1) {
    out.source = v4_address(header.substr(kFixed)).to_string();
    out.port = word(header, kFixed + 8);
  } else if (family == 2) {
    out.source = v6_address(header.substr(kFixed)).to_string();
    out.port = word(header, kFixed + 32);
  }
  return out;
}

}  // namespace

ProxyHeader parse_proxy_header(std::string_view bytes) {
  if (bytes.empty()) return {.status = Status::incomplete};
  const std::string_view known = bytes.front() == 'P' ? kWord : kSignature;
  const std::size_t seen = std::min(bytes.size(), known.size());
  if (bytes.substr(0, seen) != known.substr(0, seen)) return {};
  if (seen < known.size()) return {.status = Status::incomplete};
  return known == kWord ? parse_line(bytes) : parse_block(bytes);
}

}  // namespace tollgate::net
