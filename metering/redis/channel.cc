#include "metering/redis/channel.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "metering/base/check.h"

namespace tollgate::redis {
namespace {

constexpr std::size_t kChunk = 16 * 1024;

std::string openssl_reason() {
  unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "unknown reason";
  const char* reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : fmt::format("error {:x}", code);
}

bool is_address(const std::string& name) {
  std::array<unsigned char, sizeof(in6_addr)> ignored;
  return inet_pton(AF_INET, name.c_str(), ignored.data()) == 1 ||
         inet_pton(AF_INET6, name.c_str(), ignored.data()) == 1;
}

}  // namespace

Result<std::unique_ptr<TlsContext>> TlsContext::make(const std::string& ca_file, bool verify) {
  std::unique_ptr<TlsContext> made(new TlsContext);
  made->context_ = SSL_CTX_new(TLS_client_method());
  if (made->context_ == nullptr) return fail(Origin::self, "TLS cannot be set up: " + openssl_reason());
  SSL_CTX_set_min_proto_version(made->context_, TLS1_2_VERSION);
  SSL_CTX_set_mode(made->context_, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  // A Redis that is killed does not say goodbye; the reply reader finds truncated replies by itself.
  SSL_CTX_set_options(made->context_, SSL_OP_IGNORE_UNEXPECTED_EOF);
  if (!verify) return made;
  SSL_CTX_set_verify(made->context_, SSL_VERIFY_PEER, nullptr);
  int loaded = ca_file.empty() ? SSL_CTX_set_default_verify_paths(made->context_)
                               : SSL_CTX_load_verify_locations(made->context_, ca_file.c_str(), nullptr);
  if (loaded != 1)
    return fail(Origin::config, fmt::format("store.ca_file {}: no certificates could be read: {}", ca_file,
                                            openssl_reason()));
  return made;
}

TlsContext::~TlsContext() {
  SSL_CTX_free(context_);
}

Channel::~Channel() {
  SSL_free(tls_);
  ::close(fd_);
}

void Channel::use_tls(const TlsContext& context, const std::string& name, bool verify) {
  tls_ = SSL_new(context.context_);
  CHECK(tls_ != nullptr, "SSL_new");
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  CHECK(in != nullptr && out != nullptr, "BIO_new");
  BIO_set_mem_eof_return(in, -1);
  SSL_set_bio(tls_, in, out);
  SSL_set_connect_state(tls_);
  bool address = is_address(name);
  if (!address) SSL_set_tlsext_host_name(tls_, name.c_str());
  if (!verify) return;
  if (address) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls_), name.c_str());
  } else {
    SSL_set_hostflags(tls_, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    SSL_set1_host(tls_, name.c_str());
  }
}

Io Channel::receive(char* into, std::size_t size, std::size_t& length) {
  for (;;) {
    ssize_t got = ::recv(fd_, into, size, 0);
    if (got > 0) {
      length = static_cast<std::size_t>(got);
      return Io::done;
    }
    if (got == 0) {
      error_ = "the server closed the connection";
      return Io::closed;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Io::again;
    error_ = std::strerror(errno);
    return Io::failed;
  }
}

Io Channel::transmit(std::string_view bytes, std::size_t& offset) {
  while (offset < bytes.size()) {
    ssize_t sent = ::send(fd_, bytes.data() + offset, bytes.size() - offset, MSG_NOSIGNAL);
    if (sent >= 0) {
      offset += static_cast<std::size_t>(sent);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Io::again;
    error_ = std::strerror(errno);
    return Io::failed;
  }
  return Io::done;
}

// What TLS wants to send goes to the kernel as far as it will.
Io Channel::transmit_cipher() {
  std::array<char, kChunk> chunk;
  int got = 0;
  while ((got = BIO_read(SSL_get_wbio(tls_), chunk.data(), static_cast<int>(chunk.size()))) > 0)
    cipher_out_.append(chunk.data(), static_cast<std::size_t>(got));
  Io result = transmit(cipher_out_, cipher_offset_);
  if (result == Io::done) {
    cipher_out_.clear();
    cipher_offset_ = 0;
  }
  return result;
}

// What the kernel has goes to TLS.
Io Channel::pull_cipher() {
  std::array<char, kChunk> chunk;
  std::size_t length = 0;
  Io result = receive(chunk.data(), chunk.size(), length);
  if (result != Io::done) return result;
  BIO_write(SSL_get_rbio(tls_), chunk.data(), static_cast<int>(length));
  return Io::done;
}

Io Channel::fail_tls(const char* doing) {
  long verdict = SSL_get_verify_result(tls_);
  if (verdict != X509_V_OK && SSL_get_verify_mode(tls_) != SSL_VERIFY_NONE) {
    error_ = fmt::format("the server's certificate was refused: {}", X509_verify_cert_error_string(verdict));
    ERR_clear_error();
  } else {
    error_ = fmt::format("{}: {}", doing, openssl_reason());
  }
  (void)transmit_cipher();  // the alert tells the server's log why
  return Io::failed;
}

Io Channel::handshake() {
  if (tls_ == nullptr || established_) return Io::done;
  for (;;) {
    ERR_clear_error();
    int result = SSL_do_handshake(tls_);
    int why = SSL_get_error(tls_, result);
    if (result != 1 && why != SSL_ERROR_WANT_READ) return fail_tls("TLS handshake");
    Io sent = transmit_cipher();
    if (sent == Io::failed) return sent;
    if (result == 1) {
      established_ = true;
      return Io::done;
    }
    Io pulled = pull_cipher();
    if (pulled != Io::done) return pulled;
  }
}

Io Channel::read(char* into, std::size_t size, std::size_t& length) {
  if (tls_ == nullptr) return receive(into, size, length);
  for (;;) {
    ERR_clear_error();
    int got = SSL_read(tls_, into, static_cast<int>(std::min<std::size_t>(size, 1 << 20)));
    if (got > 0) {
      length = static_cast<std::size_t>(got);
      return Io::done;
    }
    int why = SSL_get_error(tls_, got);
    if (why == SSL_ERROR_ZERO_RETURN) {
      error_ = "the server closed the connection";
      return Io::closed;
    }
    if (why != SSL_ERROR_WANT_READ) return fail_tls("TLS");
    if (Io sent = transmit_cipher(); sent == Io::failed) return sent;  // key updates
    Io pulled = pull_cipher();
    if (pulled != Io::done) return pulled;
  }
}

Io Channel::flush(std::string_view out, std::size_t& offset) {
  if (tls_ == nullptr) return transmit(out, offset);
  // One round per record; when the kernel takes no more, further records are not made either.
  for (;;) {
    Io sent = transmit_cipher();
    if (sent != Io::done || offset == out.size()) return sent;
    ERR_clear_error();
    int wrote = SSL_write(tls_, out.data() + offset,
                          static_cast<int>(std::min<std::size_t>(out.size() - offset, 1 << 20)));
    if (wrote <= 0) return fail_tls("TLS");
    offset += static_cast<std::size_t>(wrote);
  }
}

}  // namespace tollgate::redis
