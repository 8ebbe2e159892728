#include "proxy/net/event_loop.h"

#include <event2/event.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

namespace tollgate::net {
namespace {

using testing::ElementsAre;

// A socket of a pair that is watched, and the other end.
struct Watched {
  int ends[2] = {-1, -1};
  std::vector<std::string>& seen;
  const std::string name;
  std::function<void()> then = [] {};
  Watch watch;

  Watched(EventLoop& loop, WatchKind kind, std::vector<std::string>& the_seen, std::string the_name)
      : seen(the_seen), name(std::move(the_name)) {
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    watch.start(loop, kind, ends[0], this, [](void* self, short what) {
      auto* watched = static_cast<Watched*>(self);
      if ((what & EV_READ) == 0) return;  // it may be written to
      watched->seen.push_back(watched->name);
      watched->then();
    });
  }
  ~Watched() {
    watch.stop();
    ::close(ends[0]);
    ::close(ends[1]);
  }
  void make_readable() { EXPECT_EQ(::write(ends[1], "x", 1), 1); }
};

struct TurnEnd {
  EventLoop& loop;
  std::vector<std::string>& seen;
  int times = 1;
  TurnEnd(EventLoop& the_loop, std::vector<std::string>& the_seen) : loop(the_loop), seen(the_seen) {
    loop.bind_turn_end(this, [](void* self) {
      auto* end = static_cast<TurnEnd*>(self);
      end->seen.push_back("end");
      if (--end->times > 0) end->loop.want_turn_end();
    });
  }
};

void one_turn(EventLoop& loop) {
  event_base_loop(loop.base(), EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

class Turn : public testing::Test {
 protected:
  void SetUp() override { one_turn(loop); }  // both may be written to

  std::vector<std::string> seen;
  EventLoop loop;
  TurnEnd end{loop, seen};
  Watched client{loop, WatchKind::client, seen, "client"},
      upstream{loop, WatchKind::upstream, seen, "upstream"};
};

TEST_F(Turn, UpstreamsAreHandledBeforeClientsThenTimersThenTheEndOfTheTurn) {
  LoopTimer timer;
  timer.bind(&seen, [](void* self) { static_cast<std::vector<std::string>*>(self)->push_back("timer"); });
  loop.set(timer, MonotonicTime(EventLoop::now()));
  client.make_readable();
  upstream.make_readable();
  upstream.then = [&] { loop.want_turn_end(); };
  while (EventLoop::now() <=
         timer.deadline() + Milliseconds(20)) {  // libevent's clock has ticks of up to 10 ms
  }
  one_turn(loop);
  EXPECT_THAT(seen, ElementsAre("upstream", "client", "timer", "end"));
}

TEST_F(Turn, WatchThatAnotherStopsIsNotToldAnyMore) {
  upstream.then = [&] { client.watch.stop(); };
  client.make_readable();
  upstream.make_readable();
  one_turn(loop);
  EXPECT_THAT(seen, ElementsAre("upstream"));
  EXPECT_FALSE(client.watch.event_waits());
}

TEST_F(Turn, WatchKnowsOfItsEventUntilItIsHandled) {
  struct Look {
    Watched &client, &upstream;
    std::vector<bool> waits;
  } look{client, upstream, {}};
  Watch* const watch = &client.watch;
  watch->stop();
  watch->start(loop, WatchKind::upstream, client.ends[0], &look, [](void* self, short what) {
    auto* at = static_cast<Look*>(self);
    if ((what & EV_READ) != 0) at->waits = {at->client.watch.event_waits(), at->upstream.watch.event_waits()};
  });
  one_turn(loop);
  client.make_readable();  // first, so that it is handled first
  upstream.make_readable();
  one_turn(loop);
  EXPECT_THAT(look.waits, ElementsAre(false, true));
  EXPECT_FALSE(upstream.watch.event_waits());
}

TEST_F(Turn, EndThatIsWantedAgainComesInTheSameTurn) {
  end.times = 2;
  loop.want_turn_end();
  one_turn(loop);
  EXPECT_THAT(seen, ElementsAre("end", "end"));
  one_turn(loop);
  EXPECT_THAT(seen, ElementsAre("end", "end"));
}

}  // namespace
}  // namespace tollgate::net
