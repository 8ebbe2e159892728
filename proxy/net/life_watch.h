// Which requests of a worker are watched (flow::Life): one in kSample, at random distances so that no rhythm of the load
// is met again and again; and all of them while a trail is followed.
//
// A request that is not watched costs a look at two members and a count.
//
// Threads: the worker's.
#pragma once
#include <memory>

#include "metering/base/random.h"
#include "proxy/flow/life.h"

namespace tollgate::net {

class LifeWatch {
 public:
  static constexpr std::uint32_t kSample = 128;  // one in so many, on average
  explicit LifeWatch(std::uint64_t seed) : random_(seed) { draw(); }

  // Is the next request watched?
  bool due() const { return left_ == 0 || trail_ != nullptr; }
  void pass() { --left_; }  // a request that is not
  // The life of the next request, which is due. started: when parsing its head began.
  std::unique_ptr<flow::Life> begin(flow::Life::Clock clock, MonotonicTime started);

  void follow(std::shared_ptr<flow::Trail> trail) { trail_ = std::move(trail); }  // nullptr: nothing

 private:
  void draw();

  Random random_;
  std::uint32_t left_ = 0;  // requests until the next sample
  std::shared_ptr<flow::Trail> trail_;
};

}  // namespace tollgate::net
