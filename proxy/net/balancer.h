// Which server of an upstream gets the next call. Pure: what is known of the servers is an argument.
//
//   Balancer balancer(config::Balance::least_connections, {"http://a:80", "http://b:80"}, {1, 3});
//   balancer.choose({{.share = Balancer::kWhole, .in_flight = 2}, {.share = Balancer::kWhole}}, {});   // 1
//
//   round_robin         smooth weighted turns: with weights 3 and 1 the order is a a b a, never a burst
//   least_connections   the fewest calls in flight for its weight; equals take turns by weight
//   hash                weighted rendezvous hashing of a key: the same key has the same server on every worker,
//                       proxy and restart; a server that comes or goes moves only its own keys. No key: turns
//
// `share` is how much of its weight a server counts for at the moment: 0 gets nothing, kWhole everything,
// between the two while a server that has come back is warming up.
//
// Cost: no allocation; linear in the number of servers. With one server: nothing. Threads: one at a time.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"

namespace tollgate::net {

class Balancer {
 public:
  static constexpr std::uint32_t kWhole = 256;
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  struct Candidate {
    std::uint32_t share = kWhole;  // 0 .. kWhole
    std::uint32_t in_flight = 0;
  };

  // names: what a server keeps over restarts, for the hash; weights: as many, each > 0.
  Balancer(config::Balance kind, const std::vector<std::string>& names, std::vector<std::uint32_t> weights);

  // An index into `candidates`, which are in the order of the names, or kNone when every share is 0.
  std::size_t choose(std::span<const Candidate> candidates, std::string_view hash_key);

 private:
  template <class Takes>
  std::size_t turn(std::span<const Candidate> candidates, Takes takes);
  std::size_t fewest(std::span<const Candidate> candidates);
  std::size_t hashed(std::span<const Candidate> candidates, std::string_view key) const;
  std::int64_t weight(std::size_t server, const Candidate& now) const {
    return static_cast<std::int64_t>(weights_[server]) * now.share;
  }

  const config::Balance kind_;
  const std::vector<std::uint32_t> weights_;
  std::vector<std::uint64_t> name_hashes_;
  std::vector<std::int64_t> credit_;  // of the turns: who has waited longest for its weight
};

}  // namespace tollgate::net
