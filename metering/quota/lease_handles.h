// One worker's way from the name of an account to its counters: an open-addressed table of handles, so that the common
// look-up is one place here, one account and one cell, without a lock and without making a string.
//
// A name is found by 128 bits of a hash whose seed each process draws and told to nobody, so that names need not
// be compared, which would be two more places in memory: that two of a thousand million names agree by chance has a
// probability of 10^-21, and nobody can choose names that do. Retired accounts are not returned. When it is three quarters
// full the cache starts anew: handles are cheap to find again, and what is no longer used does not stay.
//
// One thread.
#pragma once
#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include <vector>

#include "metering/quota/lease_table.h"

namespace tollgate::quota {

class LeaseHandles {
 public:
  LeaseHandles(std::size_t entries, std::uint64_t seed) : seed_(seed) {
    std::size_t places = 64;
    while (places * 3 / 4 < entries) places *= 2;
    most_ = places * 3 / 4;
    places_.resize(places);
  }

  using Hash = XXH128_hash_t;

  Hash hash(const AccountKey& key) const {
    const Hash subject = XXH3_128bits_withSeed(key.subject_key.data(), key.subject_key.size(), seed_);
    Hash both = XXH3_128bits_withSeed(key.field.data(), key.field.size(), subject.low64 ^ seed_);
    both.high64 ^= subject.high64;
    return both;
  }

  // nullptr: not here, or retired. Valid until the next insert().
  const AccountRef* find(Hash hash) const {
    for (std::size_t at = hash.low64 & (places_.size() - 1);; at = (at + 1) & (places_.size() - 1)) {
      const Place& place = places_[at];
      if (!place.account) return nullptr;
      if (!same(place.hash, hash)) continue;
      // Both are about to be read, and neither is needed to find the other.
      __builtin_prefetch(place.cell, 1);
      if (place.account->retired.load(std::memory_order_acquire)) continue;
      return &place.account;
    }
  }

  void insert(Hash hash, AccountRef account) {
    if (used_ >= most_) clear();
    std::size_t at = hash.low64 & (places_.size() - 1);
    // The place of a retired one of the same hash is free: chains of other hashes run through it unbroken.
    while (places_[at].account &&
           !(same(places_[at].hash, hash) && places_[at].account->retired.load(std::memory_order_acquire)))
      at = (at + 1) & (places_.size() - 1);
    if (!places_[at].account) ++used_;
    LeaseCell* cell = account->cell;
    places_[at] = {hash, std::move(account), cell};
  }

  void clear() {
    for (Place& place : places_) place = {};
    used_ = 0;
  }

 private:
  static bool same(const Hash& a, const Hash& b) { return a.low64 == b.low64 && a.high64 == b.high64; }

  struct Place {
    Hash hash{};
    AccountRef account;
    LeaseCell* cell = nullptr;
  };
  std::vector<Place> places_;
  std::size_t used_ = 0, most_ = 0;
  std::uint64_t seed_;
};

}  // namespace tollgate::quota
