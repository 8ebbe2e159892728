#include "metering/identity/lookup_table.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>

#include "metering/base/check.h"
#include "metering/identity/openssl_handles.h"

namespace tollgate::identity {

LookupTable::LookupTable(std::string secret, std::size_t entries)
    : secret_(std::move(secret)), shard_capacity_(std::max<std::size_t>(1, entries / kShards)) {
  CHECK(secret_.size() >= 32, "the secret of a table has 256 bits");
}

SessionKey LookupTable::key_of(std::string_view source_identity, std::string_view credential) const {
  std::string text(source_identity);
  text.append(1, '\0').append(credential);
  SessionKey key;
  unsigned size = 0;
  CHECK(HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()), openssl::bytes(text),
             text.size(), key.data(), &size) != nullptr &&
            size == key.size(),
        "HMAC-SHA256 can be made");
  return key;
}

std::shared_ptr<const LookupVerdict> LookupTable::find(const SessionKey& key, UnixTime now) {
  Shard& shard = shard_of(key);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.entries.find(key);
  if (found == shard.entries.end()) return nullptr;
  if (now >= found->second.verdict->until) {
    shard.order.erase(found->second.place);
    shard.entries.erase(found);
    return nullptr;
  }
  shard.order.splice(shard.order.begin(), shard.order, found->second.place);
  return found->second.verdict;
}

void LookupTable::store(const SessionKey& key, std::shared_ptr<const LookupVerdict> verdict) {
  Shard& shard = shard_of(key);
  const std::lock_guard lock(shard.mutex);
  auto [at, added] = shard.entries.try_emplace(key);
  at->second.verdict = std::move(verdict);
  if (!added) {
    shard.order.splice(shard.order.begin(), shard.order, at->second.place);
    return;
  }
  shard.order.push_front(key);
  at->second.place = shard.order.begin();
  if (shard.entries.size() <= shard_capacity_) return;
  shard.entries.erase(shard.order.back());
  shard.order.pop_back();
}

std::size_t LookupTable::size() const {
  std::size_t sum = 0;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    sum += shard.entries.size();
  }
  return sum;
}

}  // namespace tollgate::identity
