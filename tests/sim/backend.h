// The store a simulated world runs against: the model in memory, or the real scripts on a real redis-server in virtual
// time (redis_backend.h). One server at a time; copies of it are replicas and append-only files of some moment.
//
// Every operation checks what can be seen at the store itself:
//   I1  after a grant, used + lent <= the limit in force
//   I3  a number is applied once, in order, and always with the same bytes
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "metering/quota/lease_protocol.h"
#include "metering/quota/store_model.h"

namespace tollgate::sim {

class Backend {
 public:
  using Sums = quota::StoreModel::Sums;
  virtual ~Backend() = default;
  virtual quota::OpReply apply(const quota::Op& op, const quota::SendContext& context) = 0;
  virtual quota::OpReply replay(const quota::Replay& replay, const quota::SendContext& context) = 0;
  virtual quota::PingReply ping(const quota::Ping& ping, const quota::SendContext& context) = 0;
  virtual std::vector<quota::LeaseState> read(const std::vector<quota::AccountCharge>& accounts) = 0;
  virtual void set_override(const quota::AccountKey& account,
                            const std::optional<quota::LimitOverride>& value) = 0;
  virtual std::vector<quota::StoreModel::Message> take_messages() = 0;
  virtual void set_listeners(std::uint32_t count) = 0;
  virtual void flush() = 0;
  virtual std::uint64_t hwm(unsigned partition, quota::Incarnation incarnation) = 0;
  virtual Sums sums(const quota::AccountKey& key, const quota::WindowShape& shape) = 0;
  // Keeps a copy of everything under that number, and goes back to it.
  virtual void save(std::uint64_t copy) = 0;
  virtual void restore(std::uint64_t copy) = 0;
  virtual void forget(std::uint64_t copy) = 0;
};

std::unique_ptr<Backend> make_model_backend(std::function<Milliseconds()> clock);

}  // namespace tollgate::sim
