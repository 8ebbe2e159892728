// The addresses of one server, in the order in which the next connection tries them. Pure: the time is an argument.
//
// Those that answer take turns: with a b c the orders are a b c, b c a, c a b. One at which connecting failed comes
// after them all for 30 s; then one connection tries it first again while the others keep off for another 30 s. So a
// silent address costs one call its share of connect_timeout every 30 s, not every second call. When all have failed
// they take turns again: an address that failed is better than none.
//
// Cost: linear in the number of addresses. Threads: one at a time.
#pragma once
#include <cstddef>
#include <vector>

#include "metering/base/time.h"
#include "proxy/net/endpoint.h"

namespace tollgate::net {

class AddressTurns {
 public:
  static constexpr Seconds kLast{30};

  // What is known of those that stay is kept.
  void replace(const std::vector<Endpoint>& addresses);
  bool empty() const { return addresses_.empty(); }
  std::size_t size() const { return addresses_.size(); }
  bool contains(const Endpoint& at) const;

  std::vector<Endpoint> next(MonotonicTime now);
  // What connecting to one of them came to, those that are gone included. True when that is news.
  bool failed(const Endpoint& at, MonotonicTime now);
  bool answered(const Endpoint& at);

 private:
  struct Address {
    Endpoint at;
    MonotonicTime last_until{};  // MonotonicTime{}: it did not fail
  };
  Address* find(const Endpoint& at);

  std::vector<Address> addresses_;
  std::size_t turn_ = 0;
};

}  // namespace tollgate::net
