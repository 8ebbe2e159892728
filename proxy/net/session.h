// What a client connection needs while a request is under way: buffers, parser, the exchange and its edge.
// Sessions are kept by the worker and lent to connections, so that idle connections are small and busy ones
// allocate nothing.
//
// Implements the actions of the exchange (ExchangePort) and feeds it with events: pump() moves bytes until
// nothing more can be done. Failures of sockets are noted where they happen and delivered in pump(), never
// from an action.
//
// Threads: the worker's.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proxy/flow/exchange.h"
#include "proxy/http/body_decoder.h"
#include "proxy/http/request_parser.h"
#include "proxy/net/buffer.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/pace.h"
#include "proxy/net/upstream_connection.h"

namespace tollgate::net {

class ClientConnection;
class Worker;
struct Generation;

class Session final : public flow::ExchangePort, public UpstreamUser {
 public:
  explicit Session(Worker& worker);
  ~Session() override;

  void lend(ClientConnection& connection);
  void give_back_to_worker();  // forgets the connection; buffers are emptied

  // ---- for the connection
  Buffer& input() { return in_; }
  ClientPace& pace() { return pace_; }
  http::RequestParser& parser() { return *parser_; }
  void parsing_begins() { parsing_since_ = EventLoop::now(); }  // of a request that may be watched
  void begin();                                                 // the parser has a head
  void refuse(const http::ParseFailure& failure);               // the parser has none, and never will
  bool pump();  // false: more could be done, but others should have a turn
  bool over() const { return exchange_.over(); }
  bool zombie() const { return exchange_.awaits_store(); }
  bool tunnel() const { return exchange_.tunnel(); }
  flow::ClientEnd end() const { return exchange_.client_end(); }
  bool cut_needs_reset() const { return exchange_.cut_needs_reset(); }
  bool request_complete() const { return exchange_.request_complete(); }
  bool client_closed() const { return client_eof_; }
  bool client_lost() const { return client_failed_; }
  void next_request();  // what was read ahead becomes the input
  void client_gone();
  void client_stalled();
  void body_stalled();
  // The client owes the rest of a body, and nothing else holds it up.
  bool awaits_body() const {
    return client_reading_ && !client_failed_ && !client_eof_ && !exchange_.over() &&
           !exchange_.request_complete() && !exchange_.client_awaits_continue();
  }
  void stop();
  std::string_view unsent() const { return out_.view(); }

  // ---- ExchangePort
  MonotonicTime now() override;
  MonotonicTime event_time() override;
  UnixTime unix_now() override;
  std::string_view date() override;
  bool draining() override;
  void client_write(std::string_view bytes) override;
  std::size_t client_backlog() const override { return out_.size(); }
  void client_read(bool wanted) override { client_reading_ = wanted; }
  void client_end_writing() override { client_end_writing_ = true; }
  bool upstream_acquire(const config::Route& route, const Wanted& wanted, Upstream& upstream) override;
  bool upstream_may_repeat(const config::Route& route) override;
  void upstream_stalled() override;
  void upstream_expect(std::string_view method, bool upgrade) override;
  void upstream_write(std::string_view bytes) override;
  std::size_t upstream_backlog() const override;
  void upstream_read(bool wanted) override;
  void upstream_end_writing() override;
  void upstream_release(bool reusable) override;
  void find_session(const identity::SessionKey& key) override;
  void look_up(const flow::CallLookup& lookup) override;
  void bind_session(const identity::SessionKey& key,
                    std::shared_ptr<const identity::SessionRecord> record) override;
  void end_session(const identity::SessionKey& key) override;
  void invite(flow::CallPortal& portal, std::vector<std::string> members) override;
  void settle_invitation(const flow::CallPortal& portal, std::vector<seats::Settlement> settlements) override;
  void find_owners(const std::string& upstream, const std::vector<std::string>& records) override;
  void leave_seat(const seats::Pool& pool, const identity::Principal& principal,
                  const std::vector<seats::ClientId>& clients) override;
  std::optional<seats::Outcome> take_seat(const seats::Pool& pool, const identity::Principal& principal,
                                          Milliseconds hold, seats::ClientId client) override;
  void charge(std::span<const quota::AccountCharge> charges) override;
  void read_usage(const flow::Call& call) override;
  void give_back(std::span<const quota::AccountCharge> charges, const quota::Receipt& receipt) override;
  void set_timer(flow::Timer timer, Milliseconds after) override;
  void clear_timer(flow::Timer timer) override;
  void record(const usage::Fact& fact) override;
  void note_shed(flow::Shed level) override;
  usage::CallJournal* call_journal() override;

  // ---- UpstreamUser
  void upstream_ready(UpstreamConnection& connection) override;
  void upstream_failed(flow::UpstreamFailure failure) override;
  void upstream_event() override;
  void reply_head(const http::ResponseHead& head) override;
  void reply_body(std::string_view payload) override;
  void reply_end(const std::vector<http::TrailerField>& trailers, bool reusable) override;
  void reply_failed(flow::UpstreamFailure failure) override;

 private:
  static void on_client_timer(void* self);
  static void on_upstream_timer(void* self);
  flow::Arrival arrival();
  bool move_bytes();
  void end_life();
  bool has_to_send() const;
  bool flush_client();
  bool flush_upstream();
  bool expects_bytes() const;
  bool read_client();
  void take_client_bytes(std::string_view bytes);
  std::size_t decode(std::string_view bytes);
  void client_ended(bool in_order);
  void look_at_seats(const flow::Call& call);
  void usage_answered();
  void drop_upstream(bool reusable);
  // Delivers the answer of the session store to the exchange that asked, if it is still there.
  template <class Tell>
  auto session_answer(Tell tell);

  Worker& worker_;
  ClientPace pace_;
  ClientConnection* connection_ = nullptr;
  flow::Exchange exchange_;
  std::optional<http::RequestParser> parser_;
  http::HeadLimits limits_;  // of the parser
  std::optional<http::BodyDecoder> decoder_;
  std::shared_ptr<Generation> generation_;  // the configuration this request began with
  std::string request_id_;
  std::unique_ptr<flow::Life> life_;  // of a request that is watched
  MonotonicTime parsing_since_{};
  Buffer in_;    // the head, unmoved while the exchange lasts
  Buffer next_;  // what came behind it and is not used yet
  Buffer out_;   // to the client
  LoopTimer client_timer_, upstream_timer_;
  std::shared_ptr<UpstreamPool> pool_;  // while a connection is held or waited for
  UpstreamConnection* upstream_ = nullptr;
  bool client_reading_ = false, client_end_writing_ = false, client_eof_ = false;
  bool client_failed_ = false, client_told_ = false;  // noted; delivered to the exchange
  bool counted_tunnel_ = false;
  bool charging_ = false;                        // a ledger is being asked right now
  bool asking_ = false;                          // the session store is
  std::shared_ptr<std::uint64_t> session_turn_;  // the question whose answer is waited for
  std::vector<std::optional<Result<seats::Page>>> usage_seats_;
  std::size_t reported_backlog_ = 0;
  std::optional<Result<std::vector<quota::AccountState>>> usage_states_;
  std::optional<Result<std::vector<quota::Ledger::Listed>>> usage_objects_;
};

}  // namespace tollgate::net
