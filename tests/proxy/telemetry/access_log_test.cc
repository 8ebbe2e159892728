#include "proxy/telemetry/access_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

namespace tollgate::telemetry {
namespace {

using testing::HasSubstr;

class AccessLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::signal(SIGPIPE, SIG_IGN);
    char name[] = "/tmp/access_log_test.XXXXXX";
    folder_ = mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  static std::vector<std::string> lines(const std::string& path) {
    std::ifstream in(path);
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
  }
  // A named pipe with the smallest buffer that Linux has, and its end to read from.
  int unread_pipe(const std::string& path) {
    EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
    const int reader = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    EXPECT_GE(reader, 0);
    ::fcntl(reader, F_SETPIPE_SZ, 4096);
    return reader;
  }

  std::string folder_, told_;
  AccessLog::Log log_ = [this](std::string_view, std::string_view text) { told_ += text; };
};

usage::Fact fact() {
  usage::Fact out;
  out.time = UnixTime(Milliseconds(1'795'000'000'123));
  out.request_id = "request-0001";
  out.user = "ann\"\n";
  out.method = "GET";
  out.path = "/0/odata/Case";
  out.status = 200;
  out.total = std::chrono::microseconds(1500);
  out.upstream = std::chrono::microseconds(1000);
  return out;
}

TEST(AccessLine, IsOneJsonObjectWithTimesInSeconds) {
  const usage::CountedOperation operation{
      .object = "Case", .operation = "read", .section = "cases", .product = "customer"};
  usage::Fact one = fact();
  one.operations = {&operation, 1};
  one.units = 1;
  std::string line;
  append_access_line(line, one);
  EXPECT_THAT(line, testing::StartsWith(R"({"time":"2026-11-18T11:06:40.123Z","request_id":"request-0001")"));
  EXPECT_THAT(line, HasSubstr(R"("user":"ann\"\n")"));
  EXPECT_THAT(
      line,
      HasSubstr(
          R"("objects":[{"object":"Case","operation":"read","section":"cases","product":"customer"}],"units":1,"reason":"ok")"));
  EXPECT_THAT(line, HasSubstr(R"("seconds":0.0015,"own_seconds":0.0005,"upstream_seconds":0.001)"));
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
}

TEST(AccessLine, BytesFromClientsCannotBreakTheLine) {
  usage::Fact one = fact();
  const std::string path = std::string("/0/odata/Case\n{\"reason\":\"ok\"}\x01\xff\0end", 35);
  one.path = path;
  one.user = "\xC3\xA4nn\r\n";
  std::string line;
  append_access_line(line, one);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_EQ(line.find('\r'), std::string::npos);
  EXPECT_THAT(line, HasSubstr(R"("path":"/0/odata/Case\n{\"reason\":\"ok\"}\u0001\ufffd\u0000end")"));
}

TEST(AccessLine, DeniedCallSaysWhatWasTouchedAndCostsNothing) {
  const usage::CountedOperation operation{
      .object = "Case", .operation = "delete", .section = "cases", .product = ""};
  usage::Fact one = fact();
  one.operations = {&operation, 1};
  one.reason = Reason::operation_not_licensed;
  one.status = 403;
  one.upstream = Duration(0);
  std::string line;
  append_access_line(line, one);
  EXPECT_THAT(
      line,
      HasSubstr(
          R"("objects":[{"object":"Case","operation":"delete","section":"cases"}],"units":0,"reason":"operation_not_licensed")"));
  EXPECT_THAT(line, HasSubstr(R"("status":403)"));
  EXPECT_THAT(line, HasSubstr(R"("own_seconds":0.0015,"upstream_seconds":0)"));
}

TEST(AccessLine, NamesCandidateLimitsThatWouldHaveRefused) {
  usage::Fact one = fact();
  std::string line;
  append_access_line(line, one);
  EXPECT_EQ(line.find("shadow"), std::string::npos);
  const std::string_view names[] = {"next", "burst"};
  one.shadow_violated = names;
  append_access_line(line, one);
  EXPECT_THAT(line, HasSubstr(R"("reason":"ok","shadow_violated":["next","burst"],"status":200)"));
}

TEST_F(AccessLogTest, BeyondTheBufferLinesAreDroppedAndCounted) {
  // A pipe that nobody reads: the writer is stuck, the worker is not.
  const std::string pipe = path("pipe");
  const int reader = unread_pipe(pipe);
  auto log = AccessLog::open(pipe, log_);
  ASSERT_TRUE(log) << log.error().message;
  auto sink = (*log)->worker_sink();
  const std::string long_path(4'000, 'p');
  usage::Fact one = fact();
  one.path = long_path;
  // The writer holds at most one batch and the pipe 4 KiB, so two buffers' worth must overflow.
  for (std::size_t sent = 0; sent < 3 * AccessLog::kBufferMax; sent += long_path.size()) sink->record(one);
  EXPECT_GT((*log)->dropped_lines(), 0U);
  ::close(reader);  // a broken pipe ends the stuck write; SIGPIPE is ignored as in the program
  log->reset();
}

TEST_F(AccessLogTest, EndsThoughNobodyReadsAndTellsHowManyLinesAreGivenUp) {
  const int reader = unread_pipe(path("pipe"));
  auto log = AccessLog::open(path("pipe"), log_);
  ASSERT_TRUE(log) << log.error().message;
  auto sink = (*log)->worker_sink();
  constexpr std::ptrdiff_t kLines = 1'000;
  for (std::ptrdiff_t i = 0; i < kLines; ++i) sink->record(fact());
  ASSERT_TRUE((*log)->reopen());  // nor does a reopening wait for ever
  log->reset();
  char text[8192];
  const ssize_t size = ::read(reader, text, sizeof text);
  ASSERT_GT(size, 0);
  const std::ptrdiff_t read = std::count(text, text + size, '\n');
  EXPECT_EQ(text[size - 1], '\n') << "half a line was written";
  EXPECT_EQ(told_, "access log: the last " + std::to_string(kLines - read) +
                       " lines are given up, nobody read them");
  ::close(reader);
}

TEST_F(AccessLogTest, SlowReaderGetsEveryLine) {
  const int reader = unread_pipe(path("pipe"));
  auto log = AccessLog::open(path("pipe"), log_);
  ASSERT_TRUE(log) << log.error().message;
  auto sink = (*log)->worker_sink();
  constexpr std::ptrdiff_t kLines = 2'000;
  for (std::ptrdiff_t i = 0; i < kLines; ++i) sink->record(fact());
  std::ptrdiff_t read = 0;
  for (char text[100]; read < kLines;)
    if (const ssize_t size = ::read(reader, text, sizeof text); size > 0)
      read += std::count(text, text + size, '\n');
  log->reset();
  EXPECT_EQ(told_, "");
  ::close(reader);
}

TEST_F(AccessLogTest, NamedPipeThatNobodyReadsIsAnErrorAndNothingToWaitFor) {
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  auto log = AccessLog::open(path("pipe"), log_);
  ASSERT_FALSE(log);
  EXPECT_THAT(log.error().message, HasSubstr("pipe for writing: No such device or address"));
}

TEST_F(AccessLogTest, EveryLineOfEveryWorkerIsWritten) {
  auto log = AccessLog::open(path("access.log"), log_);
  ASSERT_TRUE(log) << log.error().message;
  std::vector<std::thread> workers;
  for (int worker = 0; worker < 3; ++worker)
    workers.emplace_back([sink = (*log)->worker_sink()] {
      for (int i = 0; i < 5'000; ++i) sink->record(fact());
    });
  for (auto& worker : workers) worker.join();
  (*log)->flush();
  EXPECT_EQ(lines(path("access.log")).size(), 15'000U);
  EXPECT_EQ((*log)->dropped_lines(), 0U);
}

TEST_F(AccessLogTest, ReopenWritesToTheNewFileAndLosesNothing) {
  auto log = AccessLog::open(path("access.log"), log_);
  ASSERT_TRUE(log);
  auto sink = (*log)->worker_sink();
  sink->record(fact());
  std::filesystem::rename(path("access.log"), path("access.log.1"));
  ASSERT_TRUE((*log)->reopen());
  sink->record(fact());
  sink->record(fact());
  log->reset();
  EXPECT_EQ(lines(path("access.log.1")).size(), 1U);
  EXPECT_EQ(lines(path("access.log")).size(), 2U);
}

TEST_F(AccessLogTest, PathThatCannotBeOpenedIsAnErrorThatNamesIt) {
  auto log = AccessLog::open(path("missing/access.log"), log_);
  ASSERT_FALSE(log);
  EXPECT_THAT(log.error().message, HasSubstr("missing/access.log"));
}

TEST_F(AccessLogTest, DiskFullIsCountedAndNothingStops) {
  auto log = AccessLog::open("/dev/full", log_);
  ASSERT_TRUE(log);
  auto sink = (*log)->worker_sink();
  sink->record(fact());
  (*log)->flush();
  EXPECT_GE((*log)->write_errors(), 1U);
}

}  // namespace
}  // namespace tollgate::telemetry
