// The life of one HTTP exchange (one request and its reply) as a state machine: events in, actions out. No
// socket, no clock, no thread. The edge (proxy/net) turns bytes into events and implements ExchangePort;
// tests script a port.
//
//   request half    waiting ─> buffering ─> complete        (the gate needs the whole body)
//                      └─────> streaming ─> complete        (with back-pressure)
//                      └─────> discarding ─> complete       (a reply of our own went out first; bounded)
//
//   reply half      deciding ─> acquiring ─> forwarding ─> replying ─> flushing ─> over
//                      │  ▲         │  ▲________│ (retry)     └──> tunnel ──────────▲
//                      │  └ store   └───────────┴──> flushing (a reply of our own)  │
//                      └──> flushing ────────────────────────────────────────────────
//
// Invariants
//   - exactly one usage::Fact per exchange, on every ending, parse failures included; recorded once the last
//   byte of
//     the reply has left, or when it is known that it never will
//   - a metered call is in the journal before it is charged and marked as sent before the upstream can receive it, so
//     that the death of the process at any moment neither loses nor invents a billable call
//   - a charge is given back if and only if the upstream surely never received the call: no byte of the
//   request was
//     handed to any upstream connection that got established
//   - no memory but the buffered body (settings.catalogue.max_body) and what the port holds
//   (settings.limits.buffer a
//     direction: beyond it the sender is paused)
//   - a request is sent again only when it was surely never received (connecting failed), or when it is
//     idempotent (RFC 9110 section 9.2.2) and still whole: once when a reused connection was closed without a
//     byte of a reply, else as upstreams.*.retry_on says, up to max_retries, as long as the upstream's budget
//     lasts
//
// Threads: belongs to one worker; every function on that worker. Events must not be delivered from within an
// action, except on_seat, on_charge and on_usage, which a ledger may answer at once.
//
// What a reply says about a session (a log-in that succeeded, a log-out, a new cookie or token) holds it back until the other
// proxies can know of it, or cannot be told now: the client's next request, wherever it goes, finds it so. At most
// kLoginReplyMax of a log-in's reply are held; who sends more has not been seen to log in. So is what it says about members
// of a portal, of which at most kPortalReplyMax are read.
//
// Time-outs -> reason: request body 408 request_timeout, queue of the pool 503 overloaded, connecting 504
// upstream_connect_timeout (both never received, so given back), waiting for the reply or a stalled body 504
// upstream_timeout, all together 504 upstream_deadline.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/time.h"
#include "metering/quota/ledger.h"
#include "metering/usage/fact.h"
#include "proxy/flow/call.h"
#include "proxy/flow/gate.h"
#include "proxy/http/body_decoder.h"
#include "proxy/http/message.h"

namespace tollgate::flow {

// A request that is not fully read when a reply of our own goes out is read and dropped up to this much, so
// that the connection can go on; more than that closes it.
inline constexpr std::uint64_t kDiscardMax = 64 * 1024;
inline constexpr std::size_t kLoginReplyMax = 64 * 1024;
inline constexpr std::size_t kPortalReplyMax = 512 * 1024;
// Of a reply that may say whose records are; a larger one goes by unread.
inline constexpr std::size_t kOwnersReplyMax = 1024 * 1024;
inline constexpr std::size_t kOwnersOfReplyMax = 1'000;  // records

// What becomes of the client connection after the exchange.
enum class ClientEnd : std::uint8_t {
  keep,   // next request
  close,  // everything was sent: close, in a way that lets the client read it
  abort,  // the reply is cut short: close at once, so that the client sees that it is incomplete
};

// What waits: each side of an exchange has one timer; a new setting replaces the old one.
enum class Timer : std::uint8_t { client, upstream };

// How an upstream failed.
enum class UpstreamFailure : std::uint8_t {
  connect,          // no connection, no TLS session or no address: nothing was sent
  connect_timeout,  // the same, within connect_timeout
  queue_full,       // waited queue_timeout for a free connection: nothing was sent
  unavailable,      // every server is down by its health checks: nothing was sent
  closed_early,     // the connection ended before the first byte of a reply
  invalid,          // the reply breaks HTTP, or ended in its middle
};
std::string_view name(UpstreamFailure failure);
// What the seats call the session's client.
seats::ClientId client_of(const identity::SessionKey& key);

// The edge, as seen by one exchange. All bytes are copied or sent before the function returns.
class ExchangePort {
 public:
  virtual ~ExchangePort() = default;
  virtual MonotonicTime now() = 0;  // reads the clock
  // When what is handled now was noticed, for nothing: the loop reads the clock once for some dozen events.
  virtual MonotonicTime event_time() = 0;
  virtual UnixTime unix_now() = 0;
  virtual std::string_view date() = 0;  // the Date field for now (http/date.h)
  virtual bool draining() = 0;          // the proxy is about to stop: replies close the connection

  virtual void client_write(std::string_view bytes) = 0;
  virtual std::size_t client_backlog() const = 0;  // bytes written and not yet taken by the socket
  virtual void client_read(bool wanted) = 0;  // on_request_body and on_request_end may come; starts unwanted
  virtual void client_end_writing() = 0;      // tunnel: half-close once the backlog is sent

  // Takes a connection to the upstream of the call's route. True: it is there, on_upstream_ready is implied
  // with the same values. False: on_upstream_ready or on_upstream_failed follows.
  struct Wanted {
    bool fresh = false;         // not one from the idle pool
    bool again = false;         // the call is tried again: by another server, if there is one
    bool once = false;          // it cannot be sent again: not on a connection that has just been closed
    std::string_view hash_key;  // what chooses the server with `balance: hash`
  };
  struct Upstream {
    std::string_view server;  // "10.0.0.7:9000", for the fact; lives as long as the connection
    bool reused = false;
  };
  virtual bool upstream_acquire(const config::Route& route, const Wanted& wanted, Upstream& upstream) = 0;
  // May a call be repeated that a server may have received? Takes it from the upstream's budget.
  virtual bool upstream_may_repeat(const config::Route& route) = 0;
  virtual void upstream_stalled() = 0;  // the server in use did not answer in time
  virtual void upstream_expect(std::string_view method, bool upgrade) = 0;  // what the reply will answer
  // Kept and sent when the port likes; Exchange::on_upstream_sends() before the first byte leaves.
  virtual void upstream_write(std::string_view bytes) = 0;
  virtual std::size_t upstream_backlog() const = 0;
  virtual void upstream_read(bool wanted) = 0;
  virtual void upstream_end_writing() = 0;
  // Gives the connection back; also gives up an acquisition under way. Not called after on_upstream_failed.
  virtual void upstream_release(bool reusable) = 0;

  // Ask the SessionStore of the worker about the key -> on_session; tell it -> on_session_written. One at a time, and
  // answers to an exchange that has ended are dropped.
  virtual void find_session(const identity::SessionKey& key) = 0;
  // LookupService::ask -> on_lookup. Like a question to the SessionStore.
  virtual void look_up(const CallLookup& lookup) = 0;
  virtual void bind_session(const identity::SessionKey& key,
                            std::shared_ptr<const identity::SessionRecord> record) = 0;
  virtual void end_session(const identity::SessionKey& key) = 0;

  // SeatLedger::take. nullopt: on_seat follows, perhaps at once. Without seats nothing is known of any.
  // OwnerLookup::find of each -> on_owners. One at a time with the questions about sessions.
  virtual void find_owners(const std::string& /*upstream*/, const std::vector<std::string>& /*records*/) {}
  // hold, client: as in SeatLedger::take.
  virtual std::optional<seats::Outcome> take_seat(const seats::Pool&, const identity::Principal&,
                                                  Milliseconds /*hold*/, seats::ClientId /*client*/) {
    return seats::Outcome{};
  }
  // SeatLedger::invite for the members of the call -> on_seat, perhaps at once; names the invitation before that.
  virtual void invite(CallPortal& portal, std::vector<std::string> members);
  // SeatLedger::settle -> on_session_written.
  virtual void settle_invitation(const CallPortal& portal, std::vector<seats::Settlement> settlements);
  virtual void leave_seat(const seats::Pool&, const identity::Principal&,
                          const std::vector<seats::ClientId>&) {}          // SeatLedger::leave
  virtual void charge(std::span<const quota::AccountCharge> charges) = 0;  // -> on_charge
  virtual void read_usage(const Call& call) = 0;                           // -> on_usage
  virtual void give_back(std::span<const quota::AccountCharge> charges, const quota::Receipt& receipt) = 0;

  virtual void set_timer(Timer timer, Milliseconds after) = 0;
  virtual void clear_timer(Timer timer) = 0;

  virtual void record(const usage::Fact& fact) = 0;
  virtual void note_shed(Shed) {}  // a request was turned away because of Arrival::shed, which this says
  // Where metered calls are written down before they happen; nullptr: nowhere (tests).
  virtual usage::CallJournal* call_journal() { return nullptr; }
};

// What the edge knows about the request's connection.
struct Arrival {
  std::shared_ptr<const Snapshot> snapshot;
  std::string_view
      peer_address;  // of the socket, http::canonical_address(): "203.0.113.9", "2001:db8::1"; may be ""
  bool tls = false;
  std::shared_ptr<const identity::ClientCertificate>
      certificate;                  // that the client proved to hold; or nullptr
  bool overloaded = false;          // beyond the cap of connections: answered with 503
  bool too_fast = false;            // more requests of this address than limits.per_address allows: 429
  Shed shed = Shed::nothing;        // what a worker that cannot keep up turns away
  std::string_view new_request_id;  // used when the client sent none that is well formed
  Life* life = nullptr;             // of a request that is watched; outlives the exchange
};

class Exchange {
 public:
  // Both outlive the exchange.
  Exchange(ExchangePort& port, Gate& gate);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  // ---- client side. `head` and the bytes it was parsed from stay in place until over().
  void on_request_head(const Arrival& arrival, const http::RequestHead& head);
  // The head was refused (400, 414, 431, 501), or did not arrive in time (408).
  // asks_head: RequestParser::asks_head().
  void on_request_refused(const Arrival& arrival, const http::ParseFailure& failure, bool asks_head);
  void on_request_body(std::string_view payload);                        // decoded; in a tunnel: raw
  void on_request_end(const std::vector<http::TrailerField>& trailers);  // in a tunnel: the client's FIN
  void on_request_body_refused(const http::ParseFailure& failure);
  void on_client_writable();  // the backlog shrank
  void on_client_gone();      // reset, write failed, or stalled for too long

  // ---- store
  void on_seat(const seats::Outcome& outcome);
  void on_charge(quota::ChargeOutcome&& outcome);
  void on_usage(Result<std::vector<quota::AccountState>>&& states,
                Result<std::vector<quota::Ledger::Listed>>&& objects, const SeatLooks& seats = {});

  void on_session(SessionAnswer answer);
  void on_lookup(std::shared_ptr<const identity::LookupVerdict> verdict);
  void on_session_written();
  void on_owners();

  // ---- upstream side
  void on_upstream_ready(const ExchangePort::Upstream& upstream);
  void on_upstream_head(const http::ResponseHead& head);  // 1xx too
  void on_upstream_body(std::string_view payload);        // decoded; in a tunnel: raw
  void on_upstream_end(const std::vector<http::TrailerField>& trailers,
                       bool reusable);  // tunnel: upstream's FIN
  void on_upstream_failed(UpstreamFailure failure);
  // Bytes of the request leave now: from here on the upstream may have received the call. It is marked as sent in the
  // journal no earlier, since a death of the process between the two would bill a call that nobody received.
  void on_upstream_sends() {
    if (!upstream_written_) note_sent();
  }
  void on_upstream_writable();  // the backlog shrank

  void on_timer(Timer timer);
  // The worker stops now: ends the exchange, whatever is under way. No answer of the ledger may follow.
  void stop();

  // ---- what the edge asks
  bool active() const { return reply_ != Reply::over; }  // false before the first and after each exchange
  bool over() const { return reply_ == Reply::over; }
  ClientEnd client_end() const { return client_end_; }  // once over
  bool tunnel() const { return reply_ == Reply::tunnel; }
  // Waiting for the ledger: the exchange must stay in place until it has answered, even when the client is
  // gone.
  bool awaits_store() const { return store_pending_; }
  // For whom nothing happens at the moment.
  Wait waits_for() const;
  bool request_complete() const { return request_ == Request::complete; }
  // The client sends its body once the upstream has told it to go on, or when it is tired of waiting (RFC 9110 section
  // 10.1.1): until then it owes nothing.
  bool client_awaits_continue() const {
    return request_ == Request::streaming && head_->expect_continue && !continue_sent_ && bytes_in_ == 0;
  }
  // A reply whose end is the end of the connection: cutting it short must not look like that end.
  bool cut_needs_reset() const { return reply_until_close_; }

 private:
  enum class Request : std::uint8_t { waiting, buffering, streaming, discarding, abandoned, complete };
  enum class Reply : std::uint8_t { deciding, acquiring, forwarding, replying, tunnel, flushing, over };

  void begin(const Arrival& arrival, const http::RequestHead* head);
  void choose_request_id(const Arrival& arrival);
  void act(Next next);
  void start_body_buffer();
  void forward();
  void answer_options();
  void acquire(bool fresh);
  void append_upstream_head();
  void append_upstream_trailers(const std::vector<http::TrailerField>& trailers);
  void send_request();
  void send_whole_body();
  void resume_client();
  void write_request_payload(std::string_view payload);
  void forward_informational(const http::ResponseHead& head);
  void start_tunnel(const http::ResponseHead& head);
  void tunnel_end_seen();
  std::string_view hash_key() const;
  void arm_upstream(Milliseconds limit);
  bool past_deadline();
  bool retry_stale();
  bool retry(std::string_view cause);
  void again(bool fresh);
  // What a reply says about members of a portal (exchange_portal.cc).
  void take_portal_seats();
  void watch_portal(const http::ResponseHead& head);
  void settle_portal(int status, std::string_view body);
  // What a reply says about sessions (exchange_session.cc).
  void watch_reply(const http::ResponseHead& head);
  void watch_login(const http::ResponseHead& head);
  void watch_body(std::string_view payload);
  void settle_login();
  void watch_token_reply(const http::ResponseHead& head);
  void list_token_writes();
  void list_renewal_writes();
  void write_sessions();
  void leave_seat();
  void watch_owners(const http::ResponseHead& head);
  void settle_owners();
  void learn_created(licence::OwnerTable& owners, UnixTime now);
  void to_client(std::string_view bytes);
  void release_held();
  void drop_for_session();
  void fail(Reason reason, std::string_view detail);
  void cut_short(Reason reason);
  void settle_request_for_local_reply();
  void send_local_reply();
  void settle_if_flushed();
  void release_upstream(bool reusable);
  void give_back();
  void watch_upstream();
  void end(ClientEnd end);
  void take_seat();
  void charge();
  void note_charge(const quota::ChargeOutcome& outcome);
  void note_sent();
  usage::Fact fact();  // without `total`
  void record();
  bool replayable() const;
  std::uint8_t client_version() const { return head_ == nullptr ? 1 : head_->minor_version; }
  const config::Settings& settings() const { return call_.snapshot->settings; }

  ExchangePort& port_;
  Gate& gate_;
  const http::RequestHead* head_ = nullptr;  // the edge's; nullptr when the head was refused
  Call call_;
  const config::Upstream* upstream_config_ = nullptr;
  std::string body_;                          // buffered for inspection
  std::vector<http::TrailerField> trailers_;  // of a buffered body
  std::string scratch_;  // heads under construction; its memory is kept from one exchange to the next
  std::vector<usage::CountedOperation> operations_;  // for the fact; memory kept
  std::vector<usage::ChargedAccount> accounts_;      // of call_.charges, those that limit; memory kept
  std::vector<std::string_view> shadow_violated_;    // names of rules; memory kept
  usage::CallHandle journalled_;                     // the call's entry in the journal
  std::vector<std::string_view> dropped_fields_, dropped_cookies_;  // credentials of others; memory kept
  std::vector<std::string> reply_named_;                            // what Connection of the reply names
  std::span<const std::string_view>
      reply_drop_;              // in the snapshot: fields and trailers of the reply to leave out
  std::string identity_lines_;  // for the upstream's head; memory kept
  std::string held_;            // of the reply, until what it says about a session is known to the others
  std::string owners_body_;     // of a reply that may say whose records are
  struct SessionWrite {
    identity::SessionKey key;
    std::shared_ptr<const identity::SessionRecord> record;  // nullptr: it ends
  };
  std::vector<SessionWrite> session_writes_;  // that the held reply waits for
  std::string watched_body_;  // of a reply that is read: to a log-in, or about members of a portal
  std::string upstream_server_;
  std::string peer_address_;
  std::string forwarded_host_;

  Request request_ = Request::waiting;
  Reply reply_ = Reply::over;
  ClientEnd client_end_ = ClientEnd::keep;
  bool https_ = false;  // of the client's own connection
  bool trusted_peer_ = false;
  bool keep_alive_ = false;  // the client connection goes on afterwards
  bool asks_head_ = false;   // no reply may have content
  bool store_pending_ = false;
  bool session_pending_ = false;  // the session store is asked or told, or a LookupService asked
  bool holding_ = false;          // the reply goes to held_
  bool held_end_ = false;         // and is complete
  bool watches_body_ = false;     // of the reply: it goes to watched_body_ too
  bool watches_owners_ = false;   // and to owners_body_
  bool charged_ = false;          // the ledger admitted it and nothing was given back
  bool given_back_ = false;
  bool client_lost_ = false;
  bool upstream_held_ = false;  // a connection, or an acquisition under way
  bool upstream_reused_ = false;
  bool upstream_written_ = false;  // some byte of the request has left on an established connection
  bool body_written_ = false;      // some byte of a streamed body was
  bool upgrade_ = false;
  bool stale_retry_used_ = false;
  bool head_sent_ = false;  // a final reply head was written to the client
  bool continue_sent_ = false;
  bool reply_chunked_ = false, reply_until_close_ = false;
  bool reply_early_ = false;  // it began before the upstream had the whole request
  bool client_paused_ = false, upstream_paused_ = false;
  bool client_finished_ = false, upstream_finished_ = false;  // tunnel: FIN seen
  std::uint32_t retries_ = 0;
  std::uint32_t attempts_ = 0;
  std::uint32_t informational_ = 0;
  int status_ = 0;
  std::uint64_t bytes_in_ = 0, bytes_out_ = 0, discarded_ = 0;
  UnixTime arrived_unix_{};
  MonotonicTime arrived_{}, store_asked_{}, upstream_started_{};
  MonotonicTime deadline_{};  // of the upstream's whole part; zero: none
  Duration store_time_{0}, upstream_time_{0};
};

}  // namespace tollgate::flow
