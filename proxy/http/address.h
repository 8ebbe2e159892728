// Who the client is: IP addresses, sets of networks, and the way back through trusted proxies.
//
// Only a peer inside `trusted_proxies` may say for whom it speaks. Its list is read from right to left: each
// address inside the set is one of ours and its left neighbour was written by it; the first address outside
// the set is the client. Everything left of that may be forged and is not looked at. An element that is no
// address ends the walk: the client is then the last address known for sure. X-Forwarded-For is used when
// present, Forwarded (RFC 7239) otherwise: proxies that write the first often pass the second on as the
// client sent it.
//
//   trusted = 10.0.0.0/8, peer 10.0.0.1, X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.2   ->  203.0.113.9
//   trusted = 10.0.0.0/8, peer 192.0.2.1, X-Forwarded-For: 127.0.0.1                       ->  192.0.2.1
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "proxy/http/message.h"

namespace tollgate::http {

// IPv4 is held as IPv4-mapped IPv6 (::ffff:a.b.c.d), so both spellings of one address are equal.
struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};

  bool is_v4() const;
  bool operator==(const IpAddress&) const = default;
  std::string to_string() const;  // dotted quad, or RFC 5952
};

// "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1". Strict: no leading zeros, no port, no brackets, no zone.
std::optional<IpAddress> parse_address(std::string_view text);
// As it stands in X-Forwarded-For and Forwarded: also "192.0.2.1:4711", "[2001:db8::1]",
// "[2001:db8::1]:4711".
std::optional<IpAddress> parse_address_with_port(std::string_view text);

class AddressSet {
 public:
  // CIDRs "10.0.0.0/8", "2001:db8::/32", "::ffff:10.0.0.0/104"; a bare address means that one alone.
  // Fails (Origin::config) naming the bad entry: no address, prefix out of range, or bits set beyond the
  // prefix.
  static Result<AddressSet> parse(std::span<const std::string> cidrs);

  bool contains(const IpAddress& address) const;  // linear in the number of networks
  bool contains(std::string_view address) const;  // false when it is no address
  bool empty() const { return networks_.empty(); }

 private:
  struct Network {
    IpAddress base;
    unsigned prefix = 128;  // in bits of the 16-byte form
  };
  std::vector<Network> networks_;
};

struct ClientInfo {
  std::string address{};      // canonical text; "" of a Unix socket
  bool https = false;         // the client's own connection
  std::string host{};         // the name the client asked for: a trusted X-Forwarded-Host, else the authority
  bool trusted_peer = false;  // the peer may speak for others: RequestForwarding::trusted_peer
};

// Any spelling of an address to its canonical one, IpAddress::to_string(); "" when it is none.
std::string canonical_address(std::string_view text);

// peer_address: of the socket, without port, canonical_address(). peer_https: the socket itself is TLS.
ClientInfo client_of(std::string_view peer_address, bool peer_https, const RequestHead& head,
                     const AddressSet& trusted);

}  // namespace tollgate::http
