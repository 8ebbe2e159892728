// What the quota store holds, read directly from it: the store's side of `tollgate export --verify`.
// Blocking, on the caller's thread, with a loop of its own; at most `limit`.
#pragma once
#include <memory>
#include <string>

#include "config/load/load.h"
#include "metering/base/error.h"
#include "metering/redis/connection.h"
#include "metering/usage/reconcile.h"

namespace tollgate::cli {

class RedisStoredCounts final : public usage::StoredCounts {
 public:
  // The store of a configuration. embedded:DIR is the server that a running proxy has started there.
  static Result<std::unique_ptr<RedisStoredCounts>> of(const config::LoadedConfig& loaded);
  RedisStoredCounts(redis::ConnectionOptions connection, Milliseconds limit)
      : connection_(std::move(connection)), limit_(limit) {}

  Result<usage::StoredState> read() override;

 private:
  redis::ConnectionOptions connection_;
  Milliseconds limit_;
};

}  // namespace tollgate::cli
