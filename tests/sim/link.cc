#include "tests/sim/link.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/sim/worker.h"

namespace tollgate::sim {

struct Link::Connection {
  std::uint64_t generation = 0;  // of the server it leads to
  std::weak_ptr<Proxy::Life> life;
  bool cut = false;
  std::uint64_t ghosts = 0;  // so many messages under way arrive although it was cut
  Duration ghosts_at{0};
  bool replies_lost = false;
  Duration stalled_until{0};
  Duration last_arrival{0}, last_reply{0};
  std::uint64_t sent = 0, answered = 0;
};

namespace {

void trace_op(Proxy& proxy, const quota::Op& op) {
  std::string text;
  for (const quota::OpAccount& account : op.accounts) {
    text += fmt::format(" [{}:", account.field);
    for (const quota::BucketUse& use : account.uses) text += fmt::format(" {}@{}", use.units, use.bucket);
    text += fmt::format(" returned {}{} need {} want {}]", account.returned, account.forget ? " forget" : "",
                        account.need, account.want);
  }
  proxy.around().trace.line(proxy.around().queue.now(), "proxy {} sends {}/{} #{}{}", proxy.index(),
                            op.incarnation, op.partition, op.seq, text);
}

}  // namespace

Link::Link(Proxy& proxy, unsigned worker) : proxy_(proxy), worker_(worker) {}

Link::~Link() {
  if (connection_ == nullptr) return;
  // The process died; what it had written may still arrive.
  Surroundings& around = proxy_.around();
  connection_->cut = true;
  connection_->ghosts = around.random.below(8);
  connection_->ghosts_at = around.queue.now();
}

void Link::send(const quota::Op& op, const quota::SendContext& context) {
  if (proxy_.around().trace.on) trace_op(proxy_, op);
  proxy_.around().asked(op);
  const MonotonicTime sent = proxy_.mono();
  post(
      [op, context, sent](Server& server) -> Reply {
        return [partition = op.partition, seq = op.seq, sent, reply = server.apply(op, context)](
                   quota::LeaseEngine& engine, MonotonicTime now) {
          engine.on_op(partition, seq, reply, sent, now);
        };
      },
      op.partition);
}

void Link::send(const quota::Replay& replay, const quota::SendContext& context) {
  const MonotonicTime sent = proxy_.mono();
  post(
      [replay, context, sent](Server& server) -> Reply {
        return [partition = replay.op.partition, seq = replay.op.seq, sent,
                reply = server.replay(replay, context)](quota::LeaseEngine& engine, MonotonicTime now) {
          engine.on_replay(partition, seq, reply, sent, now);
        };
      },
      replay.op.partition);
}

void Link::send(const quota::Ping& ping, const quota::SendContext& context) {
  const MonotonicTime sent = proxy_.mono();
  post(
      [ping, context, sent](Server& server) -> Reply {
        return [partition = ping.partition, sent, reply = server.ping(ping, context)](
                   quota::LeaseEngine& engine, MonotonicTime now) {
          engine.on_ping(partition, reply, sent, now);
        };
      },
      ping.partition);
}

namespace {

Duration one_way(Surroundings& around) {
  const Scenario& s = around.scenario;
  const auto spread = static_cast<std::uint64_t>((s.delay_max - s.delay_min).count() + 1);
  return s.delay_min + Duration(static_cast<std::int64_t>(around.random.below(spread)));
}

}  // namespace

// A message reaches the server. The link may be gone by then: only the proxy and the connection are kept.
struct Link::Arrival {
  Proxy* proxy;
  unsigned worker;
  std::shared_ptr<Connection> connection;
  Request request;
  unsigned partition;

  void operator()() const {
    Surroundings& around = proxy->around();
    if (connection->generation != around.server.generation() || !around.server.up()) return;
    if (connection->cut) {
      if (connection->ghosts == 0) return;
      if (around.queue.now() < connection->ghosts_at) return around.queue.at(connection->ghosts_at, *this);
      --connection->ghosts;
      around.trace.line(around.queue.now(), "ghost of proxy {}", proxy->index());
    }
    const unsigned errors = around.scenario.faults.errors_per_million;
    Reply reply;
    if (errors > 0 && !around.peace && around.random.below(1'000'000) < errors)
      reply = [p = partition](quota::LeaseEngine& engine, MonotonicTime now) { engine.on_error(p, now); };
    else
      reply = request(around.server);
    around.store_spoke();
    if (connection->cut || connection->replies_lost) return;
    connection->last_reply =
        std::max({around.queue.now() + one_way(around), connection->last_reply, connection->stalled_until});
    around.queue.at(connection->last_reply, [p = proxy, w = worker, c = connection,
                                             reply = std::move(reply)] { answer(*p, w, c, reply); });
  }

  static void answer(Proxy& proxy, unsigned worker, const std::shared_ptr<Connection>& connection,
                     const Reply& reply) {
    proxy.deliver(connection->life, [&proxy, worker, connection, reply](Proxy::Life& living) {
      if (connection->cut) return;
      ++connection->answered;
      Proxy::Worker& here = *living.workers[worker];
      here.enter([&] { reply(here.engine, proxy.mono()); });
    });
  }
};

void Link::post(Request request, unsigned partition) {
  if (connection_ == nullptr || proxy_.dies()) return;
  Surroundings& around = proxy_.around();
  ++connection_->sent;
  connection_->last_arrival =
      std::max({around.queue.now() + one_way(around), connection_->last_arrival, connection_->stalled_until});
  around.queue.at(connection_->last_arrival,
                  Arrival{&proxy_, worker_, connection_, std::move(request), partition});
  proxy_.dies();
}

void Link::connect_after(Duration delay) {
  if (connecting_) return;
  connecting_ = true;
  Surroundings& around = proxy_.around();
  around.queue.after(delay, [proxy = &proxy_, worker = worker_, life = proxy_.life()] {
    proxy->deliver(life, [worker](Proxy::Life& living) { living.workers[worker]->link.connect(); });
  });
}

void Link::connect() {
  connecting_ = false;
  Surroundings& around = proxy_.around();
  if (connection_ != nullptr) return;
  if (!around.server.up() || !proxy_.reachable()) {
    connect_after(Milliseconds(10 + around.random.below(500)));
    return;
  }
  connection_ = std::make_shared<Connection>();
  connection_->generation = around.server.generation();
  connection_->life = proxy_.life();
  around.trace.line(around.queue.now(), "proxy {} worker {} connected to {}", proxy_.index(), worker_,
                    around.server.run());
  around.listeners_changed();
  Proxy::Worker& here = proxy_.worker(worker_);
  const std::string run = around.server.run();
  for (unsigned partition : around.partitions)
    if (here.engine.owns(partition)) here.enter([&] { here.engine.on_up(partition, run, proxy_.mono()); });
  if (worker_ != 0) return;  // the first listens for all
  for (unsigned partition : around.partitions) {
    Proxy::Worker& owner = proxy_.worker(partition % proxy_.workers());
    owner.enter([&] { owner.engine.on_listening(partition, proxy_.mono()); });
  }
}

void Link::cut(bool ghosts) {
  if (connection_ == nullptr) return;
  Surroundings& around = proxy_.around();
  connection_->cut = true;
  if (ghosts) {
    connection_->ghosts = 1 + around.random.below(20);
    const Duration most = around.random.one_in(4) ? Duration(Seconds(100)) : Duration(Milliseconds(500));
    connection_->ghosts_at =
        around.queue.now() +
        Duration(static_cast<std::int64_t>(around.random.below(static_cast<std::uint64_t>(most.count()))));
  }
  connection_ = nullptr;
  around.trace.line(around.queue.now(), "proxy {} worker {} cut off{}", proxy_.index(), worker_,
                    ghosts ? ", ghosts under way" : "");
  around.listeners_changed();
  connect_after(Milliseconds(1 + around.random.below(300)));
  proxy_.deliver(proxy_.life(), [&proxy = proxy_, worker = worker_](Proxy::Life& living) {
    Proxy::Worker& here = *living.workers[worker];
    for (unsigned partition : proxy.around().partitions)
      if (here.engine.owns(partition)) here.enter([&] { here.engine.on_down(partition, proxy.mono()); });
  });
}

void Link::stall(Duration length) {
  if (connection_ == nullptr) return;
  Surroundings& around = proxy_.around();
  connection_->stalled_until = around.queue.now() + length;
  check_stall(connection_, connection_->answered);
}

void Link::lose_replies() {
  if (connection_ == nullptr) return;
  connection_->replies_lost = true;
  check_stall(connection_, connection_->answered);
}

// The client gives a connection up whose answers stay away.
void Link::check_stall(const std::shared_ptr<Connection>& connection, std::uint64_t answered) {
  Surroundings& around = proxy_.around();
  around.queue.after(
      around.scenario.stall_timeout, [proxy = &proxy_, worker = worker_, connection, answered] {
        proxy->deliver(connection->life, [proxy, worker, connection, answered](Proxy::Life& living) {
          Link& link = living.workers[worker]->link;
          if (link.connection_ != connection) return;
          if (connection->sent > connection->answered && connection->answered == answered)
            link.cut(proxy->around().random.one_in(2));
          else if (connection->replies_lost || connection->stalled_until > proxy->around().queue.now())
            link.check_stall(connection, connection->answered);
        });
      });
}

}  // namespace tollgate::sim
