#include "proxy/net/listener.h"

#include <event2/event.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>

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
    : worker_(worker),
      key_(std::move(key)),
      fd_(fd),
      reserve_fd_(open_reserve()),
      tls_(std::move(tls)),
      rules_(std::move(rules)) {
  timer_.bind(this, &Listener::on_timer);
  // Level-triggered: what is left in the queue wakes the loop again.
  event_ = event_new(worker.loop().base(), fd_, EV_READ | EV_PERSIST, &Listener::on_event, this);
  CHECK(event_ != nullptr, "out of memory");
  event_add(event_, nullptr);
}

Listener::~Listener() {
  if (!paused_) {
    close_entrance();
    while (accept_waiting()) {
    }
  }
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

// Closing a socket resets what waits in its queue and what is about to join it. So that the queue can be
// emptied first, nobody may begin to join it any more: a SYN is not answered (its sender asks again and is
// then refused), a Unix socket refuses.
void Listener::close_entrance() {
  if (local_endpoint(fd_).address.ss_family == AF_UNIX) {
    ::shutdown(fd_, SHUT_RD);
    return;
  }
  sock_filter no_syn[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),            // the flags of a TCP header
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),  // SYN
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(no_syn)), no_syn};
  ::setsockopt(fd_, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

// True when there may be more.
bool Listener::accept_waiting() {
  for (int accepted = 0; accepted < kAcceptsPerTurn && !paused_; ++accepted) {
    Endpoint peer;
    peer.length = sizeof peer.address;
    const int fd = ::accept4(fd_, reinterpret_cast<sockaddr*>(&peer.address), &peer.length,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      worker_.accepted(fd, peer.host(), tls_, *this);
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
    if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) out_of_descriptors();
    return false;
  }
  return !paused_;
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
