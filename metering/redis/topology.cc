#include "metering/redis/topology.h"

#include <event2/event.h>
#include <fmt/format.h>

#include <algorithm>

#include "metering/base/check.h"
#include "metering/redis/sentinel.h"

namespace tollgate::redis {
namespace {

constexpr Milliseconds kPauseMin{50}, kPauseMax{1'000};

Endpoint endpoint_of(const StoreUrl& url) {
  return {.host = url.host, .port = url.port};
}

}  // namespace

Topology::Topology(event_base* base, Link::Options link, Events events)
    : base_(base),
      options_(std::move(link)),
      events_(std::move(events)),
      cluster_(options_.connection.url.kind == StoreUrl::Kind::cluster),
      random_(options_.connection.seed),
      pause_(kPauseMin) {
  map_event_ = evtimer_new(base_, &Topology::map_event, this);
  burial_event_ = event_new(base_, -1, 0, &Topology::burial_event, this);
  CHECK(map_event_ != nullptr && burial_event_ != nullptr, "event_new");
  options_.connection.primary_only = true;
  if (cluster_) return;
  Link::Options options = options_;
  options.connection = with_locator(base_, std::move(options.connection));
  only_ = std::make_unique<Link>(base_, std::move(options), [this](bool up) { on_link(*only_, up); });
  links_.fill(only_.get());
}

Topology::~Topology() {
  event_free(map_event_);
  event_free(burial_event_);
}

void Topology::start() {
  if (only_ != nullptr) return only_->start();
  last_error_ = "the slots of the cluster are not known yet";
  ask_for_map();
}

std::vector<Link*> Topology::all() {
  std::vector<Link*> links;
  if (only_ != nullptr) links.push_back(only_.get());
  for (auto& [endpoint, node] : nodes_)
    if (node.in_map) links.push_back(node.link.get());
  return links;
}

void Topology::on_link(Link& link, bool up) {
  if (!up) last_error_ = link.last_error();
  events_.changed(link, up);
  if (!cluster_) return;
  if (!up) {
    look_again();
  } else if (healthy()) {
    pause_ = kPauseMin;
  }
}

// -------------------------------------------------------------------------------------------- Cluster

Link& Topology::at(const Endpoint& endpoint) {
  CHECK(cluster_, "redirections are a matter of clusters");
  Node& node = nodes_[endpoint];
  if (node.link != nullptr) return *node.link;
  Link::Options options = options_;
  options.connection.url = options_.connection.url.server(endpoint);
  options.connection.seed = random_.next();
  StoreUrl server = options.connection.url;
  node.link = std::make_unique<Link>(base_, std::move(options), nullptr);
  Link* link = node.link.get();
  link->observe([this, link](bool up) { on_link(*link, up); });
  link->start();
  events_.joined(server);
  return *link;
}

void Topology::moved(const Redirection& redirection) {
  Link& link = at(redirection.to);
  for (unsigned p = 0; p < quota::kPartitions; ++p)
    if (slot_of_partition(p) == redirection.slot) assign(p, &link);
  look_again();
}

void Topology::assign(unsigned partition, Link* link) {
  if (links_[partition] == link) return;
  links_[partition] = link;
  events_.reassigned(partition);
}

bool Topology::healthy() const {
  return std::ranges::all_of(links_, [](const Link* link) { return link != nullptr && link->up(); });
}

void Topology::look_again() {
  if (!cluster_) return;
  if (asking_) {
    ask_again_ = true;
  } else {
    schedule(pause_);
  }
}

void Topology::schedule(Milliseconds wait) {
  if (event_pending(map_event_, EV_TIMEOUT, nullptr) != 0) return;
  auto half = static_cast<std::uint64_t>(wait.count() / 2);
  auto drawn = static_cast<Milliseconds::rep>(half + random_.below(half + 1));
  timeval interval{.tv_sec = drawn / 1'000, .tv_usec = drawn % 1'000 * 1'000};
  event_add(map_event_, &interval);
}

void Topology::map_event(int, short, void* self) {
  static_cast<Topology*>(self)->ask_for_map();
}

void Topology::ask_for_map() {
  asking_ = true;
  ask_again_ = false;
  pause_ = std::min(pause_ * 2, kPauseMax);
  Inquiry::Question question;
  question.connection = options_.connection;
  question.connection.primary_only = false;
  question.command = {"CLUSTER", "SLOTS"};
  question.each = std::max(options_.connection.connect_timeout / 4, Milliseconds(10));
  std::vector<Endpoint> endpoints;
  for (const auto& [endpoint, node] : nodes_) endpoints.push_back(endpoint);
  for (const Endpoint& seed : options_.connection.url.nodes)
    if (std::ranges::find(endpoints, seed) == endpoints.end()) endpoints.push_back(seed);
  // Another one first each time: one that is cut off goes on telling an old map.
  std::ranges::rotate(endpoints,
                      endpoints.begin() + static_cast<std::ptrdiff_t>(first_asked_++ % endpoints.size()));
  for (const Endpoint& endpoint : endpoints)
    question.servers.push_back(options_.connection.url.server(endpoint));
  inquiry_ = std::make_unique<Inquiry>(
      base_, std::move(question),
      [this](Reply& reply, const StoreUrl& from) { return take_map(reply, from); },
      [this](const std::string& why) {
        asking_ = false;
        last_error_ = "no node tells the slots of the cluster: " + why;
        schedule(pause_);
      });
}

bool Topology::take_map(Reply& reply, const StoreUrl& from) {
  auto ranges = parse_slots(reply, endpoint_of(from));
  if (!ranges || ranges->empty()) return false;
  for (auto& [endpoint, node] : nodes_) node.in_map = false;
  for (const SlotRange& range : *ranges) {
    at(range.primary);
    nodes_[range.primary].in_map = true;
  }
  std::size_t without = 0;
  for (unsigned p = 0; p < quota::kPartitions; ++p) {
    unsigned slot = slot_of_partition(p);
    auto range = std::ranges::find_if(
        *ranges, [slot](const SlotRange& r) { return r.first <= slot && slot <= r.last; });
    if (range == ranges->end()) {
      ++without;  // nobody serves it now; who did is kept, it will say so
    } else {
      assign(p, nodes_[range->primary].link.get());
    }
  }
  leave_unused();
  asking_ = false;
  if (without != 0) last_error_ = fmt::format("{} partitions have no node in the cluster", without);
  if (without != 0 || ask_again_ || !healthy()) {
    schedule(pause_);
  } else {
    pause_ = kPauseMin;
  }
  return true;
}

void Topology::leave_unused() {
  for (auto it = nodes_.begin(); it != nodes_.end();) {
    Link* link = it->second.link.get();
    if (it->second.in_map || std::ranges::find(links_, link) != links_.end()) {
      ++it;
      continue;
    }
    past_.script_loads += link->counters().script_loads;
    past_.wait_misses += link->counters().wait_misses;
    past_reconnects_ += link->connects() > 1 ? link->connects() - 1 : 0;
    buried_.push_back(std::move(it->second.link));
    Endpoint endpoint = it->first;
    it = nodes_.erase(it);
    events_.left(options_.connection.url.server(endpoint));
    link->observe([](bool) {});
    link->close("the node serves nothing any more");
    event_active(burial_event_, EV_TIMEOUT, 0);
  }
}

void Topology::burial_event(int, short, void* self) {
  static_cast<Topology*>(self)->buried_.clear();
}

// -------------------------------------------------------------------------------------------- questions

Link::Counters Topology::counters() const {
  Link::Counters sum = past_;
  auto add = [&](const Link& link) {
    sum.script_loads += link.counters().script_loads;
    sum.wait_misses += link.counters().wait_misses;
  };
  if (only_ != nullptr) add(*only_);
  for (const auto& [endpoint, node] : nodes_) add(*node.link);
  return sum;
}

std::uint64_t Topology::reconnects() const {
  std::uint64_t sum = past_reconnects_;
  auto add = [&](const Link& link) { sum += link.connects() > 1 ? link.connects() - 1 : 0; };
  if (only_ != nullptr) add(*only_);
  for (const auto& [endpoint, node] : nodes_) add(*node.link);
  return sum;
}

const std::string& Topology::last_error() const {
  return only_ != nullptr ? only_->last_error() : last_error_;
}

}  // namespace tollgate::redis
