#include "proxy/telemetry/output.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>

namespace tollgate::telemetry {
namespace {

class OutputTest : public testing::Test {
 protected:
  void SetUp() override {
    std::signal(SIGPIPE, SIG_IGN);
    ASSERT_EQ(::pipe2(ends_, O_CLOEXEC), 0);
    own_ = open_output(ends_[1]);
    ASSERT_GE(own_, 0);
  }
  void TearDown() override {
    for (const int fd : {ends_[0], ends_[1], own_}) ::close(fd);
  }
  int ends_[2] = {-1, -1};
  int own_ = -1;
};

// Between poll() and write() another writer may fill the pipe.
TEST_F(OutputTest, PipeIsOpenedAnewWithoutBlockingAndTheInheritedOneStaysAsItIs) {
  EXPECT_NE(::fcntl(own_, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(ends_[1], F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(own_, F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(OutputTest, AWriteTakesWholeLinesAndOfALongerOneWhatAPipeTakesAtOnce) {
  EXPECT_EQ(write_within(own_, "one\ntwo\nthr", Milliseconds(0)), 11);
  const std::string longer(PIPE_BUF, 'x');
  EXPECT_EQ(write_within(own_, "one\n" + longer, Milliseconds(0)), 4);
  EXPECT_EQ(write_within(own_, longer + longer, Milliseconds(0)), PIPE_BUF);
}

TEST_F(OutputTest, FullPipeTakesNothingUntilItIsRead) {
  const std::string block(PIPE_BUF, 'x');
  while (write_within(own_, block, Milliseconds(0)) > 0) continue;
  EXPECT_EQ(write_within(own_, "x", Milliseconds(1)), 0);
  char some[PIPE_BUF];
  ASSERT_EQ(::read(ends_[0], some, sizeof some), PIPE_BUF);
  EXPECT_EQ(write_within(own_, block, Milliseconds(0)), PIPE_BUF);
}

TEST_F(OutputTest, ReaderThatIsGoneIsAnError) {
  ::close(ends_[0]);
  EXPECT_EQ(write_within(own_, "x", Milliseconds(0)), -1);
  EXPECT_EQ(errno, EPIPE);
}

}  // namespace
}  // namespace tollgate::telemetry
