// Keys that TLS session tickets are sealed with, made from a secret and the time, so that processes that share
// nothing but the secret seal and open alike, and change keys at the same moments without talking. A period's
// keys are HKDF-Expand (RFC 5869 section 2.3) of the secret for the number of the period.
//
// A ticket of the period before is still opened, and one of the period after (clocks differ); older ones are
// not: who recorded traffic and later gets a period's keys reads no more than that. Who gets the secret reads
// all, so the secret itself should be replaced from time to time: the new one first in
// listeners[].tls.ticket_secret_files, the old one behind it for one period.
//
// Threads: any. The keys of the time are made once a period.
#pragma once
#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/time.h"

namespace tollgate::net {

struct TicketKey {
  std::array<std::uint8_t, 16> name;  // in clear in each ticket
  std::array<std::uint8_t, 32> mac, cipher;
  bool current = true;  // no newer one is to be used
};

class TicketKeys {
 public:
  static constexpr std::size_t kSecretMin = 32;  // bytes

  // The first secret seals. At least one; rotation > 0.
  TicketKeys(std::vector<std::string> secrets, Milliseconds rotation);

  TicketKey seal(UnixTime now) const;
  std::optional<TicketKey> open(const std::uint8_t name[16], UnixTime now) const;
  Milliseconds rotation() const { return rotation_; }
  const std::vector<std::string>& secrets() const { return secrets_; }

 private:
  static TicketKey derive(std::string_view secret, std::int64_t period);
  // Of a period, the one before and the one after: what is sealed or opened in it. current: as at that time.
  struct Known {
    std::int64_t period = -1;
    std::vector<TicketKey> keys;  // the first one seals
  };
  template <class Use>
  auto with_keys(UnixTime now, Use use) const;

  std::vector<std::string> secrets_;
  Milliseconds rotation_;
  mutable std::mutex mutex_;
  mutable Known known_;  // guarded by mutex_
};

}  // namespace tollgate::net
