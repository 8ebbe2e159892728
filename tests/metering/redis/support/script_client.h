// The lease scripts on a test's redis-server, from straight-line code: runs them in virtual time, and hears what they
// publish.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "metering/redis/script_messages.h"
#include "metering/redis/scripts.h"
#include "tests/metering/redis/support/redis_fixture.h"

struct redisContext;

namespace tollgate::redis::testing {

class ScriptClient {
 public:
  // Without virtual time the scripts read the server's clock.
  explicit ScriptClient(const Server& server, bool virtual_time = true);
  ~ScriptClient();

  void set_clock(Milliseconds now);
  Reply command(const std::vector<std::string>& words);
  Reply run(const Script& script, const ScriptCall& call);

  // CHECK that the reply is the script's.
  quota::OpReply apply(const quota::Op& op, const quota::SendContext& context);
  quota::OpReply replay(const quota::Replay& replay, const quota::SendContext& context);
  quota::PingReply ping(const quota::Ping& ping, const quota::SendContext& context);
  std::vector<quota::LeaseState> read(const std::vector<quota::AccountCharge>& accounts);  // one subject
  std::vector<quota::Ledger::Listed> list(const std::string& subject_key, const std::string& prefix,
                                          Milliseconds window, Milliseconds bucket);
  void set_override(const quota::AccountKey& account, const std::optional<quota::LimitOverride>& value);
  void reset(const quota::AccountKey& account);
  std::string record(const quota::AccountKey& account);
  std::map<std::string, std::string> hash(const std::string& key);

  const Scripts scripts;

 private:
  redisContext* context_;
};

// Subscribes before the constructor returns; counts as one listener.
class Listener {
 public:
  explicit Listener(const Server& server);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  // Everything published before the call.
  std::vector<quota::StoreModel::Message> take();

 private:
  redisContext* context_;
};

}  // namespace tollgate::redis::testing
