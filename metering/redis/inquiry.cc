#include "metering/redis/inquiry.h"

#include <event2/event.h>
#include <fmt/format.h>

#include "metering/base/check.h"

namespace tollgate::redis {

Inquiry::Inquiry(event_base* base, Question question, Use use, Failed failed)
    : base_(base), question_(std::move(question)), use_(std::move(use)), failed_(std::move(failed)) {
  next_event_ = event_new(base_, -1, 0, &Inquiry::next_event, this);
  CHECK(next_event_ != nullptr, "event_new");
  // From the loop, so that no function is called before the constructor has returned.
  event_active(next_event_, EV_TIMEOUT, 0);
}

Inquiry::~Inquiry() {
  connection_.reset();
  event_free(next_event_);
}

void Inquiry::next_event(int, short, void* self) {
  static_cast<Inquiry*>(self)->ask_next();
}

void Inquiry::ask_next() {
  connection_.reset();
  if (next_ == question_.servers.size()) {
    Failed failed = std::move(failed_);
    std::string why = complaints_.empty() ? "there is nobody to ask" : complaints_;
    return failed(why);
  }
  ConnectionOptions options = question_.connection;
  options.url = question_.servers[next_];
  options.connect_timeout = std::min(options.connect_timeout, question_.each);
  connection_ = std::make_unique<Connection>(base_, std::move(options));
  connection_->start();
  std::vector<std::string_view> words(question_.command.begin(), question_.command.end());
  connection_->send(words, question_.each, [this](Result<Reply*> reply) { answered(std::move(reply)); });
}

void Inquiry::answered(Result<Reply*> reply) {
  const StoreUrl from = question_.servers[next_++];
  std::string complaint;
  if (!reply) {
    complaint = reply.error().message;
  } else if ((*reply)->is_error()) {
    complaint = fmt::format("{}: {}", from.describe(), (*reply)->text);
  } else {
    Use use = use_;  // a copy is called: true may mean that this object is gone
    if (use(**reply, from)) return;
    complaint = fmt::format("{}: its answer is of no use", from.describe());
  }
  complaints_ += (complaints_.empty() ? "" : "; ") + complaint;
  event_active(next_event_, EV_TIMEOUT, 0);
}

}  // namespace tollgate::redis
