// What the gate asks about records whose owner no reply has told yet: the CRM itself, by an account of our own. Implemented
// by the edge (proxy/net/owner_fetcher.h).
#pragma once
#include <functional>
#include <string>

namespace tollgate::flow {

class OwnerLookup {
 public:
  virtual ~OwnerLookup() = default;
  // Any thread. done is called once, on whatever thread, within twice the look-up's timeout; by then the
  // snapshot's table of owners knows what could be found out.
  virtual void find(const std::string& upstream, const std::string& record, std::function<void()> done) = 0;
};

}  // namespace tollgate::flow
