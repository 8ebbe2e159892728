#include "proxy/telemetry/program_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <spdlog/logger.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <sstream>
#include <thread>

namespace tollgate::telemetry {
namespace {

class ProgramLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::signal(SIGPIPE, SIG_IGN);
    ASSERT_EQ(::pipe2(ends_, O_CLOEXEC), 0);
    ::fcntl(ends_[1], F_SETPIPE_SZ, 4096);
    open();
  }
  void TearDown() override {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }

  // A log into ends_[1].
  void open() {
    ::fcntl(ends_[0], F_SETFL, O_NONBLOCK);
    log_ = std::make_shared<ProgramLog>(ends_[1]);
    logger_ = std::make_unique<spdlog::logger>("test", log_);
    logger_->set_pattern("%l %v");
  }
  void replace(const int (&ends)[2]) {
    TearDown();
    std::copy(std::begin(ends), std::end(ends), ends_);
    open();
  }
  // Lines "info 0", "info 1", ... until one is lost. Result: their number, the lost one included.
  int fill() {
    int lines = 0;
    while (log_->lost_lines() == 0 && lines < 1'000'000) logger_->info("{}", lines++);
    return lines;
  }
  std::string read() const {
    std::string all;
    char part[4096];
    for (ssize_t size; (size = ::read(ends_[0], part, sizeof part)) > 0;)
      all.append(part, static_cast<std::size_t>(size));
    return all;
  }
  void expect_lines_and_then_news_of_the_lost() {
    const int lines = fill();
    logger_->info("lost");
    logger_->info("lost");
    std::string expected;
    for (int i = 0; i + 1 < lines; ++i) expected += fmt::format("info {}\n", i);
    EXPECT_EQ(read(), expected);
    logger_->info("more");
    logger_->info("and more");
    EXPECT_EQ(read(),
              "warning 3 lines of this log are lost: nobody read them\n"
              "info more\n"
              "info and more\n");
    EXPECT_EQ(log_->lost_lines(), 3U);
  }

  int ends_[2] = {-1, -1};
  std::shared_ptr<ProgramLog> log_;
  std::unique_ptr<spdlog::logger> logger_;
};

TEST_F(ProgramLogTest, PipeThatNobodyReadsLosesLinesAndSaysHowManyWhenReadAgain) {
  expect_lines_and_then_news_of_the_lost();
}

TEST_F(ProgramLogTest, SocketThatNobodyReadsDoesTheSame) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const int size = 4608;
  ASSERT_EQ(::setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
  replace(ends);
  expect_lines_and_then_news_of_the_lost();
}

TEST_F(ProgramLogTest, LineThatIsCutEndsThere) {
  const std::string longer(10'000, 'x');
  logger_->info("{}", longer);
  EXPECT_EQ(log_->lost_lines(), 1U);
  const std::string half = read();
  EXPECT_EQ(half, ("info " + longer).substr(0, half.size()));
  EXPECT_LT(half.size(), longer.size());
  logger_->info("next");
  EXPECT_EQ(read(), "\nwarning 1 line of this log is lost: nobody read it\ninfo next\n");
}

TEST_F(ProgramLogTest, LinesOfThreadsStayWhole) {
  const std::string text(300, 'y');
  std::vector<std::jthread> threads;
  std::atomic<int> writing = 4;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 2'000; ++n) logger_->info("{}", text);
      --writing;
    });
  std::string all;
  while (writing > 0) all += read();
  threads.clear();
  all += read();
  std::uint64_t whole = 0;
  std::istringstream lines(all);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("warning")) continue;
    ASSERT_EQ(line, "info " + text);
    ++whole;
  }
  EXPECT_EQ(whole + log_->lost_lines(), 8'000U);
}

TEST_F(ProgramLogTest, ReaderThatIsGoneIsNoSignalAndItsLinesAreCounted) {
  ::close(ends_[0]);
  logger_->info("to nobody");
  logger_->info("to nobody");
  EXPECT_EQ(log_->lost_lines(), 2U);
}

TEST_F(ProgramLogTest, FileGetsEveryLineAtItsEnd) {
  char name[] = "/tmp/program_log_test.XXXXXX";
  const int file = ::mkstemp(name);
  ASSERT_EQ(::write(file, "before\n", 7), 7);
  replace({::open(name, O_RDONLY | O_CLOEXEC), file});
  const std::string longer(10'000, 'x');
  logger_->info("{}", longer);
  logger_->info("next");
  EXPECT_EQ(read(), "before\ninfo " + longer + "\ninfo next\n");
  EXPECT_EQ(log_->lost_lines(), 0U);
  ::unlink(name);
}

}  // namespace
}  // namespace tollgate::telemetry
