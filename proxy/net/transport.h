// One non-blocking stream socket, plain or TLS: read and write with counts. No event is registered here;
// callers watch the descriptor for reading and writing at once (edge-triggered), so that TLS may want either
// at any time.
//
// drained: the socket has no more bytes for now, so the next read would block (it saves that read). Callers
// that saw the peer close (EV_CLOSED) read on anyway until they get `closed`. A reset is not told apart from
// readiness: when it came with bytes in one event, only the next read shows it. So whoever has to have more
// reads until `blocked`; who has all it needs learns of the reset when it writes.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "metering/identity/client_certificate.h"

typedef struct ssl_st SSL;

namespace tollgate::net {

enum class Io : std::uint8_t {
  ok,
  blocked,  // nothing now; the descriptor becomes ready again
  closed,   // the peer ended its stream in order (FIN, or close_notify on TLS)
  failed,   // reset, TLS error, or a TLS stream cut without close_notify
};

struct IoResult {
  Io status = Io::blocked;
  std::size_t bytes = 0;
  bool drained = false;
};

class Transport {
 public:
  Transport() = default;
  ~Transport() { close(); }
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // Takes the descriptor; `session` (may be null: plain) is taken too.
  void open(int fd, SSL* session);
  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  bool tls() const { return session_ != nullptr; }

  IoResult handshake();  // ok when done
  IoResult read(char* to, std::size_t room);
  // Writes first, then second, in one system call when plain. `bytes` may be less than both.
  IoResult write(std::string_view first, std::string_view second = {});
  void end_writing();  // FIN; on TLS close_notify before it
  // What the peer proved to be in the handshake, when it was asked for a certificate; else nullptr.
  std::shared_ptr<const identity::ClientCertificate> peer_certificate() const;
  // Has the peer closed or sent something, or sent something, without taking it? Plain sockets only; TLS answers false.
  bool readable_or_closed() const;
  bool has_unread() const;
  // The first bytes of the connection below TLS, as far as they are there, left in place; and taking them.
  std::string_view peek(char* to, std::size_t room) const;
  void skip(char* scratch, std::size_t bytes);
  int take_error() const;           // SO_ERROR
  std::size_t undelivered() const;  // bytes written that the peer's kernel has not confirmed (SIOCOUTQ)
  void reset_on_close();            // close() will send RST: the peer sees that something was cut
  void close();
  // Of the last `failed`, for the log.
  std::string error() const { return error_ == nullptr ? std::string() : *error_; }

 private:
  friend struct TransportBio;
  IoResult tls_result(int result);
  IoResult failed(std::string error);

  int fd_ = -1;
  SSL* session_ = nullptr;
  bool short_read_ = false;                   // the last recv() got less than it asked for
  bool broken_ = false;                       // a TLS session that failed must not be shut down
  std::unique_ptr<const std::string> error_;  // few have one
};

}  // namespace tollgate::net
