// Accepts connections on one listening socket of one worker and hands them to it.
//
// Survives running out of file descriptors: one is kept in reserve; without it the waiting connection would
// stay in the queue and wake the loop for ever. It is given up for a moment to accept and close that
// connection, then accepting pauses (kAcceptPause).
//
// Threads: the worker's.
#pragma once
#include <memory>
#include <string>

#include "proxy/http/address.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/tls.h"

struct event;

namespace tollgate::net {

class Worker;

// What a listener asks of those who connect.
struct ListenerRules {
  bool proxy_protocol = false;  // connections begin with a PROXY header (proxy_protocol.h)
  http::AddressSet
      senders{};  // who may connect then; empty: anybody. Unix sockets are open to who can open them
};

inline constexpr Milliseconds kAcceptPause{100};
// After close_entrance(): for handshakes under way, before the socket is closed.
inline constexpr Milliseconds kHandshakeGrace{200};

class Listener {
 public:
  // Takes the socket. key: the address in the settings.
  Listener(Worker& worker, std::string key, int fd, std::shared_ptr<const ServerTls> tls,
           std::shared_ptr<const ListenerRules> rules);
  ~Listener();  // lets nobody in any more, accepts what waits, then closes; paused: closes
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  const std::string& key() const { return key_; }
  void set(std::shared_ptr<const ServerTls> tls, std::shared_ptr<const ListenerRules> rules) {
    tls_ = std::move(tls);
    rules_ = std::move(rules);
  }
  const ListenerRules& rules() const { return *rules_; }
  void pause();  // until resume(), or by itself for a while when descriptors ran out
  void resume();
  // Nobody new may connect. Who had a place in the queue, or only the last packet of a handshake to send, is
  // still accepted.
  void close_entrance();

 private:
  static void on_event(int, short, void* self);
  static void on_timer(void* self);
  bool accept_waiting();
  void out_of_descriptors();

  Worker& worker_;
  const std::string key_;
  int fd_;
  int reserve_fd_;
  event* event_ = nullptr;
  LoopTimer timer_;
  std::shared_ptr<const ServerTls> tls_;
  std::shared_ptr<const ListenerRules> rules_;
  bool paused_ = false;
};

}  // namespace tollgate::net
