// Who waits for whose look-up, and what a new watch is told.
#include "proxy/net/resolver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

namespace tollgate::net {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

// Name servers whose answers can be held back. Shared: look-ups outlive a resolver.
class NameServers {
 public:
  Result<std::vector<Endpoint>> look_up(const HostPort& at) {
    std::unique_lock lock(mutex_);
    ++begun_[at.host];
    most_at_once_[at.host] = std::max(most_at_once_[at.host], ++under_way_[at.host]);
    changed_.notify_all();
    changed_.wait(lock, [&] { return !held_[at.host]; });
    --under_way_[at.host];
    ++ended_;
    changed_.notify_all();
    if (at.host == "none") return fail(Origin::upstream, "no such name", true);
    return std::vector{*numeric_endpoint({.host = "127.0.0.1", .port = at.port})};
  }
  void hold(const std::string& host, bool on) {
    std::lock_guard lock(mutex_);
    held_[host] = on;
    changed_.notify_all();
  }
  void wait_for_begin(const std::string& host) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, 10s, [&] { return begun_[host] > 0; }));
  }
  void wait_for_ends(int count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, 10s, [&] { return ended_ >= count; }));
  }
  int begun(const std::string& host) {
    std::lock_guard lock(mutex_);
    return begun_[host];
  }
  int most_at_once(const std::string& host) {
    std::lock_guard lock(mutex_);
    return most_at_once_[host];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, bool> held_;
  std::map<std::string, int> begun_, under_way_, most_at_once_;
  int ended_ = 0;
};

// What one watch is told: ports of the addresses, or the error.
class Told {
 public:
  void add(const Result<std::vector<Endpoint>>& answer) {
    std::lock_guard lock(mutex_);
    all_.push_back(answer ? std::to_string(answer->front().port()) : answer.error().message);
    changed_.notify_all();
  }
  std::vector<std::string> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, 10s, [&] { return all_.size() >= count; });
    return all_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> all_;
};

class Resolving : public testing::Test {
 protected:
  struct Watched {
    std::shared_ptr<Told> told = std::make_shared<Told>();
    Resolver::Handle handle;
  };
  Watched watch(const std::string& host, std::uint16_t port = 80, Milliseconds interval = 1h) {
    Watched watched;
    watched.handle = resolver->watch({host, port}, interval,
                                     [told = watched.told](const auto& answer) { told->add(answer); });
    return watched;
  }
  std::shared_ptr<NameServers> servers = std::make_shared<NameServers>();
  std::unique_ptr<Resolver> resolver =
      std::make_unique<Resolver>([servers = servers](const HostPort& at) { return servers->look_up(at); });
};

TEST_F(Resolving, LookUpNeverWaitsForThatOfAnotherName) {
  servers->hold("slow", true);
  const Watched slow = watch("slow");
  servers->wait_for_begin("slow");
  EXPECT_THAT(watch("quick").told->wait_for(1), ElementsAre("80"));
  EXPECT_THAT(slow.told->wait_for(0), ElementsAre());
  servers->hold("slow", false);
  EXPECT_THAT(slow.told->wait_for(1), ElementsAre("80"));
}

TEST_F(Resolving, OneNameIsLookedUpOnceAtATimeForAllWhoWatchIt) {
  servers->hold("crm", true);
  const Watched first = watch("crm"), second = watch("crm"), other_port = watch("crm", 443);
  servers->wait_for_begin("crm");
  watch("quick").told->wait_for(1);
  EXPECT_EQ(servers->begun("crm"), 1) << "the second port waits";
  servers->hold("crm", false);
  EXPECT_THAT(first.told->wait_for(1), ElementsAre("80"));
  EXPECT_THAT(second.told->wait_for(1), ElementsAre("80"));
  EXPECT_THAT(other_port.told->wait_for(1), ElementsAre("443"));
  EXPECT_EQ(servers->begun("crm"), 2);
  EXPECT_EQ(servers->most_at_once("crm"), 1);
}

TEST_F(Resolving, NewWatchIsToldWhatIsKnownAtOnce) {
  const Watched first = watch("crm");
  first.told->wait_for(1);
  servers->hold("crm", true);
  EXPECT_THAT(watch("crm").told->wait_for(0), ElementsAre("80"));
  EXPECT_EQ(servers->begun("crm"), 1);
}

TEST_F(Resolving, NewWatchIsToldOfAFailureAtOnce) {
  const Watched first = watch("none");
  EXPECT_THAT(first.told->wait_for(1), ElementsAre("no such name"));
  servers->hold("none", true);
  EXPECT_THAT(watch("none").told->wait_for(0), ElementsAre("no such name"));
}

TEST_F(Resolving, TheShortestIntervalCounts) {
  const Watched rare = watch("crm");
  rare.told->wait_for(1);
  const Watched frequent = watch("crm", 80, 1ms);
  servers->wait_for_ends(4);
  EXPECT_THAT(rare.told->wait_for(1), ElementsAre("80")) << "no news";
}

TEST_F(Resolving, WatchThatEndedIsToldNothing) {
  servers->hold("slow", true);
  Watched slow = watch("slow");
  servers->wait_for_begin("slow");
  slow.handle.reset();
  servers->hold("slow", false);
  servers->wait_for_ends(1);
  watch("quick").told->wait_for(1);
  EXPECT_THAT(slow.told->wait_for(0), ElementsAre());
}

TEST_F(Resolving, EndWaitsForNoLookUpAndNothingIsToldAfterwards) {
  servers->hold("slow", true);
  const Watched slow = watch("slow");
  servers->wait_for_begin("slow");
  resolver.reset();
  servers->hold("slow", false);
  servers->wait_for_ends(1);
  EXPECT_THAT(slow.told->wait_for(0), ElementsAre());
}

}  // namespace
}  // namespace tollgate::net
