#include "proxy/net/listener.h"

#include <event2/event.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "metering/base/check.h"
#include "proxy/net/endpoint.h"
#include "proxy/net/worker.h"

namespace tollgate::net {

namespace {
constexpr int kAcceptsPerTurn = 64;
int open_reserve() {
  return ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}
}  // namespace

Listener::Listener(Worker& worker, std::string key, int fd, std::shared_ptr<const ServerTls> tls,
                   std::shared_ptr<const ListenerRules> rules)
    : worker_(worker), key_(std::move(key)), fd_(fd), reserve_fd_(open_reserve()), tls_(std::move(tls)),
      rules_(std::move(rules)) {
  timer_.bind(this, &Listener::on_timer);
  // Level-triggered: what is left in the queue wakes the loop again.
  event_ = event_new(worker.loop().base(), fd_, EV_READ | EV_PERSIST, &Listener::on_event, this);
  CHECK(event_ != nullptr, "out of memory");
  event_add(event_, nullptr);
}

Listener::~Listener() {
  if (!paused_) accept_waiting();
  event_free(event_);
  ::close(fd_);
  if (reserve_fd_ >= 0) ::close(reserve_fd_);
}

void Listener::on_event(int, short, void* self) {
  auto* listener = static_cast<Listener*>(self);
  listener->worker_.loop().event_begins();
  listener->accept_waiting();
}
void Listener::on_timer(void* self) {
  static_cast<Listener*>(self)->resume();
}

void Listener::pause() {
  if (paused_) return;
  paused_ = true;
  event_del(event_);
}

void Listener::resume() {
  if (!paused_) return;
  paused_ = false;
  worker_.loop().clear(timer_);
  event_add(event_, nullptr);
}

void Listener::accept_waiting() {
  for (int accepted = 0; accepted < kAcceptsPerTurn && !paused_; ++accepted) {
    Endpoint peer;
    peer.length = sizeof peer.address;
    const int fd = ::accept4(fd_, reinterpret_cast<sockaddr*>(&peer.address), &peer.length,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      worker_.accepted(fd, peer.host(), tls_, *this);
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) out_of_descriptors();
    return;
  }
}

void Listener::out_of_descriptors() {
  worker_.accept_failed(errno);
  if (reserve_fd_ >= 0) {
    ::close(reserve_fd_);
    const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) ::close(fd);
  }
  reserve_fd_ = open_reserve();
  pause();
  worker_.loop().set(timer_, kAcceptPause);
}

}  // namespace tollgate::net
