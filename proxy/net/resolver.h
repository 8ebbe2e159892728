// Host names of upstreams, resolved on a thread of their own and again every `interval` (2 s after a
// failure), so
// that no worker ever waits for DNS. The last good answer stays in use while later ones fail.
//
//   auto lookup = resolver.watch({"crm.example", 9000}, 30s, [](const Result<std::vector<Endpoint>>& answer)
//   { ...
//   });
//
// Callbacks come on the resolver's thread: at the first answer, when the addresses changed and at the first
// failure. Threads: any.
#pragma once
#include <functional>
#include <memory>

#include "metering/base/time.h"
#include "proxy/net/endpoint.h"

namespace tollgate::net {

class Resolver {
 public:
  Resolver();
  ~Resolver();  // does not wait for a look-up under way; no callback afterwards
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  using Answer = std::function<void(const Result<std::vector<Endpoint>>&)>;
  // The watch ends when the handle is destroyed; a callback may then still be running.
  using Handle = std::shared_ptr<void>;
  Handle watch(HostPort at, Milliseconds interval, Answer answer);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
};

}  // namespace tollgate::net
