// One connection to a server of an upstream: connecting, TLS, writing requests, turning replies into events.
// Belongs to its pool; used by one UpstreamUser at a time. Idle it holds no buffers.
//
//   connecting ─> handshaking ─> in use <──> idle
//
// The addresses are tried one after the other, in the order given (RFC 1123 section 2.3). Each has its share of the
// time that is left, the remaining time by the remaining addresses: with 2 s and two addresses a silent one costs 1
// s. A Unix socket whose accept queue is full refuses at once (EAGAIN, connect(2)) where TCP would be silent, and
// nothing tells when there is room: it is tried again every 5 ms.
//
// Bytes are read into the loop's scratch memory and decoded in place; only what cannot be used at once (half
// a head, a paused body) is kept. A user is never called from within its own write(), release or pause.
//
// Threads: the worker's.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/flow/exchange.h"
#include "proxy/http/body_decoder.h"
#include "proxy/http/response_parser.h"
#include "proxy/net/buffer.h"
#include "proxy/net/endpoint.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/transport.h"

namespace tollgate::net {

class UpstreamConnection;
class UpstreamPool;
class ClientTls;

// Who uses (or waits for) a connection. The reply_* functions are called from UpstreamConnection::pump only.
class UpstreamUser {
 public:
  virtual void upstream_ready(UpstreamConnection& connection) = 0;  // it was asked for and is now in use
  virtual void upstream_failed(flow::UpstreamFailure failure) = 0;  // it was asked for and did not come
  virtual void upstream_event() = 0;                                // readable or writable: pump soon
  virtual void reply_head(const http::ResponseHead& head) = 0;
  virtual void reply_body(std::string_view payload) = 0;
  virtual void reply_end(const std::vector<http::TrailerField>& trailers, bool reusable) = 0;
  virtual void reply_failed(flow::UpstreamFailure failure) = 0;  // the connection is of no use any more

  // Place in the pool's queue; the pool's own.
  struct Waiting {
    bool queued = false;
    UpstreamConnection* connecting = nullptr;
    LoopTimer timer;
    UpstreamPool* pool = nullptr;
    flow::ExchangePort::Wanted wanted;
    flow::UpstreamFailure failure = flow::UpstreamFailure::queue_full;  // when the timer fires
    std::size_t last_server = static_cast<std::size_t>(-1);  // that was used or tried for this call
    bool check = false;  // a health check: outside the bounds and counts of calls
  } waiting;

 protected:
  ~UpstreamUser() = default;
};

class UpstreamConnection {
 public:
  UpstreamConnection(EventLoop& loop, UpstreamPool& pool, std::size_t server, http::HeadLimits limits);
  ~UpstreamConnection();
  UpstreamConnection(const UpstreamConnection&) = delete;
  UpstreamConnection& operator=(const UpstreamConnection&) = delete;

  // ---- the pool's
  void connect(std::vector<Endpoint> addresses, const ClientTls* tls, const std::string& host,
               MonotonicTime deadline);
  void wait_for_address(MonotonicTime deadline);
  bool waits_for_address() const { return state_ == State::resolving; }
  void use(UpstreamUser& user);  // from idle, or bound while connecting
  void idle_until(MonotonicTime deadline);
  bool stale();  // idle: closed, or bytes are there that nobody asked for
  // idle: worth a look by stale(), since bytes may be there. A body where none may be comes behind the head, and no event
  // has told of it yet when the connection is used again in the same turn.
  bool is_suspect() const { return bodiless_ || event_waits(); }
  bool event_waits() const {
    return watch_.event_waits();
  }  // the loop knows something that was not handled yet
  void close();
  std::size_t server() const { return server_; }
  UpstreamUser* user() const { return user_; }
  bool reused() const { return uses_ > 1; }
  std::string_view label() const { return label_; }
  // For Host, where nobody names another: a Unix socket has no name of its own.
  std::string_view authority() const {
    return label_.starts_with("unix:") ? "localhost" : std::string_view(label_);
  }
  void set_label(std::string label) { label_ = std::move(label); }
  std::string error() const { return error_; }
  bool timed_out() const { return timed_out_; }  // why connecting failed, at the address tried last
  const Endpoint& peer() const { return peer_; }

  // ---- the user's
  void expect(std::string_view method, bool upgrade);
  static constexpr std::size_t kDirectWrite =
      16 * 1024;                       // from here on bytes are sent without being copied first
  void write(std::string_view bytes);  // sent by flush(), or at once when there are so many
  std::size_t backlog() const { return out_.size(); }
  bool can_send() const { return writable_ && !out_.empty(); }
  void set_reading(bool wanted) { reading_ = wanted; }
  void end_writing() { end_writing_ = true; }
  bool flush();                   // true when bytes left
  bool pump(UpstreamUser& user);  // reads and delivers; true when something was delivered

 private:
  enum class State : std::uint8_t { resolving, queueing, connecting, handshaking, used, idle, closed };
  enum class Phase : std::uint8_t { head, body, tunnel, done };

  static void on_event(void* self, short what);
  static void on_timer(void* self);
  void connect_next();
  void attempt_failed(std::string error);
  void go_on_connecting(short what);
  void established();
  void connect_failed(std::string error);
  void idle_event();
  std::size_t process(std::string_view bytes, UpstreamUser& user);
  bool process_head(std::string_view& bytes, UpstreamUser& user);
  void process_body(std::string_view& bytes, UpstreamUser& user);
  void ended(bool in_order, UpstreamUser& user);
  bool quiet();
  bool still(const UpstreamUser& user, std::uint64_t use) const { return user_ == &user && uses_ == use; }

  EventLoop& loop_;
  UpstreamPool& pool_;
  const std::size_t server_;
  Watch watch_;
  Transport transport_;
  LoopTimer timer_;
  State state_ = State::resolving;
  Phase phase_ = Phase::head;
  UpstreamUser* user_ = nullptr;
  std::uint64_t uses_ = 0;
  std::string label_, error_, tls_host_;
  std::vector<Endpoint> addresses_;
  std::size_t next_address_ = 0;
  MonotonicTime deadline_{};  // of connecting
  Endpoint peer_;
  bool timed_out_ = false;
  const ClientTls* tls_ = nullptr;  // the pool's; only while connecting

  http::ResponseParser parser_;
  std::optional<http::BodyDecoder> decoder_;
  Buffer in_, out_;
  bool readable_ = false, writable_ = false, peer_closed_ = false;
  bool reading_ = false, write_broken_ = false, end_writing_ = false;
  bool reply_started_ = false, reply_keep_alive_ = false;
  bool bodiless_ = false;  // the last reply was one that never has a body
};

}  // namespace tollgate::net
