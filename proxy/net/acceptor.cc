#include "proxy/net/acceptor.h"

#include <event2/event.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "metering/base/check.h"

namespace tollgate::net {

Acceptor::Acceptor(EventLoop& loop, int fd, void* owner, void (*waiting)(void*))
    : loop_(loop), fd_(fd), owner_(owner), waiting_(waiting) {
  restore_reserve();
  timer_.bind(this, [](void* self) { static_cast<Acceptor*>(self)->resume(); });
  // Level-triggered: what is left in the queue wakes the loop again.
  event_ = event_new(loop.base(), fd_, EV_READ | EV_PERSIST, &Acceptor::on_event, this);
  CHECK(event_ != nullptr, "out of memory");
  event_add(event_, nullptr);
}

Acceptor::~Acceptor() {
  event_free(event_);
  ::close(fd_);
  if (reserve_fd_ >= 0) ::close(reserve_fd_);
}

void Acceptor::on_event(int, short, void* self) {
  auto* acceptor = static_cast<Acceptor*>(self);
  acceptor->loop_.event_begins();
  acceptor->waiting_(acceptor->owner_);
}

Accepted Acceptor::accept() {
  Accepted next;
  do {
    next.peer.length = sizeof next.peer.address;
    next.fd = ::accept4(fd_, reinterpret_cast<sockaddr*>(&next.peer.address), &next.peer.length,
                        SOCK_NONBLOCK | SOCK_CLOEXEC);
  } while (next.fd < 0 && (errno == EINTR || errno == ECONNABORTED || errno == EPROTO));
  if (next.fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
    next.shortage = errno;
  return next;
}

Accepted Acceptor::accept_on_reserve() {
  if (has_reserve()) ::close(std::exchange(reserve_fd_, -1));
  return accept();
}

void Acceptor::restore_reserve() {
  if (!has_reserve()) reserve_fd_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void Acceptor::pause() {
  if (paused_) return;
  paused_ = true;
  event_del(event_);
}

void Acceptor::pause_briefly() {
  restore_reserve();
  pause();
  loop_.set(timer_, kAcceptPause);
}

void Acceptor::resume() {
  if (!paused_) return;
  paused_ = false;
  restore_reserve();
  loop_.clear(timer_);
  event_add(event_, nullptr);
}

}  // namespace tollgate::net
