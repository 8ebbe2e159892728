#include "metering/redis/link.h"

#include <event2/event.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "metering/base/check.h"
#include "metering/redis/command.h"

namespace tollgate::redis {
namespace {

constexpr int kLoadsMax = 3;  // a script that vanishes again and again is told as the error it is

}  // namespace

Link::Link(event_base* base, Options options, std::function<void(bool up)> changed)
    : options_(std::move(options)), changed_(std::move(changed)), connection_(base, options_.connection) {
  wait_event_ = event_new(base, -1, 0, &Link::wait_event, this);
  CHECK(wait_event_ != nullptr, "event_new");
}

Link::~Link() {
  event_free(wait_event_);
}

void Link::start() {
  connection_.start([this](bool up) { on_changed(up); });
}

void Link::on_changed(bool up) {
  ++epoch_;
  under_way_ = 0;
  reloading_ = unconfirmed_ = wait_under_way_ = false;
  if (up) {
    for (const Script* script : options_.scripts) {
      std::array<std::string_view, 3> words{"SCRIPT", "LOAD", script->text};
      connection_.send(words, options_.connection.stall_timeout, [](Result<Reply*>) {});
    }
    return changed_(true);
  }
  auto without_script = std::move(without_script_), waiting = std::move(waiting_);
  without_script_.clear();
  waiting_.clear();
  auto held = std::move(held_);
  held_.clear();
  changed_(false);
  auto lost = [this] { return fail(Origin::store, connection_.last_error(), true); };
  for (Held& one : held) one.done(lost());
  for (auto& request : without_script) request->done(lost());
  for (auto& request : waiting) request->done(lost());
}

void Link::send(Request request) {
  auto shared = std::make_shared<Request>(std::move(request));
  if (reloading_ && connection_.up()) {
    waiting_.push_back(std::move(shared));
    return;
  }
  transmit(std::move(shared));
}

void Link::transmit(std::shared_ptr<Request> request) {
  if (options_.confirm && request->durable) {
    unconfirmed_ = true;
    // Before the connection's own event, so that WAIT leaves in the same write.
    if (!wait_under_way_ && !wait_scheduled_) {
      wait_scheduled_ = true;
      event_active(wait_event_, EV_TIMEOUT, 0);
    }
  }
  MonotonicTime deadline = request->deadline;
  Milliseconds timeout = request->timeout;
  if (request->asking)
    connection_.send_encoded("*1\r\n$6\r\nASKING\r\n", deadline, timeout, [](Result<Reply*>) {}, true);
  ++under_way_;
  auto command = request->command;
  bool vital = request->vital;
  connection_.send_encoded(
      *command, deadline, timeout,
      [this, request = std::move(request), epoch = epoch_](Result<Reply*> reply) {
        if (epoch != epoch_) return request->done(std::move(reply));
        --under_way_;
        answered(request, std::move(reply));
      },
      vital);
}

void Link::answered(const std::shared_ptr<Request>& request, Result<Reply*> reply) {
  if (!reply) {
    if (request->vital && connection_.up() && Connection::now() >= request->deadline)
      connection_.drop(reply.error().message);
    request->done(std::move(reply));
  } else if ((*reply)->is_error("NOSCRIPT") && request->loads < kLoadsMax) {
    ++request->loads;
    reloading_ = true;
    without_script_.push_back(request);
  } else if (options_.confirm && request->durable) {
    held_.push_back({request->done, std::move(**reply)});
  } else {
    request->done(std::move(reply));
  }
  if (reloading_) reload_when_quiet();
}

void Link::reload_when_quiet() {
  if (under_way_ != 0 || !connection_.up()) return;
  reloading_ = false;
  ++counters_.script_loads;
  for (const Script* script : options_.scripts) {
    std::array<std::string_view, 3> words{"SCRIPT", "LOAD", script->text};
    connection_.send(words, options_.connection.stall_timeout, [](Result<Reply*>) {});
  }
  auto without_script = std::move(without_script_), waiting = std::move(waiting_);
  without_script_.clear();
  waiting_.clear();
  for (auto& request : without_script) transmit(std::move(request));
  for (auto& request : waiting) transmit(std::move(request));
}

// ------------------------------------------------------------------------------------------------ WAIT

void Link::wait_event(int, short, void* self) {
  auto* link = static_cast<Link*>(self);
  link->wait_scheduled_ = false;
  if (link->unconfirmed_ && !link->wait_under_way_ && link->connection_.up()) link->send_wait();
}

void Link::send_wait() {
  wait_under_way_ = true;
  unconfirmed_ = false;
  std::uint32_t asked = std::max(options_.min_replicas, replicas_);
  std::string count = std::to_string(asked);
  std::string milliseconds = std::to_string(std::max<Milliseconds::rep>(options_.wait_timeout.count(), 1));
  Milliseconds limit = options_.connection.stall_timeout;
  std::array<std::string_view, 1> role{"ROLE"};
  connection_.send(role, limit, [this, epoch = epoch_](Result<Reply*> reply) {
    // [master, offset, [[address, port, offset]...]]. Without the right to ask, min_replicas is all there is.
    if (epoch != epoch_ || !reply || (*reply)->elements.size() != 3) return;
    replicas_ = static_cast<std::uint32_t>((*reply)->elements[2].elements.size());
  });
  std::array<std::string_view, 3> wait{"WAIT", count, milliseconds};
  limit += options_.wait_timeout;
  connection_.send(wait, limit, [this, epoch = epoch_, asked](Result<Reply*> reply) {
    if (epoch == epoch_) on_wait(std::move(reply), asked);
  });
}

void Link::on_wait(Result<Reply*> reply, std::uint32_t asked) {
  if (!reply) {
    // Nobody knows what was confirmed: what is held goes with the connection.
    if (connection_.up()) connection_.drop(reply.error().message);
    return;
  }
  wait_under_way_ = false;
  std::uint32_t needed = std::max(options_.min_replicas, replicas_);
  std::int64_t have = (*reply)->type == Reply::Type::integer ? (*reply)->integer : -1;
  if (have >= asked && asked < needed) return send_wait();  // a replica has joined: it may be promoted, too
  if (have >= needed) return release(true, "");
  ++counters_.wait_misses;
  release(false, have < 0 ? "WAIT: " + (*reply)->text
                          : fmt::format("only {} of {} replicas confirmed within {} ms", have, needed,
                                        options_.wait_timeout.count()));
}

void Link::release(bool confirmed, const std::string& why) {
  auto held = std::move(held_);
  held_.clear();
  if (unconfirmed_) send_wait();
  std::uint64_t epoch = epoch_;
  for (Held& one : held) {
    if (confirmed && epoch == epoch_)
      one.done(&one.reply);
    else
      one.done(fail(Origin::store, confirmed ? connection_.last_error() : why, true));
  }
}

// ------------------------------------------------------------------------------------------------ encoding

std::shared_ptr<const std::string> encode_script(const Script& script, const std::vector<std::string>& keys,
                                                 const std::vector<std::string>& args) {
  auto out = std::make_shared<std::string>();
  CommandWriter command(*out, 3 + keys.size() + args.size());
  command.word("EVALSHA");
  command.word(script.sha1);
  command.number(static_cast<std::int64_t>(keys.size()));
  for (const std::string& key : keys) command.word(key);
  for (const std::string& argument : args) command.word(argument);
  return out;
}

std::shared_ptr<const std::string> encode_command(const std::vector<std::string_view>& words) {
  auto out = std::make_shared<std::string>();
  CommandWriter command(*out, words.size());
  for (std::string_view word : words) command.word(word);
  return out;
}

}  // namespace tollgate::redis
