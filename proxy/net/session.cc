#include "proxy/net/session.h"

#include <algorithm>
#include <atomic>

#include "metering/base/check.h"
#include "proxy/http/request_id.h"
#include "proxy/net/client_connection.h"
#include "proxy/net/upstream_pool.h"
#include "proxy/net/worker.h"

namespace tollgate::net {

namespace {

constexpr int kTurnsMax = 16;  // rounds of reading and writing before others have their turn
constexpr std::size_t kDirectWrite = UpstreamConnection::kDirectWrite;

}  // namespace

Session::Session(Worker& worker)
    : worker_(worker), exchange_(*this, worker.gate()), session_turn_(std::make_shared<std::uint64_t>(0)) {
  client_timer_.bind(this, &Session::on_client_timer);
  upstream_timer_.bind(this, &Session::on_upstream_timer);
}

Session::~Session() = default;

void Session::lend(ClientConnection& connection) {
  connection_ = &connection;
  pace_ = {};
  const http::HeadLimits limits = worker_.head_limits();
  const bool same = limits.head_bytes == limits_.head_bytes && limits.request_line == limits_.request_line &&
                    limits.field_count == limits_.field_count;
  limits_ = limits;
  if (parser_ && same)  // its memory is kept
    parser_->reset();
  else
    parser_.emplace(limits);
}

void Session::give_back_to_worker() {
  CHECK(exchange_.over() && upstream_ == nullptr, "a session goes back when its exchange is over");
  if (life_ != nullptr) [[unlikely]]
    end_life();
  connection_ = nullptr;
  in_.clear();
  next_.clear();
  out_.clear();
  decoder_.reset();
  worker_.loop().clear(client_timer_);
  worker_.loop().clear(upstream_timer_);
  worker_.retire(std::move(generation_));
  ++*session_turn_;  // answers that are still to come are nobody's
  client_reading_ = client_end_writing_ = client_eof_ = client_failed_ = client_told_ = false;
  reported_backlog_ = 0;
  // One large request must not make every session large.
  for (Buffer* buffer : {&in_, &next_, &out_})
    if (buffer->capacity() > Buffer::kBlock) buffer->release();
}

void Session::next_request() {
  if (life_ != nullptr) [[unlikely]]
    end_life();
  ++*session_turn_;
  in_.clear();
  in_.swap(next_);
  parser_->reset();
  decoder_.reset();
  client_reading_ = false;
  worker_.retire(std::move(generation_));
}

// ---------------------------------------------------------------- beginning

flow::Arrival Session::arrival() {
  generation_ = worker_.generation();
  http::make_request_id(worker_.random(), request_id_);
  flow::Arrival arrival;
  arrival.snapshot = generation_->snapshot;
  arrival.peer_address = connection_->peer_address();
  arrival.tls = connection_->tls();
  arrival.certificate = connection_->certificate();
  arrival.overloaded = connection_->overloaded();
  arrival.shed = worker_.shed();
  arrival.new_request_id = request_id_;
  LifeWatch& watch = worker_.life_watch();
  if (watch.due()) [[unlikely]] {
    life_ = watch.begin(&EventLoop::now, parsing_since_);
    arrival.life = life_.get();
  } else {
    watch.pass();
  }
  return arrival;
}

void Session::end_life() {
  worker_.life_ended(*life_);
  life_.reset();
}

void Session::begin() {
  const http::RequestHead& head = parser_->head();
  // The head stays where it is; what follows moves out of its way.
  const std::string_view rest = in_.view().substr(parser_->head_size());
  if (!rest.empty()) next_.append(rest);
  http::BodyLimits limits;
  limits.body_bytes = worker_.generation()->snapshot->settings.limits.max_body;
  decoder_ = http::BodyDecoder::of_request(head, limits);
  flow::Arrival at = arrival();
  if (worker_.settings().limits.per_address.request_rate != 0)
    at.too_fast = !worker_.may_request(*connection_, head);
  exchange_.on_request_head(at, head);
  if (rest.empty() && expects_bytes()) connection_->readable = true;
}

void Session::refuse(const http::ParseFailure& failure) {
  exchange_.on_request_refused(arrival(), failure, parser_->asks_head());
}

// ---------------------------------------------------------------- moving bytes

bool Session::pump() {
  if (life_ == nullptr) [[likely]]
    return move_bytes();
  life_->resume();
  const bool all_done = move_bytes();
  if (!exchange_.over()) life_->pause(exchange_.waits_for());
  return all_done;
}

bool Session::move_bytes() {
  for (int turn = 0; turn < kTurnsMax; ++turn) {
    bool moved = false;
    if (client_failed_ && !client_told_) {
      client_told_ = true;
      exchange_.on_client_gone();
      moved = true;
    }
    if (exchange_.over()) return true;
    if (!worker_.sends_now() && has_to_send()) {
      worker_.send_later(*connection_);
      return true;
    }
    if (flush_upstream()) moved = true;
    if (flush_client()) moved = true;
    if (exchange_.over()) return true;
    if (upstream_ != nullptr && upstream_->pump(*this)) moved = true;
    if (!exchange_.over() && !client_failed_ && read_client()) moved = true;
    if (exchange_.tunnel() && !counted_tunnel_) {
      counted_tunnel_ = true;
      worker_.counters().tunnels.fetch_add(1, std::memory_order_relaxed);
    }
    if (!moved) return true;
  }
  return false;
}

bool Session::has_to_send() const {
  if (connection_ == nullptr || client_failed_) return false;
  return (!out_.empty() && connection_->writable) || (upstream_ != nullptr && upstream_->can_send());
}

bool Session::flush_upstream() {
  if (upstream_ == nullptr) return false;
  const std::size_t before = upstream_->backlog();
  if (before > 0) exchange_.on_upstream_sends();
  if (!upstream_->flush()) return false;
  if (upstream_->backlog() < before) exchange_.on_upstream_writable();
  return true;
}

bool Session::flush_client() {
  if (connection_ == nullptr || client_failed_) return false;
  const std::size_t before = std::max(out_.size(), reported_backlog_);
  if (!out_.empty() && connection_->writable) {
    const IoResult result = connection_->transport().write(out_.view());
    if (result.status == Io::failed || result.status == Io::closed) {
      client_failed_ = true;
      return true;
    }
    out_.consume(result.bytes);
    connection_->sent += result.bytes;
    if (!out_.empty()) connection_->writable = false;
  }
  const std::size_t after = out_.size();
  reported_backlog_ = after;
  if (after == 0) {
    if (client_end_writing_) {
      client_end_writing_ = false;
      connection_->transport().end_writing();
    }
    if (before == 0) return false;
    worker_.loop().clear(connection_->timer());
  } else {
    connection_->await();
    if (after == before && connection_->timer().armed()) return false;
    worker_.loop().set(connection_->timer(), generation_->snapshot->settings.timeouts.client_write);
    if (after == before) return false;
  }
  exchange_.on_client_writable();
  return true;
}

void Session::client_write(std::string_view bytes) {
  if (connection_ == nullptr || client_failed_) return;
  if (bytes.size() >= kDirectWrite && connection_->writable) {
    const std::string_view queued = out_.view();
    Transport& transport = connection_->transport();
    const IoResult result = queued.empty() ? transport.write(bytes) : transport.write(queued, bytes);
    if (result.status == Io::ok) {
      connection_->sent += result.bytes;
      const std::size_t from_queue = std::min(result.bytes, queued.size());
      out_.consume(from_queue);
      bytes.remove_prefix(result.bytes - from_queue);
      // Even if all is gone, the exchange hears of it in pump().
      reported_backlog_ = std::max<std::size_t>(reported_backlog_, 1);
    } else if (result.status != Io::blocked) {
      client_failed_ = true;
      return;
    }
    if (result.status == Io::blocked || result.drained) connection_->writable = false;
  }
  out_.append(bytes);
}

// Then a socket that gave less than it could is read again, for a reset that came with the bytes: see transport.h.
bool Session::expects_bytes() const {
  return !exchange_.over() && (exchange_.tunnel() || !exchange_.request_complete());
}

bool Session::read_client() {
  if (connection_ == nullptr || client_eof_) return false;
  const bool reads_body = exchange_.tunnel() || !exchange_.request_complete();
  if (reads_body && !client_reading_) return false;
  if (reads_body && !next_.empty()) {
    const std::size_t used = decode(next_.view());
    next_.consume(used);
    if (expects_bytes()) connection_->readable = true;
    if (used > 0) return true;
  }
  // Reading ahead is only to notice that the client went away.
  if (!reads_body && !next_.empty()) return false;
  if (!connection_->readable) {
    if (reads_body) connection_->await();
    return false;
  }
  const IoResult result = connection_->transport().read(worker_.loop().scratch(), EventLoop::kScratch);
  if (result.status == Io::blocked) {
    connection_->readable = false;
    if (reads_body) connection_->await();
    return false;
  }
  if (result.status != Io::ok) {
    connection_->readable = false;
    client_ended(result.status == Io::closed);
    return true;
  }
  connection_->received += result.bytes;
  take_client_bytes({worker_.loop().scratch(), result.bytes});
  if (result.drained && !connection_->peer_closed && !expects_bytes()) connection_->readable = false;
  return true;
}

void Session::take_client_bytes(std::string_view bytes) {
  const bool reads_body = exchange_.tunnel() || !exchange_.request_complete();
  if (reads_body && next_.empty()) bytes.remove_prefix(decode(bytes));
  next_.append(bytes);
}

// Hands body bytes to the exchange as long as it wants them; the number of bytes used up.
std::size_t Session::decode(std::string_view bytes) {
  const std::size_t all = bytes.size();
  while (client_reading_ && !exchange_.over()) {
    if (exchange_.tunnel()) {
      if (!bytes.empty()) exchange_.on_request_body(bytes);
      return all;
    }
    if (exchange_.request_complete()) break;
    const http::BodyDecoder::Step step = decoder_->next(bytes);
    bytes.remove_prefix(step.consumed);
    exchange_.on_request_body(step.payload);
    if (step.failed) {
      exchange_.on_request_body_refused(decoder_->failure());
      return all;  // what follows cannot be trusted
    }
    if (step.done) {
      exchange_.on_request_end(decoder_->trailers());
      break;
    }
    if (step.consumed == 0) break;
  }
  return all - bytes.size();
}

void Session::client_ended(bool in_order) {
  client_eof_ = true;
  if (!in_order || (!exchange_.tunnel() && !exchange_.request_complete())) return client_gone();
  if (exchange_.tunnel()) return exchange_.on_request_end({});
  worker_.loop().set(client_timer_, kHalfCloseGrace);
}

void Session::client_gone() {
  client_failed_ = true;
}

void Session::client_stalled() {
  client_failed_ = true;
}

void Session::body_stalled() {
  worker_.counters().slow_bodies_total.fetch_add(1, std::memory_order_relaxed);
  exchange_.on_timer(flow::Timer::client);
}

void Session::stop() {
  exchange_.stop();
  flush_client();
}

// ---------------------------------------------------------------- actions

MonotonicTime Session::now() {
  return worker_.loop().now();
}
MonotonicTime Session::event_time() {
  return worker_.loop().event_time();
}
UnixTime Session::unix_now() {
  return worker_.loop().unix_now();
}
std::string_view Session::date() {
  return worker_.date();
}
bool Session::draining() {
  return worker_.draining();
}

bool Session::upstream_acquire(const config::Route& route, const Wanted& wanted, Upstream& upstream) {
  auto found = generation_->pools.find(route.upstream);
  CHECK(found != generation_->pools.end(), "every upstream has a pool");
  pool_ = found->second;
  upstream_ = pool_->acquire(*this, wanted);
  if (upstream_ == nullptr) return false;
  upstream = {upstream_->label(), upstream_->reused()};
  return true;
}

bool Session::upstream_may_repeat(const config::Route& route) {
  return generation_->pools.find(route.upstream)->second->may_repeat();
}

void Session::upstream_stalled() {
  pool_->failed(*upstream_, "no reply in time");
}

void Session::upstream_expect(std::string_view method, bool upgrade) {
  upstream_->expect(method, upgrade);
}
void Session::upstream_write(std::string_view bytes) {
  if (bytes.size() >= kDirectWrite) exchange_.on_upstream_sends();
  upstream_->write(bytes);
}
std::size_t Session::upstream_backlog() const {
  return upstream_ == nullptr ? 0 : upstream_->backlog();
}
void Session::upstream_read(bool wanted) {
  if (upstream_ != nullptr) upstream_->set_reading(wanted);
}
void Session::upstream_end_writing() {
  if (upstream_ != nullptr) upstream_->end_writing();
}

void Session::upstream_release(bool reusable) {
  if (upstream_ == nullptr && pool_ != nullptr) pool_->give_up(*this);
  drop_upstream(reusable);
}

void Session::drop_upstream(bool reusable) {
  if (upstream_ != nullptr) pool_->release(*upstream_, reusable);
  upstream_ = nullptr;
  pool_.reset();
}

template <class Tell>
auto Session::session_answer(Tell tell) {
  return [this, turn = std::weak_ptr(session_turn_), own = ++*session_turn_, tell](auto&&... answer) {
    const auto now = turn.lock();
    if (now == nullptr || *now != own) return;
    if (asking_) return tell(std::forward<decltype(answer)>(answer)...);  // at once: whoever asked goes on
    worker_.loop().event_begins();
    tell(std::forward<decltype(answer)>(answer)...);
    worker_.advance_later(connection_);
  };
}

void Session::find_session(const identity::SessionKey& key) {
  flow::SessionStore* store = worker_.session_store();
  if (store == nullptr) return exchange_.on_session({.record = nullptr, .unavailable = true});
  asking_ = true;
  store->find(generation_->snapshot, key, unix_now(), session_answer([this](flow::SessionAnswer answer) {
                exchange_.on_session(std::move(answer));
              }));
  asking_ = false;
}

void Session::look_up(const flow::CallLookup& lookup) {
  auto tell = session_answer([this](std::shared_ptr<const identity::LookupVerdict> verdict) {
    exchange_.on_lookup(std::move(verdict));
  });
  worker_.lookups().ask(
      lookup.source, generation_->snapshot->lookups, lookup.key, lookup.credential, unix_now(),
      [&loop = worker_.loop(), tell](std::shared_ptr<const identity::LookupVerdict> verdict) {
        loop.post([tell, verdict = std::move(verdict)] { tell(verdict); });
      });
}

void Session::bind_session(const identity::SessionKey& key,
                           std::shared_ptr<const identity::SessionRecord> record) {
  flow::SessionStore* store = worker_.session_store();
  if (store == nullptr) return exchange_.on_session_written();
  asking_ = true;
  store->bind(generation_->snapshot, key, std::move(record), unix_now(),
              session_answer([this] { exchange_.on_session_written(); }));
  asking_ = false;
}

void Session::end_session(const identity::SessionKey& key) {
  flow::SessionStore* store = worker_.session_store();
  if (store == nullptr) return exchange_.on_session_written();
  asking_ = true;
  store->end(generation_->snapshot, key, unix_now(),
             session_answer([this] { exchange_.on_session_written(); }));
  asking_ = false;
}

void Session::find_owners(const std::string& upstream, const std::vector<std::string>& records) {
  auto left = std::make_shared<std::atomic<std::size_t>>(records.size());
  auto told = session_answer([this] { exchange_.on_owners(); });
  for (const std::string& record : records)
    generation_->snapshot->owner_lookup->find(upstream, record, [left, told, &worker = worker_] {
      if (left->fetch_sub(1) == 1) worker.post(told);
    });
}

void Session::leave_seat(const seats::Pool& pool, const identity::Principal& principal,
                         const std::vector<seats::ClientId>& clients) {
  if (seats::SeatLedger* ledger = worker_.seats())
    ledger->leave(pool, {principal.tenant, principal.user}, clients);
}

std::optional<seats::Outcome> Session::take_seat(const seats::Pool& pool,
                                                 const identity::Principal& principal, Milliseconds hold,
                                                 seats::ClientId client) {
  seats::SeatLedger* ledger = worker_.seats();
  if (ledger == nullptr) return seats::Outcome{};
  charging_ = true;
  auto known = ledger->take(
      pool, {principal.tenant, principal.user},
      [this](seats::Outcome&& outcome) {
        if (charging_) return exchange_.on_seat(outcome);  // at once: whoever asked goes on
        worker_.loop().event_begins();
        exchange_.on_seat(outcome);
        worker_.advance_later(connection_);
      },
      hold, client);
  charging_ = false;
  return known;
}

void Session::invite(flow::CallPortal& portal, std::vector<std::string> members) {
  seats::SeatLedger* ledger = worker_.seats();
  if (ledger == nullptr) return exchange_.on_seat({});
  portal.invitation = ledger->new_invitation();
  charging_ = true;
  ledger->invite(portal.pool, portal.invitation, std::move(members), [this](seats::Outcome&& outcome) {
    if (charging_) return exchange_.on_seat(outcome);  // at once: whoever asked goes on
    worker_.loop().event_begins();
    exchange_.on_seat(outcome);
    worker_.advance_later(connection_);
  });
  charging_ = false;
}

void Session::settle_invitation(const flow::CallPortal& portal, std::vector<seats::Settlement> settlements) {
  seats::SeatLedger* ledger = worker_.seats();
  if (ledger == nullptr) return exchange_.on_session_written();
  asking_ = true;
  ledger->settle(portal.pool, portal.invitation, std::move(settlements),
                 session_answer([this](seats::Outcome&&) { exchange_.on_session_written(); }));
  asking_ = false;
}

void Session::charge(std::span<const quota::AccountCharge> charges) {
  quota::Ledger* ledger = worker_.ledger();
  if (ledger == nullptr) {
    quota::ChargeOutcome outcome;
    outcome.error = "no store is configured";
    return exchange_.on_charge(std::move(outcome));
  }
  charging_ = true;
  ledger->charge(charges, [this](quota::ChargeOutcome&& outcome) {
    if (charging_) return exchange_.on_charge(std::move(outcome));  // at once: whoever asked goes on
    worker_.loop().event_begins();
    exchange_.on_charge(std::move(outcome));
    worker_.advance_later(connection_);
  });
  charging_ = false;
}

void Session::read_usage(const flow::Call& call) {
  usage_states_.reset();
  usage_objects_.reset();
  usage_seats_.clear();
  quota::Ledger* ledger = worker_.ledger();
  if (ledger == nullptr) {
    return exchange_.on_usage(fail(Origin::store, "no store is configured"),
                              fail(Origin::store, "no store is configured"));
  }
  const quota::Rules::Observation observation = call.observation;
  auto accounts = call.charges;
  look_at_seats(call);
  if (observation.subject_key.empty()) {
    usage_objects_.emplace(std::vector<quota::Ledger::Listed>{});
  } else {
    ledger->list(observation.subject_key, observation.prefix, observation.window, observation.bucket,
                 [this](Result<std::vector<quota::Ledger::Listed>>&& objects) {
                   usage_objects_.emplace(std::move(objects));
                   usage_answered();
                 });
  }
  ledger->read(std::move(accounts), [this](Result<std::vector<quota::AccountState>>&& states) {
    usage_states_.emplace(std::move(states));
    usage_answered();
  });
}

void Session::look_at_seats(const flow::Call& call) {
  seats::SeatLedger* ledger = worker_.seats();
  const auto& pools = call.snapshot->seat_pools;
  if (ledger == nullptr) return;
  const identity::Principal& principal = call.token->principal;
  usage_seats_.resize(pools.size());
  for (std::size_t i = 0; i < pools.size(); ++i)
    ledger->look(pools[i].pool, {principal.tenant, principal.user}, [this, i](Result<seats::Page>&& page) {
      usage_seats_[i].emplace(std::move(page));
      usage_answered();
    });
}

void Session::usage_answered() {
  if (!usage_states_ || !usage_objects_) return;
  if (std::ranges::any_of(usage_seats_, [](const auto& look) { return !look.has_value(); })) return;
  worker_.loop().event_begins();
  auto states = std::move(*usage_states_);
  auto objects = std::move(*usage_objects_);
  flow::SeatLooks seats;
  for (auto& look : usage_seats_) seats.push_back(std::move(*look));
  usage_seats_.clear();
  usage_states_.reset();
  usage_objects_.reset();
  exchange_.on_usage(std::move(states), std::move(objects), seats);
  worker_.advance_later(connection_);
}

void Session::give_back(std::span<const quota::AccountCharge> charges, const quota::Receipt& receipt) {
  if (worker_.ledger() != nullptr) worker_.ledger()->give_back(charges, receipt);
}

void Session::set_timer(flow::Timer timer, Milliseconds after) {
  worker_.loop().set(timer == flow::Timer::client ? client_timer_ : upstream_timer_, after);
}

void Session::clear_timer(flow::Timer timer) {
  worker_.loop().clear(timer == flow::Timer::client ? client_timer_ : upstream_timer_);
}

void Session::record(const usage::Fact& fact) {
  if (counted_tunnel_) worker_.counters().tunnels.fetch_sub(1, std::memory_order_relaxed);
  counted_tunnel_ = false;
  worker_.record(fact);
}

void Session::note_shed(flow::Shed level) {
  WorkerCounters& counters = worker_.counters();
  (level == flow::Shed::anonymous ? counters.shed_anonymous_total : counters.shed_all_total)
      .fetch_add(1, std::memory_order_relaxed);
}

usage::CallJournal* Session::call_journal() {
  return worker_.call_journal();
}

void Session::on_client_timer(void* self) {
  auto* session = static_cast<Session*>(self);
  if (session->client_eof_)
    session->client_gone();
  else
    session->body_stalled();
  session->connection_->advance();
}

void Session::on_upstream_timer(void* self) {
  auto* session = static_cast<Session*>(self);
  session->exchange_.on_timer(flow::Timer::upstream);
  session->connection_->advance();
}

// ---------------------------------------------------------------- the upstream's events

void Session::upstream_ready(UpstreamConnection& connection) {
  upstream_ = &connection;
  exchange_.on_upstream_ready({connection.label(), connection.reused()});
  connection_->advance();
}

void Session::upstream_failed(flow::UpstreamFailure failure) {
  pool_.reset();
  exchange_.on_upstream_failed(failure);
  connection_->advance();
}

void Session::upstream_event() {
  connection_->advance();
}

void Session::reply_head(const http::ResponseHead& head) {
  exchange_.on_upstream_head(head);
}
void Session::reply_body(std::string_view payload) {
  exchange_.on_upstream_body(payload);
}
void Session::reply_end(const std::vector<http::TrailerField>& trailers, bool reusable) {
  exchange_.on_upstream_end(trailers, reusable);
}
void Session::reply_failed(flow::UpstreamFailure failure) {
  drop_upstream(false);
  exchange_.on_upstream_failed(failure);
}

}  // namespace tollgate::net
