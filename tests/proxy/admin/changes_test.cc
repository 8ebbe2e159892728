#include "proxy/admin/changes.h"

#include <gtest/gtest.h>

#include <utility>

namespace tollgate::admin {
namespace {

using quota::LimitOverride;

// A store whose answers come when the test says so.
class Changes : public testing::Test {
 protected:
  ~Changes() override {  // what is still waiting is told while the test exists
    for (std::size_t i = 0; i < gets_.size(); ++i) drop_get(i);
    for (std::size_t i = 0; i < sets_.size(); ++i) drop_set(i);
  }
  void run(std::string name, std::uint64_t limit) {
    queue_->run(
        {"subject", "daily"}, Milliseconds(1'000),
        [limit](LimitOverride& value) -> std::optional<Reply> {
          value.limit = value.limit.value_or(0) + limit;
          return std::nullopt;
        },
        [this, name](ChangeQueue::Outcome outcome) {
          ended_.push_back(name + (outcome.stored ? "" : " failed") + (outcome.refusal ? " refused" : ""));
        });
  }
  void answer_get(std::size_t i, Sources::Override value) {
    std::exchange(gets_[i], nullptr)(std::move(value));
  }
  void answer_set(std::size_t i) { std::exchange(sets_[i].second, nullptr)({}); }
  void drop_get(std::size_t i) { auto dropped = std::exchange(gets_[i], nullptr); }
  void drop_set(std::size_t i) { auto dropped = std::exchange(sets_[i].second, nullptr); }

  std::vector<Sources::OverrideRead> gets_;
  std::vector<std::pair<Sources::Override, Sources::Changed>> sets_;
  std::vector<std::string> ended_;
  std::shared_ptr<ChangeQueue> queue_ = std::make_shared<ChangeQueue>(
      [this](quota::AccountKey, Sources::OverrideRead done) { gets_.push_back(std::move(done)); },
      [this](quota::AccountKey, Sources::Override value, Sources::Changed done) {
        sets_.emplace_back(std::move(value), std::move(done));
      });
};

TEST_F(Changes, SecondWaitsForTheFirstAndSeesWhatItWrote) {
  run("first", 5);
  run("second", 7);
  ASSERT_EQ(gets_.size(), 1U);
  answer_get(0, std::nullopt);
  ASSERT_EQ(sets_.size(), 1U);
  EXPECT_EQ(sets_[0].first->limit, 5U);
  EXPECT_EQ(gets_.size(), 1U) << "the second waits until the first is stored";
  answer_set(0);
  ASSERT_EQ(gets_.size(), 2U);
  answer_get(1, sets_[0].first);
  EXPECT_EQ(sets_[1].first->limit, 12U);
  answer_set(1);
  EXPECT_EQ(ended_, (std::vector<std::string>{"first", "second"}));
}

TEST_F(Changes, StoreThatNeverAnswersFailsTheChangeAndLetsTheNextOn) {
  run("first", 5);
  run("second", 7);
  drop_get(0);
  EXPECT_EQ(ended_, std::vector<std::string>{"first failed"});
  ASSERT_EQ(gets_.size(), 2U);
  answer_get(1, std::nullopt);
  drop_set(0);
  EXPECT_EQ(ended_, (std::vector<std::string>{"first failed", "second failed"}));
  run("third", 1);
  EXPECT_EQ(gets_.size(), 3U);
}

TEST_F(Changes, ExpiredGrantsAreDroppedAndLiveOnesKept) {
  run("first", 5);
  LimitOverride old;
  old.grants = {{10, Milliseconds(1'000)}, {20, Milliseconds(1'001)}};
  answer_get(0, old);
  ASSERT_EQ(sets_[0].first->grants.size(), 1U);
  EXPECT_EQ(sets_[0].first->grants[0].extra, 20U);
}

TEST_F(Changes, RefusalWritesNothing) {
  queue_->run(
      {"subject", "daily"}, Milliseconds(0), [](LimitOverride&) -> std::optional<Reply> { return Reply{}; },
      [this](ChangeQueue::Outcome outcome) { ended_.push_back(outcome.refusal ? "refused" : "made"); });
  answer_get(0, std::nullopt);
  EXPECT_TRUE(sets_.empty());
  EXPECT_EQ(ended_, std::vector<std::string>{"refused"});
}

}  // namespace
}  // namespace tollgate::admin
