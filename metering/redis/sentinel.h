// Where the primary is, asked of sentinels (redis.io/docs/reference/sentinel-clients): what
// ConnectionOptions::locate is for. Each look-up asks the sentinels in turn (SENTINEL get-master-addr-by-name)
// and takes the first answer; the next look-up begins with the sentinel after that one, because it takes place
// when the answer was no good: a sentinel cut off from the others still names the old primary, which the greeting
// then refuses (ROLE). Sentinels that the URL does not name are not learned: the URL should name all.
//
// Threads: on the loop's thread. One look-up at a time: a new one ends the one before.
#pragma once
#include <memory>

#include "metering/redis/connection.h"
#include "metering/redis/inquiry.h"

namespace tollgate::redis {

class SentinelLocator {
 public:
  // options.url: Kind::sentinel. An equal share of connect_timeout is for each sentinel.
  SentinelLocator(event_base* base, ConnectionOptions options);

  void locate(ConnectionOptions::Located done);

 private:
  event_base* base_;
  ConnectionOptions options_;
  std::size_t first_ = 0;
  std::unique_ptr<Inquiry> inquiry_;
};

// `options` as a Connection can use them: with a locator of its own where the URL names sentinels.
ConnectionOptions with_locator(event_base* base, ConnectionOptions options);

}  // namespace tollgate::redis
