#include "proxy/net/address_turns.h"

#include <algorithm>
#include <utility>

namespace tollgate::net {

AddressTurns::Address* AddressTurns::find(const Endpoint& at) {
  auto found = std::ranges::find(addresses_, at, &Address::at);
  return found == addresses_.end() ? nullptr : &*found;
}

bool AddressTurns::contains(const Endpoint& at) const {
  return std::ranges::find(addresses_, at, &Address::at) != addresses_.end();
}

void AddressTurns::replace(const std::vector<Endpoint>& addresses) {
  std::vector<Address> next;
  for (const Endpoint& at : addresses) {
    const Address* known = find(at);
    next.push_back(known == nullptr ? Address{.at = at} : *known);
  }
  addresses_ = std::move(next);
}

std::vector<Endpoint> AddressTurns::next(MonotonicTime now) {
  std::vector<Endpoint> order, last;
  for (const Address& address : addresses_) (address.last_until <= now ? order : last).push_back(address.at);
  if (order.empty()) order.swap(last);
  if (order.empty()) return order;
  std::rotate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(turn_++ % order.size()),
              order.end());
  Address& first = *find(order.front());
  if (first.last_until != MonotonicTime{}) first.last_until = now + kLast;
  order.insert(order.end(), last.begin(), last.end());
  return order;
}

bool AddressTurns::failed(const Endpoint& at, MonotonicTime now) {
  Address* address = find(at);
  if (address == nullptr) return false;
  const MonotonicTime before = std::exchange(address->last_until, now + kLast);
  return before == MonotonicTime{};
}

bool AddressTurns::answered(const Endpoint& at) {
  Address* address = find(at);
  return address != nullptr && std::exchange(address->last_until, {}) != MonotonicTime{};
}

}  // namespace tollgate::net
