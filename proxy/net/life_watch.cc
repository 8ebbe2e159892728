#include "proxy/net/life_watch.h"

namespace tollgate::net {

std::unique_ptr<flow::Life> LifeWatch::begin(flow::Life::Clock clock, MonotonicTime started) {
  const bool sampled = left_ == 0;
  if (sampled)
    draw();
  else
    --left_;
  if (trail_ != nullptr && trail_->over(started)) trail_.reset();
  return std::make_unique<flow::Life>(clock, started, sampled, trail_);
}

// 0 .. 2 * (kSample - 1): kSample - 1 on average, so one in kSample.
void LifeWatch::draw() {
  left_ = static_cast<std::uint32_t>(random_.below(2 * kSample - 1));
}

}  // namespace tollgate::net
