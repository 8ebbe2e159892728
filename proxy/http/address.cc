#include "proxy/http/address.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "metering/base/ascii.h"
#include "proxy/http/syntax.h"

namespace tollgate::http {
namespace {

constexpr std::array<std::uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool parse_v4(std::string_view text, std::uint8_t* out) {
  for (int part = 0; part < 4; ++part) {
    std::size_t digits = 0;
    unsigned value = 0;
    while (digits < text.size() && digits < 3 && is_digit(text[digits]))
      value = value * 10 + static_cast<unsigned>(text[digits++] - '0');
    if (digits == 0 || value > 255 || (digits > 1 && text[0] == '0')) return false;
    out[part] = static_cast<std::uint8_t>(value);
    text.remove_prefix(digits);
    if (part == 3) return text.empty();
    if (text.empty() || text.front() != '.') return false;
    text.remove_prefix(1);
  }
  return false;
}

// Groups of one side of "::" as bytes; an IPv4 tail counts as two groups. Size of the answer, or -1.
int parse_groups(std::string_view text, bool may_end_in_v4, std::array<std::uint8_t, 16>& out) {
  std::size_t size = 0;
  if (text.empty()) return 0;
  for (;;) {
    const std::size_t colon = text.find(':');
    const std::string_view group = text.substr(0, colon);
    const bool last = colon == std::string_view::npos;
    if (last && may_end_in_v4 && group.find('.') != std::string_view::npos) {
      if (size + 4 > out.size() || !parse_v4(group, out.data() + size)) return -1;
      return static_cast<int>(size + 4);
    }
    if (group.empty() || group.size() > 4 || size + 2 > out.size()) return -1;
    unsigned value = 0;
    for (char c : group) {
      if (hex_value(c) < 0) return -1;
      value = value << 4 | static_cast<unsigned>(hex_value(c));
    }
    out[size++] = static_cast<std::uint8_t>(value >> 8);
    out[size++] = static_cast<std::uint8_t>(value & 0xff);
    if (last) return static_cast<int>(size);
    text.remove_prefix(colon + 1);
  }
}

bool parse_v6(std::string_view text, std::array<std::uint8_t, 16>& out) {
  const std::size_t gap = text.find("::");
  std::array<std::uint8_t, 16> left{}, right{};
  if (gap == std::string_view::npos) return parse_groups(text, true, out) == 16;
  const int left_size = parse_groups(text.substr(0, gap), false, left);
  const int right_size = parse_groups(text.substr(gap + 2), true, right);
  // "::" stands for one group or more (RFC 4291 section 2.2).
  if (left_size < 0 || right_size < 0 || left_size + right_size > 14) return false;
  out.fill(0);
  std::copy_n(left.begin(), left_size, out.begin());
  std::copy_n(right.begin(), right_size, out.end() - right_size);
  return true;
}

// RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups becomes "::".
std::string format_v6(const std::array<std::uint8_t, 16>& bytes) {
  const auto group = [&](int i) {
    return bytes[static_cast<std::size_t>(2 * i)] << 8 | bytes[static_cast<std::size_t>(2 * i + 1)];
  };
  int best = -1, best_size = 1;
  for (int i = 0; i < 8; ++i) {
    int size = 0;
    while (i + size < 8 && group(i + size) == 0) ++size;
    if (size > best_size) {
      best = i;
      best_size = size;
    }
  }
  std::string out;
  for (int i = 0; i < 8;) {
    if (i == best) {
      out += "::";
      i += best_size;
      continue;
    }
    if (!out.empty() && out.back() != ':') out += ':';
    fmt::format_to(std::back_inserter(out), "{:x}", group(i));
    ++i;
  }
  return out;
}

bool matches(const IpAddress& a, const IpAddress& b, unsigned prefix) {
  const std::size_t whole = prefix / 8;
  if (!std::equal(a.bytes.begin(), a.bytes.begin() + whole, b.bytes.begin())) return false;
  const unsigned rest = prefix % 8;
  return rest == 0 || ((a.bytes[whole] ^ b.bytes[whole]) >> (8 - rest)) == 0;
}

// All values of a list field in order, read from the right: lines from the last to the first, elements
// likewise. visit(element) returns false to stop.
template <class Visit>
void for_each_element_from_right(const Fields& fields, std::string_view name, Visit&& visit) {
  for (std::size_t i = fields.size(); i-- > 0;) {
    if (!equals_ignore_case(fields[i].name, name)) continue;
    std::string_view list = fields[i].value;
    for (;;) {
      const std::size_t comma = list.rfind(',');
      const std::string_view element = trim(comma == std::string_view::npos ? list : list.substr(comma + 1));
      if (!visit(element)) return;
      if (comma == std::string_view::npos) break;
      list = list.substr(0, comma);
    }
  }
}

// One element of Forwarded (RFC 7239 section 4): parameters a=token or a="quoted", each at most once.
struct ForwardedElement {
  std::string_view by_for, proto, host;
};

std::optional<ForwardedElement> parse_forwarded(std::string_view element) {
  ForwardedElement parsed;
  while (!element.empty()) {
    const std::size_t semicolon = std::min(element.find(';'), element.size());
    const std::string_view pair = trim(element.substr(0, semicolon));
    element.remove_prefix(std::min(semicolon + 1, element.size()));
    if (pair.empty()) continue;
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view name = pair.substr(0, equals);
    std::string_view value = pair.substr(equals + 1);
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
      value = value.substr(1, value.size() - 2);
      if (value.find_first_of("\"\\") != std::string_view::npos) return std::nullopt;
    } else if (!is_token(value)) {
      return std::nullopt;
    }
    std::string_view* place = equals_ignore_case(name, "for")     ? &parsed.by_for
                              : equals_ignore_case(name, "proto") ? &parsed.proto
                              : equals_ignore_case(name, "host")  ? &parsed.host
                                                                  : nullptr;
    if (place == nullptr) continue;
    if (!place->empty()) return std::nullopt;
    *place = value;
  }
  return parsed;
}

std::string_view last_element(const Fields& fields, std::string_view name) {
  std::string_view last;
  for_each_element_from_right(fields, name, [&](std::string_view element) {
    last = element;
    return false;
  });
  return last;
}

void apply_proto(std::string_view proto, ClientInfo& client) {
  if (equals_ignore_case(proto, "https") || equals_ignore_case(proto, "wss")) client.https = true;
  if (equals_ignore_case(proto, "http") || equals_ignore_case(proto, "ws")) client.https = false;
}

void apply_host(std::string_view host, ClientInfo& client) {
  if (parse_authority(host).valid) client.host = host;
}

}  // namespace

bool IpAddress::is_v4() const {
  return std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin());
}

std::string IpAddress::to_string() const {
  if (!is_v4()) return format_v6(bytes);
  char text[16];  // of every request
  char* end = text;
  for (std::size_t i = 12; i < 16; ++i) {
    end = std::to_chars(end, text + sizeof text, bytes[i]).ptr;
    *end++ = '.';
  }
  return {text, end - 1};
}

std::optional<IpAddress> parse_address(std::string_view text) {
  IpAddress address;
  if (text.find(':') != std::string_view::npos) {
    if (!parse_v6(text, address.bytes)) return std::nullopt;
    return address;
  }
  std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), address.bytes.begin());
  if (!parse_v4(text, address.bytes.data() + kMappedPrefix.size())) return std::nullopt;
  return address;
}

std::optional<IpAddress> parse_address_with_port(std::string_view text) {
  const auto is_port = [](std::string_view port) {
    const std::optional<std::uint64_t> number = parse_decimal(port);
    return number && port.size() <= 5 && *number <= 65'535;
  };
  if (!text.empty() && text.front() == '[') {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view inside = text.substr(1, end - 1), rest = text.substr(end + 1);
    if (inside.find(':') == std::string_view::npos) return std::nullopt;
    if (!rest.empty() && (rest.front() != ':' || !is_port(rest.substr(1)))) return std::nullopt;
    return parse_address(inside);
  }
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || text.find(':', colon + 1) != std::string_view::npos)
    return parse_address(text);
  if (!is_port(text.substr(colon + 1))) return std::nullopt;
  return parse_address(text.substr(0, colon));
}

Result<AddressSet> AddressSet::parse(std::span<const std::string> cidrs) {
  AddressSet set;
  for (const std::string& cidr : cidrs) {
    const auto bad = [&](std::string_view why) {
      return fail(Origin::config, fmt::format("\"{}\" is not a network: {}", cidr, why));
    };
    const std::string_view text = cidr;
    const std::size_t slash = text.find('/');
    const std::string_view address_text = text.substr(0, slash);
    const std::optional<IpAddress> address = parse_address(address_text);
    if (!address) return bad("expected an address such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7");
    unsigned prefix = 128;
    if (slash != std::string_view::npos) {
      const unsigned offset = address_text.find(':') == std::string_view::npos ? 96 : 0;
      const std::string_view digits = text.substr(slash + 1);
      const std::optional<std::uint64_t> bits = parse_decimal(digits);
      if (!bits || *bits > 128 - offset || (digits.size() > 1 && digits.front() == '0'))
        return bad(fmt::format("the prefix after / must be a number from 0 to {}", 128 - offset));
      prefix = static_cast<unsigned>(*bits) + offset;
    }
    Network network{*address, prefix};
    for (unsigned bit = prefix; bit < 128; ++bit)
      network.base.bytes[bit / 8] =
          static_cast<std::uint8_t>(network.base.bytes[bit / 8] & ~(0x80U >> (bit % 8)));
    if (network.base != *address) return bad("bits are set beyond the prefix");
    set.networks_.push_back(network);
  }
  return set;
}

bool AddressSet::contains(const IpAddress& address) const {
  return std::ranges::any_of(
      networks_, [&](const Network& network) { return matches(network.base, address, network.prefix); });
}

bool AddressSet::contains(std::string_view address) const {
  if (networks_.empty()) return false;
  const std::optional<IpAddress> parsed = parse_address(address);
  return parsed && contains(*parsed);
}

std::string canonical_address(std::string_view text) {
  const std::optional<IpAddress> address = parse_address(text);
  return address ? address->to_string() : std::string();
}

ClientInfo client_of(std::string_view peer_address, bool peer_https, const RequestHead& head,
                     const AddressSet& trusted) {
  ClientInfo client{
      .address = std::string(peer_address), .https = peer_https, .host = std::string(head.authority)};
  if (trusted.empty()) return client;
  const std::optional<IpAddress> peer = parse_address(peer_address);
  if (!peer || !trusted.contains(*peer)) return client;
  client.trusted_peer = true;

  IpAddress known = *peer;
  // True to look further left: the address is one of ours, so its word about its own neighbour counts.
  const auto step = [&](std::string_view text) {
    const std::optional<IpAddress> address = parse_address_with_port(text);
    if (!address) return false;
    known = *address;
    return trusted.contains(known);
  };
  if (find(head.fields, "x-forwarded-for") != nullptr) {
    for_each_element_from_right(head.fields, "x-forwarded-for", step);
  } else {
    for_each_element_from_right(head.fields, "forwarded", [&](std::string_view text) {
      const std::optional<ForwardedElement> element = parse_forwarded(text);
      if (!element) return false;
      apply_proto(element->proto, client);
      apply_host(element->host, client);
      return step(element->by_for);
    });
  }
  client.address = known.to_string();
  apply_proto(last_element(head.fields, "x-forwarded-proto"), client);
  apply_host(last_element(head.fields, "x-forwarded-host"), client);
  return client;
}

}  // namespace tollgate::http
