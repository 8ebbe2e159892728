// Accepts connections on one listening socket of one worker and hands them to it.
//
// Out of file descriptors, it closes the connection that waits (on the acceptor's reserve), and pauses briefly.
//
// Threads: the worker's.
#pragma once
#include <memory>
#include <string>

#include "proxy/http/address.h"
#include "proxy/net/acceptor.h"
#include "proxy/net/tls.h"

namespace tollgate::net {

class Worker;

// What a listener asks of those who connect.
struct ListenerRules {
  bool proxy_protocol = false;  // connections begin with a PROXY header (proxy_protocol.h)
  http::AddressSet
      senders{};  // who may connect then; empty: anybody. Unix sockets are open to who can open them
};

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
  void pause() { acceptor_.pause(); }  // until resume(), or by itself for a while when descriptors ran out
  void resume() { acceptor_.resume(); }
  // Nobody new may connect. Who had a place in the queue, or only the last packet of a handshake to send, is
  // still accepted.
  void close_entrance();

 private:
  bool accept_waiting();
  void out_of_descriptors(int error);

  Worker& worker_;
  const std::string key_;
  Acceptor acceptor_;
  std::shared_ptr<const ServerTls> tls_;
  std::shared_ptr<const ListenerRules> rules_;
};

}  // namespace tollgate::net
