#include "metering/identity/token_cache.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "metering/base/check.h"

namespace tollgate::identity {

// Two arrays:
//
//   index    power of two, at most half full:  [ tag 32 | entry+1 32 ]  open addressing, linear probing
//                                                             |
//   entries  filled once, then reused:         [ hash | token | verified | seen ]  <- hand (second chance)
//
// A look-up reads one or two neighbouring index words and the one entry whose 32-bit tag agrees; then the
// token itself decides. Removal shifts the following words back, so there are no tombstones and the load
// never creeps up. Eviction is the clock algorithm: the hand passes over entries seen since its last round
// and takes the first other.
struct TokenCache::Impl {
  struct Entry {
    std::uint64_t hash = 0;
    std::string token;
    std::shared_ptr<const VerifiedToken> verified;  // nullptr: free
    bool seen = false;
  };

  Impl(std::size_t entries_max, std::uint64_t hash_seed) : capacity(entries_max), seed(hash_seed) {
    CHECK(capacity < (std::size_t{1} << 30), "token cache too large");
    if (capacity > 0) index.resize(std::bit_ceil(capacity * 2));
  }

  std::uint64_t hash_of(std::string_view token) const {
    return XXH3_64bits_withSeed(token.data(), token.size(), seed);
  }
  std::size_t mask() const { return index.size() - 1; }
  std::size_t home(std::uint64_t hash) const { return static_cast<std::size_t>(hash) & mask(); }
  static std::uint64_t tag(std::uint64_t hash) { return hash & 0xFFFF'FFFF'0000'0000ULL; }
  static std::size_t entry_of(std::uint64_t word) {
    return static_cast<std::size_t>(word & 0xFFFF'FFFFULL) - 1;
  }

  // Position in the index, or npos.
  std::size_t locate(std::string_view token, std::uint64_t hash) const {
    for (std::size_t at = home(hash); index[at] != 0; at = (at + 1) & mask())
      if (tag(index[at]) == tag(hash) && entries[entry_of(index[at])].token == token) return at;
    return npos;
  }

  void link(std::uint64_t hash, std::size_t entry) {
    std::size_t at = home(hash);
    while (index[at] != 0) at = (at + 1) & mask();
    index[at] = tag(hash) | (static_cast<std::uint64_t>(entry) + 1);
  }

  // Empties a position and moves back every later word of the run that may not stay behind the gap.
  void unlink(std::size_t gap) {
    std::size_t next = gap;
    while (true) {
      next = (next + 1) & mask();
      if (index[next] == 0) break;
      std::size_t wanted = home(entries[entry_of(index[next])].hash);
      if (((next - wanted) & mask()) < ((next - gap) & mask())) continue;  // its home lies after the gap
      index[gap] = index[next];
      gap = next;
    }
    index[gap] = 0;
  }

  void remove(std::size_t at) {
    std::size_t entry = entry_of(index[at]);
    unlink(at);
    release(entry);
  }

  void release(std::size_t entry) {
    entries[entry] = Entry{};
    free_entries.push_back(static_cast<std::uint32_t>(entry));
  }

  // An entry that is free now.
  std::size_t take_entry() {
    if (free_entries.empty() && entries.size() < capacity) {
      entries.emplace_back();
      return entries.size() - 1;
    }
    while (free_entries.empty()) {
      Entry& candidate = entries[hand];
      if (!candidate.seen)
        remove(locate(candidate.token, candidate.hash));
      else
        candidate.seen = false;
      hand = hand + 1 == entries.size() ? 0 : hand + 1;
    }
    std::size_t entry = free_entries.back();
    free_entries.pop_back();
    return entry;
  }

  static constexpr std::size_t npos = SIZE_MAX;
  std::size_t capacity;
  std::uint64_t seed;
  std::vector<std::uint64_t> index;  // 0: empty
  std::vector<Entry> entries;
  std::vector<std::uint32_t> free_entries;
  std::size_t hand = 0;
};

TokenCache::TokenCache(std::size_t entries, std::uint64_t seed)
    : impl_(std::make_unique<Impl>(entries, seed)) {}
TokenCache::~TokenCache() = default;
TokenCache::TokenCache(TokenCache&&) noexcept = default;
TokenCache& TokenCache::operator=(TokenCache&&) noexcept = default;

std::shared_ptr<const VerifiedToken> TokenCache::find(std::string_view token, UnixTime now) {
  Impl& cache = *impl_;
  if (cache.capacity > 0) {
    if (std::size_t at = cache.locate(token, cache.hash_of(token)); at != Impl::npos) {
      Impl::Entry& entry = cache.entries[Impl::entry_of(cache.index[at])];
      if (now >= entry.verified->expires_at) {
        cache.remove(at);
      } else if (now >= entry.verified->not_before) {
        entry.seen = true;
        ++hits_;
        return entry.verified;
      }
    }
  }
  ++misses_;
  return nullptr;
}

void TokenCache::insert(std::string_view token, std::shared_ptr<const VerifiedToken> verified) {
  CHECK(verified != nullptr, "only verified tokens are cached");
  Impl& cache = *impl_;
  if (cache.capacity == 0) return;
  std::uint64_t hash = cache.hash_of(token);
  if (std::size_t at = cache.locate(token, hash); at != Impl::npos) {
    cache.entries[Impl::entry_of(cache.index[at])].verified = std::move(verified);
    return;
  }
  std::size_t entry = cache.take_entry();
  cache.entries[entry] = {hash, std::string(token), std::move(verified), false};
  cache.link(hash, entry);
}

void TokenCache::clear() {
  std::fill(impl_->index.begin(), impl_->index.end(), 0);
  impl_->entries.clear();
  impl_->free_entries.clear();
  impl_->hand = 0;
}

std::size_t TokenCache::size() const {
  return impl_->entries.size() - impl_->free_entries.size();
}

}  // namespace tollgate::identity
