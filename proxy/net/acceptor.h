// The accepting end of one listening socket: says when connections wait, and takes them one by one.
//
// Survives running out of file descriptors: one is kept in reserve; without it the waiting connection would
// stay in the queue and wake the loop for ever. Its owner gives the reserve up for that connection, to close it
// or to serve it, or pauses.
//
// Threads: the loop's.
#pragma once
#include "proxy/net/endpoint.h"
#include "proxy/net/event_loop.h"

struct event;

namespace tollgate::net {

inline constexpr Milliseconds kAcceptPause{100};

struct Accepted {
  int fd = -1;       // non-blocking; -1: none waits, or there is a shortage
  int shortage = 0;  // errno: no descriptor, or no memory, is left for the connection that waits
  Endpoint peer{};
};

class Acceptor {
 public:
  // Takes the socket. waiting: is called once a turn while connections wait.
  Acceptor(EventLoop& loop, int fd, void* owner, void (*waiting)(void* owner));
  ~Acceptor();  // closes the socket
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  int fd() const { return fd_; }
  Accepted accept();
  // In a shortage: on the descriptor in reserve, if it is there and nobody is faster.
  Accepted accept_on_reserve();
  bool has_reserve() const { return reserve_fd_ >= 0; }
  void restore_reserve();  // when a descriptor has become free

  void pause();          // until resume()
  void pause_briefly();  // for kAcceptPause; restores the reserve if it can
  void resume();
  bool paused() const { return paused_; }

 private:
  static void on_event(int, short, void* self);

  EventLoop& loop_;
  const int fd_;
  int reserve_fd_ = -1;
  void* const owner_;
  void (*const waiting_)(void*);
  event* event_ = nullptr;
  LoopTimer timer_;
  bool paused_ = false;
};

}  // namespace tollgate::net
