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

template <class Use>
auto TicketKeys::with_keys(UnixTime now, Use use) const {
  const std::int64_t period =
      std::chrono::duration_cast<Milliseconds>(now.time_since_epoch()).count() / rotation_.count();
  const std::lock_guard guard(mutex_);
  if (period != known_.period) {
    known_ = {.period = period, .keys = {}};
    for (std::size_t i = 0; i < secrets_.size(); ++i)
      for (const std::int64_t candidate : {period, period - 1, period + 1}) {
        known_.keys.push_back(derive(secrets_[i], candidate));
        known_.keys.back().current = i == 0 && candidate >= period;
      }
  }
  return use(known_.keys);
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
  return with_keys(now, [](const std::vector<TicketKey>& keys) { return keys.front(); });
}

std::optional<TicketKey> TicketKeys::open(const std::uint8_t name[16], UnixTime now) const {
  return with_keys(now, [name](const std::vector<TicketKey>& keys) -> std::optional<TicketKey> {
    const auto found = std::ranges::find_if(keys, [name](const TicketKey& key) {
      return std::memcmp(key.name.data(), name, key.name.size()) == 0;
    });
    return found == keys.end() ? std::nullopt : std::optional(*found);
  });
}

}  // namespace tollgate::net
