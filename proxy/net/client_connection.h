// One connection from a client: TLS, waiting for a request, then a Session as long as one is under way, then
// either the next request or an ending that lets the client read the reply.
//
//   handshake ─> idle <─────────────────────────┐
//                 │ first byte                  │ keep-alive
//                 v                             │
//               head ─> exchange (Session) ─────┴──> lingering ─> gone
//
// Before all that, where the listener wants it, a PROXY header is taken that says who the client is.
//
// Idle it holds no buffers and no session (a few hundred bytes). The next request of a pipeline is only
// parsed once the reply before it has been sent. After an error reply the socket is closed for writing, and
// what the client still sends is read and dropped (RFC 9112 section 9.6): closing at once would reset the connection and
// destroy the reply on its way, before a client that writes a whole upload first has looked for it. It may send as fast
// and as much as it can within kLingerMax, as long as it keeps to settings.limits.min_body_rate over every kLingerLook.
// Such a connection counts in every cap, and holds no more than an idle one.
//
// A client that closes only its sending side (shutdown) still gets its reply, if that comes within
// kHalfCloseGrace: TCP cannot tell it from a client that has gone, for which the upstream must not work on.
//
// A client that is waited for, for more of a body or to take more of a reply, is entered in the worker's list
// of these (await()); the worker looks at them once a second and cuts off who is slower than
// settings.limits.min_body_rate and min_reply_rate. Heads and handshakes have a time-out over all of them.
//
// Threads: the worker's.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "proxy/net/address_table.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/tls.h"
#include "proxy/net/transport.h"

namespace tollgate::net {

class Session;
class Worker;

inline constexpr Milliseconds kHalfCloseGrace{1'000};
inline constexpr Milliseconds kLingerMax{30'000};  // 100 MB at 30 Mbit/s
inline constexpr Milliseconds kLingerMaxShort{
    2'000};  // beyond the cap of connections, and while the worker closes
inline constexpr Milliseconds kLingerLook{5'000};

class ClientConnection {
 public:
  // address: what the peer's address is counted under, or nullptr; given back at the end. announced: a PROXY
  // header comes first and says who the peer is.
  ClientConnection(Worker& worker, int fd, std::string_view peer_address, AddressTable::Entry* address,
                   std::shared_ptr<const ServerTls> tls, bool overloaded, bool announced);
  ~ClientConnection();
  ClientConnection(const ClientConnection&) = delete;
  ClientConnection& operator=(const ClientConnection&) = delete;

  void start();
  void advance();            // does all that can be done now; safe to call from within
  void close();              // at once; the object goes in the next turn
  void stop();               // the worker stops: ends a session, then closes
  void close_when_silent();  // an idle one: once it was silent for kSilence
  bool is_idle() const { return phase_ == Phase::idle; }
  MonotonicTime idle_since() const { return idle_since_; }  // when is_idle()
  // A look at a connection that is in the list of awaited ones.
  enum class Progress : std::uint8_t { not_awaited, fast_enough, slow_body, slow_reader };
  Progress look(const config::Limits& limits, MonotonicTime now);
  void cut(Progress why);  // slow_body: 408 as far as possible; slow_reader: at once

  // ---- for the Session
  Transport& transport() { return transport_; }
  const std::string& peer_address() const { return peer_address_; }
  bool tls() const { return transport_.tls(); }
  bool overloaded() const { return overloaded_; }
  // Of the client; nullptr: none.
  std::shared_ptr<const identity::ClientCertificate> certificate() const {
    return secured_ == nullptr ? nullptr : secured_->certificate;
  }
  LoopTimer& timer() { return timer_; }  // the stall timer while an exchange is under way
  bool readable = false, writable = true;
  bool sends_later = false;  // the worker's: it is among those that send at the end of the turn
  bool peer_closed = false;  // the kernel said so; bytes may still wait before the end
  void await();              // the client has to send or to take something before the exchange goes on
  std::uint64_t received = 0, sent = 0;  // bytes during exchanges, without the heads of requests
  AddressTable::Entry* address() const { return address_; }

  static constexpr std::size_t kNotAwaited = static_cast<std::size_t>(-1);
  std::size_t awaited_place = kNotAwaited;  // in the worker's list

  // Place in the worker's list of idle connections, the longest idle first.
  ClientConnection* idle_before = nullptr;
  ClientConnection* idle_after = nullptr;

 private:
  enum class Phase : std::uint8_t { announced, handshake, idle, head, exchange, lingering, gone };

  static void on_event(void* self, short what);
  static void on_timer(void* self);
  void step();
  void read_announcement();
  void handshake();
  void read_head();
  void parse_head();
  void head_timed_out();
  void run_exchange();
  void exchange_over();
  void next_request();
  void become_idle();
  void silence_ended();
  void linger();
  void drop_input();
  void look_at_lingering();
  void drop_session();

  Worker& worker_;
  Watch watch_;
  Transport transport_;
  LoopTimer timer_;
  std::string peer_address_;
  AddressTable::Entry* address_;
  MonotonicTime idle_since_{};
  std::unique_ptr<Session> session_;
  Phase phase_ = Phase::handshake;
  bool overloaded_;
  struct Secured {
    // Certificates may be replaced while a handshake of ours still asks for one by name.
    const std::shared_ptr<const ServerTls> tls;
    std::shared_ptr<const identity::ClientCertificate> certificate;  // of the client, after the handshake
  };
  const std::unique_ptr<Secured> secured_;  // nullptr without TLS
  bool advancing_ = false, again_ = false, eof_ = false;
  std::uint64_t dropped_ = 0;  // while lingering, since the last look
  MonotonicTime linger_until_{};
};

}  // namespace tollgate::net
