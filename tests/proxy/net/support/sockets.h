// Blocking sockets for tests: a raw client and an upstream whose every connection runs a script.
// Everything gives up after 10 s, so that a hanging test fails instead.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;

namespace tollgate::net::test {

struct Message {
  std::string start_line, head, body;  // head: with start line and final empty line; body: decoded of chunked
  std::vector<std::string> trailers;
  bool complete = false;                           // the body ended as its framing says
  int status() const;                              // of a reply
  std::string field(std::string_view name) const;  // first value, "" when absent
  int count(std::string_view name) const;
};

// One connected socket, either end.
class Peer {
 public:
  Peer() = default;
  explicit Peer(int fd) : fd_(fd) {}
  Peer(Peer&& other) noexcept;
  Peer& operator=(Peer&& other) noexcept;
  ~Peer();

  static Peer connect(std::uint16_t port, int receive_buffer = 0);
  bool start_tls(SSL_CTX* context,
                 const std::string& server_name);  // as a client; false when the handshake failed
  bool accept_tls(SSL_CTX* context);
  SSL* session() { return session_; }

  bool send(std::string_view bytes);  // false when the other side is gone
  void end_writing();
  void reset();  // RST
  void close();
  // The next message; `head_reply`: it has no body whatever its fields say.
  Message read_message(bool head_reply = false);
  std::string read_exactly(std::size_t count);
  std::string read_some();  // "" at the end
  std::string read_head();  // up to and with the empty line
  bool at_end();            // waits for the end of the stream; false when bytes came instead
  std::string read_all();

 private:
  bool fill();
  int fd_ = -1;
  SSL* session_ = nullptr;
  std::string buffer_;
};

// Declare it before the proxy: its scripts end when the proxy has closed their connections.
class Upstream {
 public:
  using Script = std::function<void(Peer&)>;
  explicit Upstream(Script script, SSL_CTX* tls = nullptr);
  ~Upstream();
  std::uint16_t port() const { return port_; }
  std::string url() const;
  int connections() const { return connections_; }

 private:
  Script script_;
  SSL_CTX* tls_;
  int listen_fd_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<int> connections_{0};
  std::atomic<bool> stopping_{false};
  std::thread acceptor_;
  std::mutex mutex_;
  std::vector<std::thread> threads_;
};

// Answers every request on every connection with 200 and a body that names what came in.
void echo(Peer& peer);

// Answers requests with what `answer` makes of their text, head and body; "": never, until the client hangs up. A
// connection stays open after a reply that says "Connection: keep-alive". One answer is made at a time.
class AnsweringServer {
 public:
  using Answer = std::function<std::string(const std::string& request)>;
  explicit AnsweringServer(Answer answer, SSL_CTX* tls = nullptr);
  std::string url() const { return upstream_.url(); }
  std::vector<std::string> asked() const;  // "GET /path" of each
  std::string last() const;                // text of the last; "": none

 private:
  void serve(Peer& peer);
  const Answer answer_;
  std::mutex answering_;
  mutable std::mutex mutex_;
  std::vector<std::string> asked_;  // guarded by mutex_
  std::string last_;                // guarded by mutex_
  Upstream upstream_;               // its threads end before the rest does
};

// A port on which nobody listens.
std::uint16_t unused_port();

}  // namespace tollgate::net::test
