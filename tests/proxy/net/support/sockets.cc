#include "tests/proxy/net/support/sockets.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "metering/base/ascii.h"

namespace tollgate::net::test {

namespace {

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(port);
  return at;
}

void limit_waiting(int fd) {
  const timeval limit{10, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

int Message::status() const {
  return start_line.size() > 12 ? std::stoi(start_line.substr(9, 3)) : 0;
}

std::string Message::field(std::string_view name) const {
  std::size_t at = head.find("\r\n");
  while (at != std::string::npos && at + 2 < head.size()) {
    const std::size_t next = head.find("\r\n", at + 2);
    const std::string_view line = std::string_view(head).substr(at + 2, next - at - 2);
    if (starts_with_ignore_case(line, name) && line.size() > name.size() && line[name.size()] == ':')
      return std::string(trim(line.substr(name.size() + 1)));
    at = next;
  }
  return "";
}

int Message::count(std::string_view name) const {
  int found = 0;
  std::size_t at = head.find("\r\n");
  while (at != std::string::npos && at + 2 < head.size()) {
    const std::string_view line = std::string_view(head).substr(at + 2);
    if (starts_with_ignore_case(line, name) && line.size() > name.size() && line[name.size()] == ':') ++found;
    at = head.find("\r\n", at + 2);
  }
  return found;
}

Peer::Peer(Peer&& other) noexcept {
  *this = std::move(other);
}
Peer& Peer::operator=(Peer&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(session_, other.session_);
  std::swap(buffer_, other.buffer_);
  return *this;
}
Peer::~Peer() {
  close();
}

void Peer::close() {
  if (session_ != nullptr) {
    SSL_shutdown(session_);
    SSL_free(session_);
    session_ = nullptr;
  }
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Peer Peer::connect(std::uint16_t port, int receive_buffer) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  limit_waiting(fd);
  if (receive_buffer > 0) ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  const sockaddr_in at = loopback(port);
  EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0) << std::strerror(errno);
  return Peer(fd);
}

bool Peer::start_tls(SSL_CTX* context, const std::string& server_name) {
  session_ = SSL_new(context);
  SSL_set_fd(session_, fd_);
  if (!server_name.empty()) SSL_set_tlsext_host_name(session_, server_name.c_str());
  return SSL_connect(session_) == 1;
}

bool Peer::accept_tls(SSL_CTX* context) {
  session_ = SSL_new(context);
  SSL_set_fd(session_, fd_);
  return SSL_accept(session_) == 1;
}

bool Peer::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = session_ != nullptr
                             ? SSL_write(session_, bytes.data(), static_cast<int>(bytes.size()))
                             : ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

void Peer::end_writing() {
  ::shutdown(fd_, SHUT_WR);
}

void Peer::reset() {
  const linger at_once{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  if (session_ != nullptr) SSL_free(session_);
  session_ = nullptr;
  close();
}

bool Peer::fill() {
  char bytes[65536];
  const ssize_t got =
      session_ != nullptr ? SSL_read(session_, bytes, sizeof bytes) : ::recv(fd_, bytes, sizeof bytes, 0);
  if (got <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(got));
  return true;
}

std::string Peer::read_some() {
  if (buffer_.empty()) fill();
  return std::exchange(buffer_, {});
}

std::string Peer::read_exactly(std::size_t count) {
  while (buffer_.size() < count && fill()) {
  }
  std::string out = buffer_.substr(0, count);
  buffer_.erase(0, out.size());
  return out;
}

std::string Peer::read_head() {
  while (buffer_.find("\r\n\r\n") == std::string::npos)
    if (!fill()) return std::exchange(buffer_, {});
  return read_exactly(buffer_.find("\r\n\r\n") + 4);
}

bool Peer::at_end() {
  if (!buffer_.empty()) return false;
  char byte;
  const ssize_t got = session_ != nullptr ? SSL_read(session_, &byte, 1) : ::recv(fd_, &byte, 1, 0);
  return got == 0 || (got < 0 && (session_ != nullptr || errno == ECONNRESET));
}

std::string Peer::read_all() {
  while (fill()) {
  }
  return std::exchange(buffer_, {});
}

Message Peer::read_message(bool head_reply) {
  Message message;
  message.head = read_head();
  message.start_line = message.head.substr(0, message.head.find("\r\n"));
  const bool reply = message.start_line.starts_with("HTTP/");
  const int status = reply ? message.status() : 0;
  if (!message.head.ends_with("\r\n\r\n")) return message;
  if (head_reply || (reply && (status < 200 || status == 204 || status == 304))) {
    message.complete = true;
  } else if (message.field("transfer-encoding") == "chunked") {
    for (;;) {
      while (buffer_.find("\r\n") == std::string::npos)
        if (!fill()) return message;
      const std::string line = read_exactly(buffer_.find("\r\n") + 2);
      const std::size_t size = std::stoul(line, nullptr, 16);
      if (size == 0) break;
      const std::string chunk = read_exactly(size + 2);
      if (chunk.size() < size + 2) {
        message.body += chunk;
        return message;
      }
      message.body += chunk.substr(0, size);
    }
    for (;;) {
      while (buffer_.find("\r\n") == std::string::npos)
        if (!fill()) return message;
      const std::string line = read_exactly(buffer_.find("\r\n") + 2);
      if (line == "\r\n") break;
      message.trailers.push_back(line.substr(0, line.size() - 2));
    }
    message.complete = true;
  } else if (const std::string length = message.field("content-length"); !length.empty()) {
    message.body = read_exactly(std::stoul(length));
    message.complete = message.body.size() == std::stoul(length);
  } else if (reply) {
    message.body = read_all();
    message.complete = true;
  } else {
    message.complete = true;
  }
  return message;
}

Upstream::Upstream(Script script, SSL_CTX* tls) : script_(std::move(script)), tls_(tls) {
  listen_fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at = loopback(0);
  EXPECT_EQ(::bind(listen_fd_, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
  EXPECT_EQ(::listen(listen_fd_, 128), 0);
  socklen_t size = sizeof at;
  ::getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&at), &size);
  port_ = ntohs(at.sin_port);
  acceptor_ = std::thread([this] {
    for (;;) {
      const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0 || stopping_) {
        if (fd >= 0) ::close(fd);
        return;
      }
      limit_waiting(fd);
      ++connections_;
      std::lock_guard lock(mutex_);
      threads_.emplace_back([this, fd] {
        Peer peer(fd);
        if (tls_ != nullptr && !peer.accept_tls(tls_)) return;
        script_(peer);
      });
    }
  });
}

Upstream::~Upstream() {
  stopping_ = true;
  ::shutdown(listen_fd_, SHUT_RDWR);
  acceptor_.join();
  ::close(listen_fd_);
  for (std::thread& thread : threads_) thread.join();
}

std::string Upstream::url() const {
  return (tls_ != nullptr ? "https://127.0.0.1:" : "http://127.0.0.1:") + std::to_string(port_);
}

void echo(Peer& peer) {
  for (;;) {
    const Message request = peer.read_message();
    if (!request.complete) return;
    const bool head_only = request.start_line.starts_with("HEAD ");
    const std::string body = request.head + request.body;
    if (!peer.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
                   (head_only ? "" : body)))
      return;
  }
}

AnsweringServer::AnsweringServer(Answer answer, SSL_CTX* tls)
    : answer_(std::move(answer)), upstream_([this](Peer& peer) { serve(peer); }, tls) {}

std::vector<std::string> AnsweringServer::asked() const {
  std::lock_guard lock(mutex_);
  return asked_;
}

std::string AnsweringServer::last() const {
  std::lock_guard lock(mutex_);
  return last_;
}

void AnsweringServer::serve(Peer& peer) {
  for (;;) {
    const Message request = peer.read_message();
    if (!request.complete) return;
    const std::string text = request.head + request.body;
    {
      std::lock_guard lock(mutex_);
      asked_.push_back(text.substr(0, text.find(" HTTP/")));
      last_ = text;
    }
    std::string reply;
    {
      std::lock_guard lock(answering_);
      reply = answer_(text);
    }
    if (reply.empty()) {
      peer.at_end();
      return;
    }
    if (!peer.send(reply) || reply.find("Connection: keep-alive\r\n") == reply.npos) return;
  }
}

std::uint16_t unused_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at = loopback(0);
  ::bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at);
  socklen_t size = sizeof at;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size);
  ::close(fd);
  return ntohs(at.sin_port);
}

}  // namespace tollgate::net::test
