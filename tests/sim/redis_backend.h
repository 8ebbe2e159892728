// The store of a simulated world as a real redis-server: the real scripts, in virtual time, copies by DUMP and RESTORE.
// One server for many worlds, one after the other; each begins with an empty one.
#pragma once
#include <functional>
#include <memory>

#include "tests/sim/backend.h"

namespace tollgate::sim {

class RedisBackends {
 public:
  RedisBackends();  // starts a redis-server on a unix socket in a directory of its own
  ~RedisBackends();
  // At most one at a time.
  std::unique_ptr<Backend> make(std::function<Milliseconds()> clock);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::sim
