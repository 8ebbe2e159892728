// The connection of one worker to the store: in order, with delay, until it is cut. What was on its way when it was cut is
// lost, or arrives after all (a ghost: bytes in a socket nobody reads any more). It can stall, and it can lose one
// direction only. Reconnects by itself.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "metering/base/time.h"
#include "metering/quota/lease_engine.h"

namespace tollgate::sim {

class Proxy;
class Server;

class Link final : public quota::LeaseStore {
 public:
  Link(Proxy& proxy, unsigned worker);
  ~Link() override;

  void send(const quota::Op& op, const quota::SendContext& context) override;
  void send(const quota::Replay& replay, const quota::SendContext& context) override;
  void send(const quota::Ping& ping, const quota::SendContext& context) override;

  void connect_after(Duration delay);
  bool connected() const { return connection_ != nullptr; }
  void cut(bool ghosts);
  void stall(Duration length);
  void lose_replies();

 private:
  struct Connection;
  using Reply = std::function<void(quota::LeaseEngine&, MonotonicTime now)>;
  using Request = std::function<Reply(Server&)>;
  void post(Request request, unsigned partition);
  struct Arrival;
  void check_stall(const std::shared_ptr<Connection>& connection, std::uint64_t answered);
  void connect();

  Proxy& proxy_;
  unsigned worker_;
  std::shared_ptr<Connection> connection_;
  bool connecting_ = false;
};

}  // namespace tollgate::sim
