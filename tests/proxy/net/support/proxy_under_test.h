// A data plane with one worker (or more) on free ports, its facts collected, its quotas in memory.
#pragma once
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "metering/quota/memory_ledger.h"
#include "proxy/net/server.h"
#include "tests/proxy/net/support/sockets.h"

namespace tollgate::net::test {

// A usage::Fact with its own text.
struct RecordedFact {
  Reason reason = Reason::ok;
  int status = 0;
  std::uint32_t units = 0, attempts = 0;
  std::string method, path, user, client_address, request_id, upstream_server;
  std::uint64_t bytes_in = 0, bytes_out = 0;
  Duration total{0}, upstream{0};
};

class Facts {
 public:
  void add(const usage::Fact& fact);
  std::vector<RecordedFact> wait_for(
      std::size_t count);  // waits until there are that many; gives up after 10 s
  std::size_t size() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RecordedFact> facts_;
};

// One upstream "crm" with these servers; route "/" unmetered, "/0/" metered with a quota of `limit` a user.
config::Settings settings(std::vector<std::string> servers);
std::shared_ptr<const flow::Snapshot> snapshot(const config::Settings& settings,
                                               std::uint64_t generation = 1);
std::string token(const std::string& user);  // of a portal user with a licence

class Proxy {
 public:
  // inherited: of another one; nothing is accepted before server->begin_accepting().
  explicit Proxy(const config::Settings& settings, unsigned workers = 1, Sockets inherited = {});
  ~Proxy();
  Peer connect(int receive_buffer = 0) { return Peer::connect(server->ports().at(0), receive_buffer); }
  // One request on a connection of its own.
  Message ask(const std::string& request, bool head_reply = false);
  Result<void> reload(const config::Settings& settings);
  // Units counted for a user's daily quota.
  std::uint64_t used(const std::string& user);

  Facts facts;
  std::vector<std::string> log;  // not synchronised: read after the server has stopped
  std::mutex log_mutex;
  std::unique_ptr<Server> server;

 private:
  std::uint64_t generation_ = 1;
};

inline std::string get(const std::string& path, const std::string& more = "") {
  return "GET " + path + " HTTP/1.1\r\nHost: crm.example\r\n" + more + "\r\n";
}
inline std::string post(const std::string& path, const std::string& body, const std::string& more = "") {
  return "POST " + path + " HTTP/1.1\r\nHost: crm.example\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n" + more + "\r\n" + body;
}

}  // namespace tollgate::net::test
