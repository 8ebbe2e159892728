#include "tests/standin/settings.h"

#include <boost/json.hpp>

namespace tollgate::standin {

namespace json = boost::json;

Behaviour Control::behaviour() const {
  const std::lock_guard lock(mutex_);
  return behaviour_;
}

bool Control::set(std::string_view text) {
  boost::system::error_code error;
  const json::value parsed = json::parse(json::string_view(text.data(), text.size()), error);
  if (error || !parsed.is_object()) return false;
  const std::lock_guard lock(mutex_);
  Behaviour next = behaviour_;
  for (const auto& member : parsed.get_object()) {
    if (member.key() == "fault") {
      if (!member.value().is_string()) return false;
      next.fault = std::string(member.value().get_string());
      continue;
    }
    if (!member.value().is_int64() || member.value().get_int64() < 0) return false;
    const auto number = static_cast<std::uint32_t>(member.value().get_int64());
    if (member.key() == "latency_ms")
      next.latency_ms = number;
    else if (member.key() == "capacity")
      next.capacity = number;
    else if (member.key() == "queue")
      next.queue = number;
    else if (member.key() == "fault_every")
      next.fault_every = number == 0 ? 1 : number;
    else
      return false;
  }
  behaviour_ = next;
  freed_.notify_all();
  return true;
}

bool Control::fault_is_due() {
  const std::lock_guard lock(mutex_);
  return fault_turn_++ % behaviour_.fault_every == 0;
}

bool Control::enter() {
  std::unique_lock lock(mutex_);
  const auto has_room = [&] { return behaviour_.capacity == 0 || running_ < behaviour_.capacity; };
  if (!has_room()) {
    if (waiting_ >= behaviour_.queue) return false;
    ++waiting_;
    freed_.wait(lock, has_room);
    --waiting_;
  }
  ++running_;
  running_max_ = std::max(running_max_, running_);
  return true;
}

void Control::leave() {
  const std::lock_guard lock(mutex_);
  --running_;
  freed_.notify_one();
}

void Control::count(std::string_view method, const std::vector<std::string>& touched,
                    std::string_view target) {
  const std::lock_guard lock(mutex_);
  ++requests_;
  for (const std::string& object : touched) ++operations_[object];
  if (targets_.size() < kTargetsKept) targets_.push_back(std::string(method) + " " + std::string(target));
}

void Control::connection_opened() {
  const std::lock_guard lock(mutex_);
  ++connections_;
}

std::string Control::counts_json() const {
  const std::lock_guard lock(mutex_);
  json::object operations;
  for (const auto& [name, times] : operations_) operations[name] = times;
  json::array targets;
  for (const std::string& target : targets_) targets.push_back(json::value(target));
  return json::serialize(json::object{{"requests", requests_},
                                      {"connections", connections_},
                                      {"running", running_},
                                      {"running_max", running_max_},
                                      {"operations", operations},
                                      {"targets", targets}});
}

void Control::reset_counts() {
  const std::lock_guard lock(mutex_);
  requests_ = connections_ = fault_turn_ = 0;
  running_max_ = running_;
  operations_.clear();
  targets_.clear();
}

}  // namespace tollgate::standin
