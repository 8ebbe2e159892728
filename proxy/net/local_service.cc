#include "proxy/net/local_service.h"

#include <event2/event.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "proxy/flow/status_phrase.h"
#include "proxy/http/body_decoder.h"
#include "proxy/http/date.h"
#include "proxy/http/request_parser.h"
#include "proxy/net/acceptor.h"
#include "proxy/net/buffer.h"
#include "proxy/net/endpoint.h"
#include "proxy/net/event_loop.h"
#include "proxy/net/transport.h"

namespace tollgate::net {

namespace {

constexpr std::size_t kConnectionsMax = 64;
constexpr std::size_t kBodyMax = 1024 * 1024;
constexpr http::HeadLimits kHeadLimits{16 * 1024, 8 * 1024, 64};
constexpr Milliseconds kRequestMax{30'000};
constexpr Milliseconds kIdleMax{60'000};
constexpr Milliseconds kWriteMax{30'000};

}  // namespace

std::string_view LocalRequest::field(std::string_view name) const {
  for (const Field& field : fields)
    if (equals_ignore_case(field.name, name)) return field.value;
  return {};
}

struct LocalService::Impl : std::enable_shared_from_this<LocalService::Impl> {
  struct Connection {
    enum class State : std::uint8_t { head, body, handling, writing, closing };
    Impl& service;
    const std::uint64_t id;
    std::string peer;
    Transport transport;
    Watch watch;
    LoopTimer timer;
    http::RequestParser parser{kHeadLimits};
    std::optional<http::BodyDecoder> decoder;
    Buffer in, out;
    std::string body;
    State state = State::head;
    bool readable = false, writable = true, keep_alive = true, head_only = false, ended = false,
         running = false;
    std::uint64_t request_number = 0;

    Connection(Impl& owner, std::uint64_t number, int fd, std::string address)
        : service(owner), id(number), peer(std::move(address)) {
      transport.open(fd, nullptr);
      timer.bind(this, [](void* self) { static_cast<Connection*>(self)->drop(); });
      service.loop.set(timer, kIdleMax);
      watch.start(service.loop, WatchKind::client, fd, this, &Connection::on_event);
    }
    static void on_event(void* self, short what) {
      auto* connection = static_cast<Connection*>(self);
      if ((what & (EV_READ | EV_CLOSED)) != 0) connection->readable = true;
      if ((what & EV_WRITE) != 0) connection->writable = true;
      connection->run();
    }
    enum class Rank : std::uint8_t { idle, unfinished, answered };
    // Who makes room for others: the lowest rank, of that the longest waiting.
    std::pair<Rank, MonotonicTime> place_in_line() const {
      const bool waits = state == State::head || state == State::body;
      return {waits ? in.empty() ? Rank::idle : Rank::unfinished : Rank::answered, timer.deadline()};
    }
    void drop() { service.drop(id); }
    void run();
    bool read_some();
    bool take_head();
    bool take_body();
    void handle();
    void answer(std::uint64_t number, const LocalReply& reply);
    void refuse(int status, std::string_view text);
    void write_reply(const LocalReply& reply);
    bool write_some();
  };

  EventLoop loop;
  LocalHandler handler;
  std::thread thread;
  int listen_fd = -1;
  std::optional<Acceptor> acceptor;
  std::uint16_t port = 0;
  std::uint64_t next_id = 1;
  std::map<std::uint64_t, std::unique_ptr<Connection>> connections;

  void accept_next();
  bool make_room();
  void serve();
  void drop(std::uint64_t id);
};

// ---------------------------------------------------------------- one connection

void LocalService::Impl::Connection::run() {
  if (running) return;
  running = true;
  bool more = true;
  while (more && state != State::closing) {
    switch (state) {
      case State::head:
        more = take_head() || read_some();
        break;
      case State::body:
        more = take_body() || read_some();
        break;
      case State::handling:
        more = false;
        break;
      case State::writing:
        more = write_some();
        break;
      case State::closing:
        break;
    }
  }
  running = false;
  if (state == State::closing) drop();
}

bool LocalService::Impl::Connection::read_some() {
  if (!readable) return false;
  char* room = in.prepare(Buffer::kBlock / 2);
  const IoResult result = transport.read(room, in.room());
  if (result.status == Io::ok) {
    in.commit(result.bytes);
    return true;
  }
  readable = false;
  if (result.status != Io::blocked) state = State::closing;
  return result.status != Io::blocked;
}

bool LocalService::Impl::Connection::take_head() {
  if (in.empty()) return false;
  switch (parser.parse(in.view())) {
    case http::ParseStatus::incomplete:
      if (request_number % 2 == 0) {  // even: no byte of the next request had been seen
        ++request_number;
        service.loop.set(timer, kRequestMax);
      }
      return false;
    case http::ParseStatus::failed:
      head_only = parser.asks_head();
      refuse(info(parser.failure().reason).status, parser.failure().detail);
      return true;
    case http::ParseStatus::complete:
      break;
  }
  request_number |= 1;
  service.loop.set(timer, kRequestMax);
  const http::RequestHead& head = parser.head();
  http::BodyLimits limits;
  limits.body_bytes = kBodyMax;
  decoder = http::BodyDecoder::of_request(head, limits);
  keep_alive = head.keep_alive;
  head_only = head.method == "HEAD";
  body.clear();
  if (head.framing == http::Framing::length && head.content_length > kBodyMax) {
    refuse(413, "The request body is too large.");
    return true;
  }
  if (head.expect_continue) out.append("HTTP/1.1 100 Continue\r\n\r\n");
  if (!out.empty() && writable) {
    const IoResult sent = transport.write(out.view());
    if (sent.status == Io::ok) out.consume(sent.bytes);
  }
  state = State::body;
  return true;
}

// The head stays at the front of `in` until the request was handled: its views point there.
bool LocalService::Impl::Connection::take_body() {
  const std::size_t head_size = parser.head_size();
  std::string_view rest = in.view().substr(head_size);
  const std::size_t before = rest.size();
  bool done = false, failed = false;
  for (;;) {
    const http::BodyDecoder::Step step = decoder->next(rest);
    rest.remove_prefix(step.consumed);
    body.append(step.payload);
    done = step.done;
    failed = step.failed;
    if (done || failed || step.consumed == 0) break;
  }
  if (failed) {
    refuse(info(decoder->failure().reason).status, decoder->failure().detail);
    return true;
  }
  if (!done && before == rest.size()) return false;
  // Head and what is left behind the used part of the body, together again.
  std::string kept(in.view().substr(0, head_size));
  kept.append(rest);
  in.clear();
  in.append(kept);
  parser.reset();
  CHECK(parser.parse(in.view()) == http::ParseStatus::complete, "a head parses twice");
  if (done) handle();
  return true;
}

void LocalService::Impl::Connection::handle() {
  const http::RequestHead& head = parser.head();
  LocalRequest request;
  request.method = head_only ? "GET" : head.method;
  request.path = head.path;
  request.query = head.query;
  for (const http::Field& field : head.fields) request.fields.push_back({field.name, field.value});
  request.body = body;
  request.peer = peer;
  state = State::handling;
  service.loop.clear(timer);

  // Shared by all copies of the function; the last one to go answers if nobody did.
  struct Answer {
    std::weak_ptr<Impl> service;
    std::uint64_t connection, number;
    std::atomic<bool> given{false};
    void give(LocalReply reply) {
      if (given.exchange(true)) return;
      if (auto held = service.lock())
        held->loop.post([weak = service, id = connection, n = number, reply = std::move(reply)] {
          auto alive = weak.lock();
          if (alive == nullptr) return;
          auto found = alive->connections.find(id);
          if (found != alive->connections.end()) found->second->answer(n, reply);
        });
    }
    ~Answer() { give({.status = 500, .fields = {}, .body = "no answer\n"}); }
  };
  auto answer_once = std::make_shared<Answer>();
  answer_once->service = service.weak_from_this();
  answer_once->connection = id;
  answer_once->number = request_number;
  service.handler(request, [answer_once](LocalReply reply) { answer_once->give(std::move(reply)); });
}

void LocalService::Impl::Connection::answer(std::uint64_t number, const LocalReply& reply) {
  if (state != State::handling || number != request_number) return;
  write_reply(reply);
  in.consume(parser.head_size());
  parser.reset();
  run();
}

void LocalService::Impl::Connection::refuse(int status, std::string_view text) {
  keep_alive = false;
  LocalReply reply;
  reply.status = status;
  reply.body = std::string(text) + "\n";
  write_reply(reply);
}

void LocalService::Impl::Connection::write_reply(const LocalReply& reply) {
  const bool bodiless = reply.status == 204 || reply.status == 304;
  out.append(fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\n{}", reply.status, flow::status_phrase(reply.status),
                         http::format_date(service.loop.unix_now()), reply.fields));
  if (!bodiless)
    out.append(
        fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n", reply.content_type, reply.body.size()));
  out.append(keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
  if (!head_only && !bodiless) out.append(reply.body);
  state = State::writing;
  service.loop.set(timer, kWriteMax);
}

bool LocalService::Impl::Connection::write_some() {
  if (ended) {  // lingering: read until the client has read and closed
    while (readable) {
      const IoResult result = transport.read(service.loop.scratch(), EventLoop::kScratch);
      if (result.status == Io::ok) continue;
      readable = false;
      if (result.status != Io::blocked) state = State::closing;
    }
    return state == State::closing;
  }
  while (!out.empty() && writable) {
    const IoResult result = transport.write(out.view());
    if (result.status == Io::ok) {
      out.consume(result.bytes);
    } else {
      writable = false;
      if (result.status != Io::blocked) state = State::closing;
    }
  }
  if (!out.empty() || state == State::closing) return state == State::closing;
  out.release();
  if (!keep_alive) {
    transport.end_writing();
    ended = true;
    service.loop.set(timer, Milliseconds(2'000));
    return true;
  }
  state = State::head;
  request_number = (request_number | 1) + 1;
  service.loop.set(timer, kIdleMax);
  return true;
}

// ---------------------------------------------------------------- the service

// One a turn, at its end: who has sent a request is being answered before anybody makes room.
void LocalService::Impl::accept_next() {
  Accepted next = acceptor->accept();
  if (next.shortage != 0) {
    if (!acceptor->has_reserve()) make_room();
    next = acceptor->accept_on_reserve();
    if (next.shortage != 0) acceptor->pause_briefly();
  }
  if (next.fd < 0) return;
  if (connections.size() >= kConnectionsMax && !make_room()) {
    ::close(next.fd);
    return;
  }
  const std::uint64_t id = next_id++;
  connections.emplace(id, std::make_unique<Connection>(*this, id, next.fd, next.peer.host()));
}

// False: every connection is being answered.
bool LocalService::Impl::make_room() {
  const auto first = std::ranges::min_element(
      connections, {}, [](const auto& entry) { return entry.second->place_in_line(); });
  if (first == connections.end() || first->second->place_in_line().first == Connection::Rank::answered)
    return false;
  drop(first->first);
  return true;
}

void LocalService::Impl::serve() {
  loop.bind_turn_end(this, [](void* self) { static_cast<Impl*>(self)->accept_next(); });
  acceptor.emplace(loop, listen_fd, this, [](void* self) { static_cast<Impl*>(self)->loop.want_turn_end(); });
  loop.run();
  acceptor.reset();
  connections.clear();
  loop.run_deferred();
}

void LocalService::Impl::drop(std::uint64_t id) {
  auto found = connections.find(id);
  if (found == connections.end()) return;
  std::shared_ptr<Connection> owned = std::move(found->second);
  connections.erase(found);
  owned->state = Connection::State::closing;
  owned->watch.stop();
  owned->transport.close();
  acceptor->restore_reserve();
  loop.clear(owned->timer);
  loop.defer([owned] {});  // its own functions may be below us on the stack
}

LocalService::LocalService(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<LocalService>> LocalService::start(const std::string& address, LocalHandler handler) {
  const auto at = parse_host_port(address);
  const auto endpoint = at ? numeric_endpoint(*at) : std::nullopt;
  if (!endpoint) return fail(Origin::config, fmt::format("{} is not an IP address with a port", address));
  auto fd = listen_on(*endpoint, false, false);
  if (!fd) return std::unexpected(fd.error());
  std::signal(SIGPIPE, SIG_IGN);
  auto impl = std::make_shared<Impl>();
  impl->handler = std::move(handler);
  impl->listen_fd = *fd;
  impl->port = local_endpoint(*fd).port();
  Impl* service = impl.get();
  impl->thread = std::thread([service] { service->serve(); });
  return std::unique_ptr<LocalService>(new LocalService(std::move(impl)));
}

LocalService::~LocalService() {
  impl_->loop.stop();
  impl_->thread.join();
}

std::uint16_t LocalService::port() const {
  return impl_->port;
}

}  // namespace tollgate::net
