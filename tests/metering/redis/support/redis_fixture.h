// Real redis-server children for tests: each in a directory of its own, on a unix socket (and a free TCP or
// TLS port on request), ended and removed with the object. And a loop to run until something is true, with a
// deadline.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/time.h"
#include "metering/quota/ledger.h"
#include "metering/redis/connection.h"

struct event_base;

namespace tollgate::redis::testing {

class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  std::string path(std::string_view name = "") const;

 private:
  std::string path_;
};

// A loopback port that was free a moment ago.
std::uint16_t free_port();

// Runs a program to its end; its exit code.
int run_program(const std::vector<std::string>& words);

class Server {
 public:
  // `settings`: further lines of redis.conf; {port} and {bus} in them become free TCP ports, others when somebody was
  // faster. The directory can be given to start again on the same data. Sentinel: the same program as a sentinel.
  explicit Server(std::vector<std::string> settings = {}, const TemporaryDirectory* directory = nullptr,
                  bool sentinel = false);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  StoreUrl url() const;
  std::string socket_path() const { return directory_->path("redis.sock"); }
  int pid() const { return pid_; }
  std::uint16_t port() const { return port_; }  // where {port} stood
  std::uint16_t bus() const { return bus_; }
  std::string address() const;  // "127.0.0.1:port"
  void signal(int number) const;
  void kill_and_restart();  // SIGKILL, then a new process on the same directory
  void kill_now();
  void spawn();

  // A command of the test's own, over a blocking connection. CHECKs that there is a reply.
  Reply command(std::vector<std::string> words) const { return command_as("", std::move(words)); }
  Reply command_as(const std::string& password, std::vector<std::string> words) const;

 private:
  TemporaryDirectory own_;
  void write_configuration() const;
  bool try_spawn();

  const TemporaryDirectory* directory_;
  std::vector<std::string> settings_;
  bool sentinel_;
  std::uint16_t port_ = 0, bus_ = 0;
  int pid_ = 0;
};

class Loop {
 public:
  Loop();
  ~Loop();
  event_base* base() const { return base_; }
  // False when `deadline` passed first.
  bool run_until(const std::function<bool()>& condition, Milliseconds deadline = Milliseconds(20'000));

 private:
  event_base* base_;
};

// An account of a user of the tenant acme.
quota::AccountCharge account(std::string_view user, std::string_view field, std::uint64_t limit,
                             std::uint32_t units = 1, Milliseconds window = Milliseconds(86'400'000),
                             Milliseconds bucket = Milliseconds(60'000));

}  // namespace tollgate::redis::testing
