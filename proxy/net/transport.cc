#include "proxy/net/transport.h"

#include <linux/sockios.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "metering/base/check.h"

namespace tollgate::net {

// OpenSSL's own socket BIO writes without MSG_NOSIGNAL and does not say whether a read emptied the socket.
struct TransportBio {
  static int read(BIO* bio, char* to, int room) {
    auto* transport = static_cast<Transport*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    ssize_t got;
    do got = ::recv(transport->fd_, to, static_cast<std::size_t>(room), 0);
    while (got < 0 && errno == EINTR);
    transport->short_read_ = got < room;
    if (got < 0 && errno == EAGAIN) BIO_set_retry_read(bio);
    if (got == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    return static_cast<int>(got);
  }
  static int write(BIO* bio, const char* from, int size) {
    auto* transport = static_cast<Transport*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    ssize_t sent;
    do sent = ::send(transport->fd_, from, static_cast<std::size_t>(size), MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno == EAGAIN) BIO_set_retry_write(bio);
    return static_cast<int>(sent);
  }
  static long control(BIO* bio, int command, long, void*) {
    if (command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP) return 1;
    if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    return 0;
  }
  static BIO_METHOD* method() {
    static BIO_METHOD* const instance = [] {
      BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tollgate socket");
      CHECK(made != nullptr, "out of memory");
      BIO_meth_set_read(made, &TransportBio::read);
      BIO_meth_set_write(made, &TransportBio::write);
      BIO_meth_set_ctrl(made, &TransportBio::control);
      return made;
    }();
    return instance;
  }
};

void Transport::open(int fd, SSL* session) {
  CHECK(fd_ < 0, "a transport has one socket");
  fd_ = fd;
  session_ = session;
  broken_ = short_read_ = false;
  if (session_ == nullptr) return;
  BIO* bio = BIO_new(TransportBio::method());
  CHECK(bio != nullptr, "out of memory");
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(session_, bio, bio);
}

IoResult Transport::failed(std::string error) {
  error_ = std::make_unique<const std::string>(std::move(error));
  return {Io::failed, 0, true};
}

IoResult Transport::tls_result(int result) {
  switch (SSL_get_error(session_, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      return {Io::blocked, 0, true};
    case SSL_ERROR_ZERO_RETURN:
      return {Io::closed, 0, true};
    case SSL_ERROR_SYSCALL:
      broken_ = true;
      return failed(errno != 0 ? std::strerror(errno) : "the peer closed the connection");
    default: {
      broken_ = true;
      char text[256] = "TLS failed";
      const unsigned long code = ERR_get_error();
      if (code != 0) ERR_error_string_n(code, text, sizeof text);
      const long verify = SSL_get_verify_result(session_);
      return failed(verify == X509_V_OK ? text
                                        : fmt::format("{}: {}", text, X509_verify_cert_error_string(verify)));
    }
  }
}

IoResult Transport::handshake() {
  if (session_ == nullptr) return {Io::ok, 0, false};
  ERR_clear_error();
  errno = 0;
  const int result = SSL_do_handshake(session_);
  if (result == 1) return {Io::ok, 0, false};
  return tls_result(result);
}

IoResult Transport::read(char* to, std::size_t room) {
  if (session_ != nullptr) {
    ERR_clear_error();
    errno = 0;
    // Only a look at the socket in this very call may say that it is empty: since an earlier one, bytes may have
    // come whose event is spent.
    short_read_ = false;
    const int result = SSL_read(session_, to, static_cast<int>(std::min<std::size_t>(room, INT_MAX)));
    if (result > 0)
      return {Io::ok, static_cast<std::size_t>(result), short_read_ && SSL_has_pending(session_) == 0};
    return tls_result(result);
  }
  for (;;) {
    const ssize_t got = ::recv(fd_, to, room, 0);
    if (got > 0) return {Io::ok, static_cast<std::size_t>(got), static_cast<std::size_t>(got) < room};
    if (got == 0) return {Io::closed, 0, true};
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {Io::blocked, 0, true};
    return failed(std::strerror(errno));
  }
}

IoResult Transport::write(std::string_view first, std::string_view second) {
  if (session_ != nullptr) {
    std::size_t written = 0;
    for (const std::string_view part : {first, second}) {
      std::size_t at = 0;
      while (at < part.size()) {
        ERR_clear_error();
        errno = 0;
        const int size = static_cast<int>(std::min<std::size_t>(part.size() - at, INT_MAX));
        const int result = SSL_write(session_, part.data() + at, size);
        if (result <= 0) {
          IoResult outcome = tls_result(result);
          if (outcome.status == Io::blocked && written > 0) return {Io::ok, written, true};
          if (outcome.status == Io::closed) outcome.status = Io::failed;
          return outcome;
        }
        at += static_cast<std::size_t>(result);
        written += static_cast<std::size_t>(result);
      }
    }
    return {Io::ok, written, false};
  }
  for (;;) {
    ssize_t sent;
    if (second.empty()) {
      sent = ::send(fd_, first.data(), first.size(), MSG_NOSIGNAL);
    } else {
      iovec parts[2] = {{const_cast<char*>(first.data()), first.size()},
                        {const_cast<char*>(second.data()), second.size()}};
      msghdr message{};
      message.msg_iov = parts;
      message.msg_iovlen = 2;
      sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
    }
    if (sent >= 0) {
      const auto count = static_cast<std::size_t>(sent);
      return {Io::ok, count, count < first.size() + second.size()};
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {Io::blocked, 0, true};
    return failed(std::strerror(errno));
  }
}

void Transport::end_writing() {
  if (fd_ < 0) return;
  if (session_ != nullptr && !broken_ && SSL_is_init_finished(session_)) {
    ERR_clear_error();
    SSL_shutdown(session_);
  }
  ::shutdown(fd_, SHUT_WR);
}

// Also of a session that was resumed: its ticket holds the certificate, and is good only for the authorities that it was
// checked against (tls.cc).
std::shared_ptr<const identity::ClientCertificate> Transport::peer_certificate() const {
  if (session_ == nullptr || SSL_get_verify_result(session_) != X509_V_OK) return nullptr;
  const X509* certificate = SSL_get0_peer_certificate(session_);
  return certificate == nullptr ? nullptr : identity::ClientCertificate::read(*certificate);
}

bool Transport::has_unread() const {
  if (session_ != nullptr) return false;
  char byte;
  return ::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

bool Transport::readable_or_closed() const {
  if (session_ != nullptr) return false;
  char byte;
  const ssize_t got = ::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

int Transport::take_error() const {
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

std::string_view Transport::peek(char* to, std::size_t room) const {
  const ssize_t got = ::recv(fd_, to, room, MSG_PEEK | MSG_DONTWAIT);
  return {to, got > 0 ? static_cast<std::size_t>(got) : 0};
}

void Transport::skip(char* scratch, std::size_t bytes) {
  const ssize_t got = ::recv(fd_, scratch, bytes, MSG_DONTWAIT);
  CHECK(got == static_cast<ssize_t>(bytes), "what was seen is there");
}

std::size_t Transport::undelivered() const {
  int bytes = 0;
  return ::ioctl(fd_, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

void Transport::reset_on_close() {
  const linger at_once{1, 0};
  if (fd_ >= 0) ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  broken_ = true;  // no close_notify either
}

void Transport::close() {
  if (session_ != nullptr) {
    if (!broken_ && SSL_is_init_finished(session_) && (SSL_get_shutdown(session_) & SSL_SENT_SHUTDOWN) == 0) {
      ERR_clear_error();
      SSL_shutdown(session_);
    }
    SSL_free(session_);
    session_ = nullptr;
  }
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

}  // namespace tollgate::net
