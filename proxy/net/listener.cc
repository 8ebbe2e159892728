#include "proxy/net/listener.h"

#include <linux/filter.h>
#include <sys/socket.h>
#include <unistd.h>

#include <iterator>

#include "proxy/net/worker.h"

namespace tollgate::net {

namespace {
constexpr int kAcceptsPerTurn = 64;
}  // namespace

Listener::Listener(Worker& worker, std::string key, int fd, std::shared_ptr<const ServerTls> tls,
                   std::shared_ptr<const ListenerRules> rules)
    : worker_(worker),
      key_(std::move(key)),
      acceptor_(worker.loop(), fd, this, [](void* self) { static_cast<Listener*>(self)->accept_waiting(); }),
      tls_(std::move(tls)),
      rules_(std::move(rules)) {}

Listener::~Listener() {
  if (acceptor_.paused()) return;
  close_entrance();
  while (accept_waiting()) {
  }
}

// Closing a socket resets what waits in its queue and what is about to join it. So that the queue can be
// emptied first, nobody may begin to join it any more: a SYN is not answered (its sender asks again and is
// then refused), a Unix socket refuses.
void Listener::close_entrance() {
  if (local_endpoint(acceptor_.fd()).address.ss_family == AF_UNIX) {
    ::shutdown(acceptor_.fd(), SHUT_RD);
    return;
  }
  sock_filter no_syn[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),            // the flags of a TCP header
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),  // SYN
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(no_syn)), no_syn};
  ::setsockopt(acceptor_.fd(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

// True when there may be more.
bool Listener::accept_waiting() {
  for (int accepted = 0; accepted < kAcceptsPerTurn && !acceptor_.paused(); ++accepted) {
    const Accepted next = acceptor_.accept();
    if (next.shortage != 0) out_of_descriptors(next.shortage);
    if (next.fd < 0) return false;
    worker_.accepted(next.fd, next.peer.host(), tls_, *this);
  }
  return !acceptor_.paused();
}

void Listener::out_of_descriptors(int error) {
  worker_.accept_failed(error);
  const Accepted refused = acceptor_.accept_on_reserve();
  if (refused.fd >= 0) ::close(refused.fd);
  acceptor_.pause_briefly();
}

}  // namespace tollgate::net
