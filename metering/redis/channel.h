// A connected, non-blocking stream socket as bytes in and bytes out, plain or TLS. Inside this room only.
// TLS runs over memory buffers, so that the socket is read and written in one place, with MSG_NOSIGNAL.
// Edge-triggered use: call read() and flush() until they say `again`.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "metering/base/error.h"

struct ssl_ctx_st;
struct ssl_st;

namespace tollgate::redis {

enum class Io { done, again, closed, failed };

// Trust anchors and protocol versions (TLS 1.2 and later) for all attempts of one connection.
class TlsContext {
 public:
  static Result<std::unique_ptr<TlsContext>> make(const std::string& ca_file, bool verify);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

 private:
  friend class Channel;
  TlsContext() = default;
  ssl_ctx_st* context_ = nullptr;
};

class Channel {
 public:
  explicit Channel(int fd) : fd_(fd) {}  // owns fd
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Client side of TLS; `name` is the SNI (unless it is an address) and what the certificate must be for.
  void use_tls(const TlsContext& context, const std::string& name, bool verify);

  Io handshake();                                              // done at once without TLS
  Io read(char* into, std::size_t size, std::size_t& length);  // done: length > 0 bytes
  // Hands over the bytes of `out` from `offset` on and advances it; done when all are in the kernel.
  Io flush(std::string_view out, std::size_t& offset);
  const std::string& error() const { return error_; }  // why the last call failed

 private:
  Io receive(char* into, std::size_t size, std::size_t& length);
  Io transmit(std::string_view bytes, std::size_t& offset);
  Io transmit_cipher();
  Io pull_cipher();
  Io fail_tls(const char* doing);

  int fd_;
  ssl_st* tls_ = nullptr;
  bool established_ = false;
  std::string cipher_out_;
  std::size_t cipher_offset_ = 0;
  std::string error_;
};

}  // namespace tollgate::redis
