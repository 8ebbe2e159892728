// The PROXY protocol, versions 1 and 2: the line or block by which a load balancer of layer 4 says in front of
// a connection from whom it is. Pure and strict: anything but what the specification allows is a failure,
// because whoever can send such a header chooses the address it is known by.
//
// Source: "The PROXY protocol, versions 1 & 2" (haproxy, doc/proxy-protocol.txt), sections 2.1 and 2.2.
//   v1   one line of at most 107 bytes: "PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n", TCP6, or UNKNOWN
//   v2   16 bytes and as many as these say (here at most 4096): LOCAL or PROXY, TCP over IPv4 or IPv6, Unix
//        sockets or unspecified; then fields of type, length, value, of which a checksum (PP2_TYPE_CRC32C) is
//        verified and others are skipped. Datagrams are refused. Of LOCAL, a check of the sender's own, all but
//        the length is ignored.
//
// Threads: none of its own.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace tollgate::net {

struct ProxyHeader {
  enum class Status : std::uint8_t { incomplete, complete, failed };
  Status status = Status::failed;
  std::size_t size = 0;    // complete: bytes of the header
  std::string source{};    // complete: the client's address, numeric; "": it does not say, the peer's holds
  std::uint16_t port = 0;  // with source: the client's port
};

// The longest header that is accepted, and so the most that has to be looked at.
inline constexpr std::size_t kProxyHeaderMax = 16 + 4'096;

// bytes: what the connection begins with, so far.
ProxyHeader parse_proxy_header(std::string_view bytes);

}  // namespace tollgate::net
