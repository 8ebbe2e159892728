// The private redis-server child: its life, its data, its directory.
#include "metering/redis/embedded.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "tests/metering/redis/support/redis_fixture.h"

namespace tollgate::redis {
namespace {

using testing::Loop;
using testing::TemporaryDirectory;
using namespace std::chrono_literals;

bool process_lives(int pid) {
  return ::kill(pid, 0) == 0;
}

bool wait_for(const std::function<bool()>& condition, Milliseconds deadline = 20'000ms) {
  Loop loop;
  return loop.run_until(condition, deadline);
}

ConnectionOptions options_for(const EmbeddedRedis& redis) {
  return {.url = redis.url(), .connect_timeout = 5'000ms};
}

// The sum after adding `units`; 0 when the server could not be asked.
std::int64_t count(Connection& connection, Loop& loop, int units = 1) {
  std::optional<std::int64_t> sum;
  const std::string text = std::to_string(units);
  std::array<std::string_view, 3> words{"INCRBY", "count", text};
  connection.send(words, 10'000ms, [&](Result<Reply*> reply) {
    EXPECT_TRUE(reply.has_value()) << reply.error().message;
    sum = reply ? (*reply)->integer : 0;
  });
  EXPECT_TRUE(loop.run_until([&] { return sum.has_value(); }));
  return sum.value_or(0);
}

std::int64_t count(const EmbeddedRedis& redis, int units = 1) {
  Loop loop;
  Connection connection(loop.base(), options_for(redis));
  connection.start();
  return count(connection, loop, units);
}

TEST(EmbeddedRedis, StartsWithTheSettingsOfTheContractAndStopsWithItsOwner) {
  TemporaryDirectory parent;
  int pid = 0;
  {
    auto redis = EmbeddedRedis::start({.directory = parent.path("data")});
    ASSERT_TRUE(redis.has_value()) << redis.error().message;
    pid = (*redis)->pid();
    ASSERT_TRUE(process_lives(pid));
    Loop loop;
    Connection connection(loop.base(), {.url = (*redis)->url()});
    connection.start();
    std::map<std::string, std::string> expected{{"appendonly", "yes"},
                                                {"appendfsync", "everysec"},
                                                {"maxmemory-policy", "noeviction"},
                                                {"hash-max-listpack-value", "2048"},
                                                {"save", ""},
                                                {"port", "0"}};
    std::size_t answered = 0;
    for (const auto& [name, value] : expected) {
      std::array<std::string_view, 3> words{"CONFIG", "GET", name};
      connection.send(words, 5'000ms, [&, name = name, value = value](Result<Reply*> reply) {
        ASSERT_TRUE(reply.has_value());
        ASSERT_EQ((*reply)->elements.size(), 2U);
        EXPECT_EQ((*reply)->elements[1].text, value) << name;
        ++answered;
      });
    }
    EXPECT_TRUE(loop.run_until([&] { return answered == expected.size(); }));
    struct stat status{};
    ASSERT_EQ(::stat(parent.path("data").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700U);
  }
  EXPECT_FALSE(process_lives(pid));
}

TEST(EmbeddedRedis, CountsSurviveAnOrderlyRestart) {
  TemporaryDirectory parent;
  for (std::int64_t expected : {1, 2, 3}) {
    auto redis = EmbeddedRedis::start({.directory = parent.path("data")});
    ASSERT_TRUE(redis.has_value()) << redis.error().message;
    EXPECT_EQ(count(**redis), expected);
  }
}

TEST(EmbeddedRedis, KilledChildIsStartedAgainWithItsData) {
  TemporaryDirectory parent;
  std::mutex mutex;
  std::vector<std::string> events;
  auto started =
      EmbeddedRedis::start({.directory = parent.path("data"), .on_event = [&](const std::string& event) {
                              std::lock_guard lock(mutex);
                              events.push_back(event);
                            }});
  ASSERT_TRUE(started.has_value()) << started.error().message;
  auto redis = std::move(*started);
  Loop loop;
  Connection connection(loop.base(), options_for(*redis));
  connection.start();
  ASSERT_EQ(count(connection, loop, 4), 4);
  int first = redis->pid();
  // Redis hands the append-only file to the kernel before it answers; only a dead machine could lose it.
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  ASSERT_TRUE(loop.run_until([&] { return redis->restarts() == 1 && connection.connects() == 2; }));
  EXPECT_NE(redis->pid(), first);
  EXPECT_EQ(count(connection, loop), 5);
  redis->stop();
  std::lock_guard lock(mutex);
  ASSERT_EQ(events.size(), 2U);
  EXPECT_NE(events[0].find("killed by signal 9"), std::string::npos) << events[0];
  EXPECT_NE(events[1].find("runs again"), std::string::npos) << events[1];
}

TEST(EmbeddedRedis, SecondOwnerOfADirectoryIsRefusedAndToldWhoHoldsIt) {
  TemporaryDirectory parent;
  auto first = EmbeddedRedis::start({.directory = parent.path("data")});
  ASSERT_TRUE(first.has_value()) << first.error().message;
  auto second = EmbeddedRedis::start({.directory = parent.path("data")});
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().message.find(std::to_string(::getpid())), std::string::npos)
      << second.error().message;
  EXPECT_TRUE(process_lives((*first)->pid()));
  (*first)->stop();
  EXPECT_TRUE(EmbeddedRedis::start({.directory = parent.path("data")}).has_value());
}

TEST(EmbeddedRedis, MissingProgramIsNamedWithTheCure) {
  TemporaryDirectory parent;
  auto redis =
      EmbeddedRedis::start({.directory = parent.path("data"), .redis_server = "no-such-redis-server"});
  ASSERT_FALSE(redis.has_value());
  EXPECT_NE(redis.error().message.find("no-such-redis-server is missing"), std::string::npos)
      << redis.error().message;
  EXPECT_EQ(redis.error().origin, Origin::config);
}

TEST(EmbeddedRedis, ProgramThatEndsAtOnceIsAnErrorAndNotATimeout) {
  TemporaryDirectory parent;
  auto redis = EmbeddedRedis::start({.directory = parent.path("data"), .redis_server = "false"});
  ASSERT_FALSE(redis.has_value());
  EXPECT_NE(redis.error().message.find("exit code 1"), std::string::npos) << redis.error().message;
}

TEST(EmbeddedRedis, DirectoryThatCannotBeMadeIsNamed) {
  TemporaryDirectory parent;
  auto missing_parent = EmbeddedRedis::start({.directory = parent.path("no/data")});
  ASSERT_FALSE(missing_parent.has_value());
  EXPECT_NE(missing_parent.error().message.find("no/data"), std::string::npos);
  std::ofstream(parent.path("file")) << "x";
  EXPECT_FALSE(EmbeddedRedis::start({.directory = parent.path("file")}).has_value());
}

TEST(EmbeddedRedis, PathTooLongForASocketWorksAllTheSame) {
  TemporaryDirectory parent;
  std::string deep = parent.path(std::string(60, 'd'));
  std::filesystem::create_directory(deep);
  deep += "/" + std::string(60, 'e');
  auto redis = EmbeddedRedis::start({.directory = deep});
  ASSERT_TRUE(redis.has_value()) << redis.error().message;
  EXPECT_LT((*redis)->socket_path().size(), 108U);
  EXPECT_EQ(count(**redis), 1);
}

// A server of this directory whose Tollgate is gone.
int start_orphan(const std::string& directory) {
  pid_t pid = ::fork();
  if (pid == 0) {
    if (::chdir(directory.c_str()) != 0) ::_exit(126);
    ::execlp("redis-server", "redis-server", "redis.conf", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  return pid;
}

TEST(EmbeddedRedis, OrphanInTheDirectoryIsEndedAndItsDataTakenOver) {
  TemporaryDirectory parent;
  std::string directory = parent.path("data");
  {
    auto redis = EmbeddedRedis::start({.directory = directory});
    ASSERT_TRUE(redis.has_value()) << redis.error().message;
    ASSERT_EQ(count(**redis, 6), 6);
  }
  int orphan = start_orphan(directory);
  ASSERT_TRUE(wait_for([&] {
    return std::filesystem::exists(directory + "/redis.pid") &&
           std::filesystem::exists(directory + "/redis.sock");
  }));
  std::optional<Result<std::unique_ptr<EmbeddedRedis>>> redis;
  // The orphan is this test's child, so somebody must reap it for it to be gone.
  std::thread reaper([&] { ::waitpid(orphan, nullptr, 0); });
  redis.emplace(EmbeddedRedis::start({.directory = directory}));
  reaper.join();
  ASSERT_TRUE(redis->has_value()) << redis->error().message;
  EXPECT_NE((**redis)->pid(), orphan);
  EXPECT_EQ(count(***redis), 7);
}

TEST(EmbeddedRedis, ProcessThatOnlyHasTheNumberOfTheOrphanIsLeftAlone) {
  TemporaryDirectory parent, elsewhere;
  std::filesystem::create_directory(parent.path("data"));
  testing::Server stranger;  // a redis-server, but not of this directory
  std::ofstream(parent.path("data/redis.pid")) << stranger.pid() << "\n";
  auto redis = EmbeddedRedis::start({.directory = parent.path("data")});
  ASSERT_TRUE(redis.has_value()) << redis.error().message;
  EXPECT_TRUE(process_lives(stranger.pid()));
  EXPECT_EQ(stranger.command({"PING"}).text, "PONG");
}

TEST(EmbeddedRedis, ChildEndsWhenItsOwnerIsKilled) {
  TemporaryDirectory parent;
  int pipe_ends[2];
  ASSERT_EQ(::pipe2(pipe_ends, O_CLOEXEC), 0);
  pid_t owner = ::fork();
  if (owner == 0) {
    auto redis = EmbeddedRedis::start({.directory = parent.path("data")});
    int pid = redis ? (*redis)->pid() : -1;
    (void)!::write(pipe_ends[1], &pid, sizeof pid);
    ::pause();
    ::_exit(0);
  }
  int child = -1;
  ASSERT_EQ(::read(pipe_ends[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
  ASSERT_GT(child, 0);
  ASSERT_TRUE(process_lives(child));
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  // The server is now somebody else's child; a reaper may be slow, so what counts is that it no longer works.
  EXPECT_TRUE(wait_for([&] {
    std::error_code error;
    (void)std::filesystem::read_symlink("/proc/" + std::to_string(child) + "/cwd", error);
    return static_cast<bool>(error);
  }));
}

}  // namespace
}  // namespace tollgate::redis
