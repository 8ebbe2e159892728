#include "metering/redis/subscription.h"

#include <event2/event.h>
#include <fmt/format.h>

#include <array>

#include "metering/base/check.h"

namespace tollgate::redis {
namespace {

ConnectionOptions listening_options(ConnectionOptions options, Subscription::Message message) {
  options.primary_only = false;
  options.on_published = [message = std::move(message)](Reply& reply) {
    message(reply.elements[1].text, reply.elements[2].text);
  };
  return options;
}

}  // namespace

Subscription::Subscription(event_base* base, ConnectionOptions options, std::vector<std::string> channels,
                           Message message, Subscribed subscribed)
    : channels_(std::move(channels)),
      subscribed_(std::move(subscribed)),
      stall_timeout_(options.stall_timeout),
      connection_(base, listening_options(std::move(options), std::move(message))) {
  CHECK(!channels_.empty(), "nothing to listen to");
  ping_event_ = event_new(base, -1, EV_PERSIST, &Subscription::ping_event, this);
  CHECK(ping_event_ != nullptr, "event_new");
}

Subscription::~Subscription() {
  event_free(ping_event_);
}

void Subscription::start() {
  Milliseconds::rep every = std::max<Milliseconds::rep>(stall_timeout_.count() / 4, 1);
  timeval interval{.tv_sec = every / 1'000, .tv_usec = every % 1'000 * 1'000};
  event_add(ping_event_, &interval);
  connection_.start([this](bool up) { on_changed(up); });
}

const std::string& Subscription::last_error() const {
  return refusal_.empty() ? connection_.last_error() : refusal_;
}

void Subscription::on_changed(bool up) {
  confirmed_ = 0;
  if (!up) return;
  for (const std::string& channel : channels_) {
    std::array<std::string_view, 2> words{"SUBSCRIBE", channel};
    connection_.send(words, stall_timeout_, [this, channel](Result<Reply*> reply) {
      if (!reply) return;  // lost: `up` comes again
      if ((*reply)->is_error()) {
        refusal_ =
            fmt::format("{}: SUBSCRIBE {}: {}", connection_.server().describe(), channel, (*reply)->text);
        return connection_.drop(refusal_);
      }
      if (++confirmed_ < channels_.size()) return;
      refusal_.clear();
      subscribed_();
    });
  }
}

void Subscription::ping() {
  if (!connection_.up()) return;
  std::array<std::string_view, 1> words{"PING"};
  MonotonicTime deadline = Connection::now() + stall_timeout_;
  connection_.send(words, stall_timeout_, [this, deadline](Result<Reply*> reply) {
    if (!reply && connection_.up() && Connection::now() >= deadline)
      connection_.drop("the store did not answer a subscriber's PING");
  });
}

}  // namespace tollgate::redis
