#include "proxy/net/balancer.h"

#include <cmath>
#include <limits>

#include "metering/base/check.h"

namespace tollgate::net {

namespace {

// FNV-1a, and the finalizer of MurmurHash3: the same on every machine, since servers and proxies have to
// agree.
std::uint64_t mix(std::uint64_t value) {
  value ^= value >> 33;
  value *= 0xff51afd7ed558ccdULL;
  value ^= value >> 33;
  value *= 0xc4ceb9fe1a85ec53ULL;
  return value ^ (value >> 33);
}

std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return mix(hash);
}

}  // namespace

Balancer::Balancer(config::Balance kind, const std::vector<std::string>& names,
                   std::vector<std::uint32_t> weights)
    : kind_(kind), weights_(std::move(weights)), credit_(weights_.size()) {
  CHECK(names.size() == weights_.size(), "one weight a server");
  for (const std::string& name : names) name_hashes_.push_back(hash_of(name));
}

std::size_t Balancer::choose(std::span<const Candidate> candidates, std::string_view hash_key) {
  CHECK(candidates.size() == weights_.size(), "a candidate for every server");
  if (candidates.size() == 1) return candidates[0].share > 0 ? 0 : kNone;
  switch (kind_) {
    case config::Balance::least_connections:
      return fewest(candidates);
    case config::Balance::hash:
      if (!hash_key.empty()) return hashed(candidates, hash_key);
      break;
    case config::Balance::round_robin:
      break;
  }
  return turn(candidates, [](std::size_t) { return true; });
}

// Everyone gains its weight, who has most is chosen and pays the sum: the credits always add up to zero.
template <class Takes>
std::size_t Balancer::turn(std::span<const Candidate> candidates, Takes takes) {
  std::size_t best = kNone;
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const std::int64_t gain = weight(i, candidates[i]);
    if (gain == 0 || !takes(i)) continue;
    credit_[i] += gain;
    sum += gain;
    if (best == kNone || credit_[i] > credit_[best]) best = i;
  }
  if (best != kNone) credit_[best] -= sum;
  return best;
}

std::size_t Balancer::fewest(std::span<const Candidate> candidates) {
  // in_flight / weight, compared without a division.
  const auto less = [&](std::size_t a, std::size_t b) {
    return candidates[a].in_flight * weight(b, candidates[b]) <
           candidates[b].in_flight * weight(a, candidates[a]);
  };
  std::size_t best = kNone;
  for (std::size_t i = 0; i < candidates.size(); ++i)
    if (candidates[i].share > 0 && (best == kNone || less(i, best))) best = i;
  if (best == kNone) return kNone;
  return turn(candidates, [&](std::size_t i) { return !less(best, i); });
}

// Each server draws the time of its first event at a rate of its weight; who comes first has the key.
std::size_t Balancer::hashed(std::span<const Candidate> candidates, std::string_view key) const {
  const std::uint64_t key_hash = hash_of(key);
  std::size_t best = kNone;
  double first = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const std::int64_t rate = weight(i, candidates[i]);
    if (rate == 0) continue;
    const std::uint64_t drawn = mix(key_hash ^ name_hashes_[i]) >> 11;  // 53 bits: exact in a double
    const double uniform = (static_cast<double>(drawn) + 0.5) / 9007199254740992.0;
    const double comes = -std::log(uniform) / static_cast<double>(rate);
    if (comes >= first) continue;
    first = comes;
    best = i;
  }
  return best;
}

}  // namespace tollgate::net
