#include "proxy/net/ticket_keys.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <cstring>

#include "metering/base/check.h"

namespace tollgate::net {

TicketKeys::TicketKeys(std::vector<std::string> secrets, Milliseconds rotation)
    : secrets_(std::move(secrets)), rotation_(rotation) {
  CHECK(!secrets_.empty() && rotation_.count() > 0, "keys are made from a secret and a period");
}

std::int64_t TicketKeys::period_of(UnixTime now) const {
  return std::chrono::duration_cast<Milliseconds>(now.time_since_epoch()).count() / rotation_.count();
}

TicketKey TicketKeys::derive(std::string_view secret, std::int64_t period) {
  constexpr std::size_t kBlock = 32;
  std::array<std::uint8_t, 3 * kBlock> material{};
  std::string info = "tollgate session ticket ";
  for (int shift = 56; shift >= 0; shift -= 8) info.push_back(static_cast<char>(period >> shift));
  for (std::size_t block = 0; block < 3; ++block) {
    std::string text;
    if (block > 0) text.assign(reinterpret_cast<const char*>(material.data() + (block - 1) * kBlock), kBlock);
    text += info;
    text.push_back(static_cast<char>(block + 1));
    unsigned length = 0;
    const auto* made = HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
                            reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                            material.data() + block * kBlock, &length);
    CHECK(made != nullptr && length == kBlock, "HMAC-SHA256 works");
  }
  TicketKey key{};
  std::copy_n(material.begin(), 16, key.name.begin());
  std::copy_n(material.begin() + 16, 32, key.mac.begin());
  std::copy_n(material.begin() + 48, 32, key.cipher.begin());
  return key;
}

TicketKey TicketKeys::seal(UnixTime now) const {
  return derive(secrets_.front(), period_of(now));
}

std::optional<TicketKey> TicketKeys::open(const std::uint8_t name[16], UnixTime now) const {
  const std::int64_t period = period_of(now);
  for (std::size_t i = 0; i < secrets_.size(); ++i)
    for (const std::int64_t candidate : {period, period - 1, period + 1}) {
      TicketKey key = derive(secrets_[i], candidate);
      if (std::memcmp(key.name.data(), name, key.name.size()) != 0) continue;
      key.current = i == 0 && candidate >= period;
      return key;
    }
  return std::nullopt;
}

}  // namespace tollgate::net
