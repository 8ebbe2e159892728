// Host names of upstreams, looked up on threads of its own and again every `interval` (2 s after a failure), so that no
// worker ever waits for DNS. The last good answer stays in use while later ones fail.
//
//   auto lookup = resolver.watch({"crm.example", 9000}, 30s, [](const Result<std::vector<Endpoint>>& answer) { ... });
//
// Whoever watches the same name and port shares one look-up and what is known: a watch of a name that others watch
// is told it at once. So a pool that takes the place of another at a reload begins with its addresses. The shortest
// interval counts.
//
// Look-ups of different names never wait for each other, up to 32 at a time; of one name there is one at a time.
//
// Callbacks come on threads of the resolver or, with what is known already, from within watch(): at the first
// answer, when the addresses changed and at the first failure. Threads: any; a callback must not call the resolver,
// nor end a watch.
#pragma once
#include <functional>
#include <memory>

#include "metering/base/time.h"
#include "proxy/net/endpoint.h"

namespace tollgate::net {

class Resolver {
 public:
  using LookUp = std::function<Result<std::vector<Endpoint>>(const HostPort&)>;  // may block; any thread
  explicit Resolver(LookUp look_up = resolve);
  ~Resolver();  // does not wait for look-ups under way; no callback afterwards
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  using Answer = std::function<void(const Result<std::vector<Endpoint>>&)>;
  // The watch ends when the handle is destroyed: a callback under way is waited for, none follows.
  using Handle = std::shared_ptr<void>;
  Handle watch(HostPort at, Milliseconds interval, Answer answer);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace tollgate::net
