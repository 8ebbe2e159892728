// PROXY protocol headers: the outcome does not depend on how bytes come in; what is complete stays so whatever
// follows, is no longer than allowed and names an IP address or nothing.
#include <cstdint>
#include <string_view>

#include "metering/base/check.h"
#include "proxy/http/address.h"
#include "proxy/net/proxy_protocol.h"

using namespace tollgate;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  using Status = net::ProxyHeader::Status;
  const net::ProxyHeader whole = net::parse_proxy_header(bytes);
  CHECK(whole.size <= bytes.size() && whole.size <= net::kProxyHeaderMax, "no longer than what there is");
  CHECK(whole.status != Status::incomplete || bytes.size() < net::kProxyHeaderMax, "no endless header");
  CHECK(whole.source.empty() || http::parse_address(whole.source).has_value(), "a source is an address");
  // Byte by byte: incomplete, until it is what the whole is.
  Status before = Status::incomplete;
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    const net::ProxyHeader part = net::parse_proxy_header(bytes.substr(0, cut));
    if (before == Status::complete)
      CHECK(part.status == Status::complete && part.size == whole.size, "complete stays complete");
    if (before == Status::failed) CHECK(part.status == Status::failed, "failed stays failed");
    before = part.status;
  }
  CHECK(before == whole.status, "the same in the end");
  return 0;
}
