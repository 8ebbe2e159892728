// Which server serves a partition, and one Link to each such server. Inside this room only.
//
//   one server, Sentinel   one Link for all partitions; Sentinel is asked by the Link's connection (sentinel.h)
//   Cluster                one Link a primary, by the map of CLUSTER SLOTS
//
// Cluster: the map is asked of the nodes in turn (those of the last map, then those of the URL), at the start, on
// look_again(), and as long as a primary cannot be reached or slots are without a node, after a pause that doubles from
// 50 ms to 1 s, with jitter. MOVED changes one entry at once and has the whole map read again. A node that serves
// nothing any more is left, a turn of the loop later.
//
// Threads: on the loop's thread. The functions called from here may not destroy the Topology.
#pragma once
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "metering/base/random.h"
#include "metering/quota/keys.h"
#include "metering/redis/cluster_map.h"
#include "metering/redis/inquiry.h"
#include "metering/redis/link.h"

struct event;

namespace tollgate::redis {

class Topology {
 public:
  struct Events {
    std::function<void(Link& link, bool up)> changed;    // connected, lost
    std::function<void(unsigned partition)> reassigned;  // of(partition) is another Link now
    std::function<void(const StoreUrl& server)> joined;  // a server was added, or is left (Cluster)
    std::function<void(const StoreUrl& server)> left;
  };

  // link.connection.url: of any kind but embedded.
  Topology(event_base* base, Link::Options link, Events events);
  ~Topology();
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;

  void start();

  Link* of(unsigned partition) { return links_[partition]; }  // nullptr: not known (yet)
  std::vector<Link*> all();                                   // every server of the map
  bool cluster() const { return cluster_; }
  // Where an ASK leads: a Link to that node, perhaps one that is only now made.
  Link& at(const Endpoint& endpoint);
  void moved(const Redirection& redirection);
  void look_again();

  Link::Counters counters() const;  // of all links, past ones included
  std::uint64_t reconnects() const;
  const std::string& last_error() const;

 private:
  struct Node {
    std::unique_ptr<Link> link;
    bool in_map = false;  // else: named by a redirection only
  };

  void ask_for_map();
  bool take_map(Reply& reply, const StoreUrl& from);
  void assign(unsigned partition, Link* link);
  void leave_unused();
  bool healthy() const;
  void schedule(Milliseconds wait);
  void on_link(Link& link, bool up);
  static void map_event(int, short, void* self);
  static void burial_event(int, short, void* self);

  event_base* base_;
  Link::Options options_;
  Events events_;
  const bool cluster_;
  Random random_;
  std::array<Link*, quota::kPartitions> links_{};
  std::unique_ptr<Link> only_;                 // one server, Sentinel
  std::map<Endpoint, Node> nodes_;             // Cluster
  std::vector<std::unique_ptr<Link>> buried_;  // destroyed from the loop, never under its own feet
  Link::Counters past_;
  std::uint64_t past_reconnects_ = 0;
  std::unique_ptr<Inquiry> inquiry_;
  bool asking_ = false, ask_again_ = false;
  std::size_t first_asked_ = 0;
  Milliseconds pause_;
  std::string last_error_ = "not started";
  event *map_event_ = nullptr, *burial_event_ = nullptr;
};

}  // namespace tollgate::redis
