#include "metering/billing/absorber.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <vector>

#include "tests/metering/usage/support/call_mix.h"

namespace tollgate::billing {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr Milliseconds kNever{3'600'000};

class AbsorberTest : public testing::Test {
 protected:
  AbsorberTest() {
    std::string pattern = (fs::temp_directory_path() / "tollgate-absorber-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~AbsorberTest() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  // Turns are counted by the options' on_turn; waits for the next one.
  void turn(Absorber& absorber) {
    std::promise<void> done;
    {
      std::lock_guard lock(mutex_);
      waiting_ = &done;
    }
    absorber.wake();
    ASSERT_EQ(done.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  }
  void turned() {
    std::lock_guard lock(mutex_);
    if (waiting_ != nullptr) waiting_->set_value();
    waiting_ = nullptr;
  }

  fs::path folder_;
  std::mutex mutex_;
  std::promise<void>* waiting_ = nullptr;
};

TEST_F(AbsorberTest, ReleasesWhatIsInTheBookAndTakesTheRestWhenItStops) {
  usage::EntryList journal;
  usage::Rollup truth;
  usage::CallMix mix(1);
  mix.write(journal, "0", 40, truth);
  std::map<std::string, std::uint64_t> released;
  int made_durable = 0;
  Absorber absorber(
      {.book = path("usage.sqlite"),
       .interval = kNever,
       .release = [&](const std::string& stream, std::uint64_t below) { released[stream] = below; },
       .make_durable = [&]() -> Result<void> { return ++made_durable, Result<void>(); },
       .on_turn = [&] { turned(); }},
      journal);
  absorber.start();
  turn(absorber);
  EXPECT_EQ(released.at("0"), journal.streams()->front().last + 1);
  EXPECT_EQ(made_durable, 1);
  EXPECT_EQ(absorber.status().entries, journal.streams()->front().last);
  EXPECT_EQ(absorber.status().trouble, "");

  mix.write(journal, "0", 40, truth);
  absorber.stop();
  EXPECT_EQ(released.at("0"), journal.streams()->front().last + 1);
  EXPECT_EQ(*(*Book::open(path("usage.sqlite")))->rows(0, 1'000'000), truth);
}

TEST_F(AbsorberTest, TroubleIsReportedOnceReleasesNothingNewAndHealsByItself) {
  usage::EntryList journal;
  usage::Rollup truth;
  usage::CallMix mix(2);
  mix.write(journal, "0", 40, truth);
  journal.damage("0", 11);
  std::vector<std::string> log;
  std::map<std::string, std::uint64_t> released;
  Absorber absorber(
      {.book = path("usage.sqlite"),
       .interval = kNever,
       .release = [&](const std::string& stream, std::uint64_t below) { released[stream] = below; },
       .log = [&](std::string_view level,
                  std::string_view text) { log.push_back(std::string(level) + " " + std::string(text)); },
       .on_turn = [&] { turned(); }},
      journal);
  absorber.start();
  turn(absorber);
  turn(absorber);
  EXPECT_EQ(released.at("0"), 11u);
  EXPECT_THAT(
      log, ElementsAre(HasSubstr("error usage: the journal is not absorbed: 0-0000000001.log, offset 4711")));
  EXPECT_EQ(absorber.status().failures, 2u);
  EXPECT_THAT(absorber.status().trouble, HasSubstr("checksum differs"));
  journal.mend();
  turn(absorber);
  EXPECT_EQ(log.size(), 2u);
  EXPECT_EQ(absorber.status().trouble, "");
  EXPECT_EQ(released.at("0"), journal.streams()->front().last + 1);
  absorber.stop();
}

TEST_F(AbsorberTest, ABookThatCannotBeOpenedIsTriedAgain) {
  usage::EntryList journal;
  usage::Rollup truth;
  usage::CallMix(3).write(journal, "0", 10, truth);
  Absorber absorber({.book = path("later/usage.sqlite"), .interval = kNever, .on_turn = [&] { turned(); }},
                    journal);
  absorber.start();
  turn(absorber);
  EXPECT_THAT(absorber.status().trouble, HasSubstr("later/usage.sqlite"));
  fs::create_directories(folder_ / "later");
  turn(absorber);
  EXPECT_EQ(absorber.status().trouble, "");
  absorber.stop();
  EXPECT_EQ(*(*Book::open(path("later/usage.sqlite")))->rows(0, 1'000'000), truth);
}

}  // namespace
}  // namespace tollgate::billing
