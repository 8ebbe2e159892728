// Listens to channels of one server, on a connection of its own (RESP2: a subscribed connection can do nothing
// else). After every loss it connects and subscribes again; what was published meanwhile is gone, and so
// `subscribed` is called each time: forget what a message would have ended.
//
// A PING every quarter of stall_timeout finds a server that is silent for another reason than peace; an
// unanswered one ends the connection after stall_timeout.
//
// Threads: on the loop's thread. The functions called from here may not destroy the Subscription.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/redis/connection.h"

struct event;

namespace tollgate::redis {

class Subscription {
 public:
  using Message = std::function<void(std::string_view channel, std::string_view body)>;
  using Subscribed = std::function<void()>;  // to all channels, from now on

  Subscription(event_base* base, ConnectionOptions options, std::vector<std::string> channels,
               Message message, Subscribed subscribed);
  ~Subscription();
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

  void start();
  bool listening() const { return confirmed_ == channels_.size(); }
  const std::string& last_error() const;

 private:
  void on_changed(bool up);
  void ping();
  static void ping_event(int, short, void* self) { static_cast<Subscription*>(self)->ping(); }

  std::vector<std::string> channels_;
  Subscribed subscribed_;
  Milliseconds stall_timeout_;
  std::size_t confirmed_ = 0;  // channels subscribed to on this connection
  std::string refusal_;
  event* ping_event_ = nullptr;
  Connection connection_;
};

}  // namespace tollgate::redis
