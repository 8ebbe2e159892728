// One worker's way from the name of an account to its counters: an open-addressed table of handles, so that the common
// look-up is one place here, one account and one cell, without a lock and without making a string.
//
// A name is found by its hash and then compared with the one in the cell: equal hashes of different names only cost a
// second look. Retired accounts are not returned. When it is three quarters full the cache starts anew: handles are
// cheap to find again, and what is no longer used does not stay.
//
// One thread.
#pragma once
#include <functional>
#include <vector>

#include "metering/quota/lease_table.h"

namespace tollgate::quota {

class LeaseHandles {
 public:
  explicit LeaseHandles(std::size_t entries) {
    std::size_t places = 64;
    while (places * 3 / 4 < entries) places *= 2;
    most_ = places * 3 / 4;
    places_.resize(places);
  }

  static std::uint64_t hash(const AccountKey& key) {
    const std::uint64_t subject = std::hash<std::string_view>{}(key.subject_key);
    return (subject ^ (subject >> 29)) * 0x9e3779b97f4a7c15ULL ^ std::hash<std::string_view>{}(key.field);
  }

  // nullptr: not here, or retired. Valid until the next insert().
  const AccountRef* find(const AccountKey& key, std::uint64_t hash) const {
    for (std::size_t at = hash & (places_.size() - 1);; at = (at + 1) & (places_.size() - 1)) {
      const Place& place = places_[at];
      if (!place.account) return nullptr;
      if (place.hash != hash) continue;
      // Three places in memory are about to be read, and none of them is needed to find the next.
      const auto* cell = reinterpret_cast<const char*>(place.cell);
      __builtin_prefetch(cell);
      __builtin_prefetch(cell + 192);
      __builtin_prefetch(place.account.get());
      if (place.account->retired.load(std::memory_order_acquire)) continue;
      const std::string_view name = place.cell->name();
      if (name.size() == key.subject_key.size() + 1 + key.field.size() && name.starts_with(key.subject_key) &&
          name.ends_with(key.field))
        return &place.account;
    }
  }

  void insert(std::uint64_t hash, AccountRef account) {
    if (used_ >= most_) clear();
    std::size_t at = hash & (places_.size() - 1);
    // The place of a retired one of the same hash is free: chains of other hashes run through it unbroken.
    while (places_[at].account &&
           !(places_[at].hash == hash && places_[at].account->retired.load(std::memory_order_acquire)))
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
  struct Place {
    std::uint64_t hash = 0;
    AccountRef account;
    LeaseCell* cell = nullptr;
  };
  std::vector<Place> places_;
  std::size_t used_ = 0, most_ = 0;
};

}  // namespace tollgate::quota
