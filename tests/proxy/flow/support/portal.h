// A small portal for the tests of the flow room: the built-in licence rules, one HS256 issuer, a ledger in memory.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "metering/quota/memory_ledger.h"
#include "proxy/flow/gate.h"

namespace tollgate::flow::test {

inline constexpr std::string_view kSecret = "0123456789abcdef0123456789abcdef";
inline constexpr std::int64_t kNow = 1'795'000'000;  // seconds since 1970

struct TokenSpec {
  std::string user = "ann";
  std::string type = "portal";
  std::vector<std::string> licenses = {"Creatio customer portal cloud"};
  std::string account = {};
  std::int64_t expires = kNow + 3'600;
  std::string secret = std::string(kSecret);
};
std::string token(const TokenSpec& spec = {});

config::Settings settings();  // one upstream, one metered route "/", one daily quota of 3 per user
std::shared_ptr<const Snapshot> snapshot(const config::Settings& settings, std::uint64_t generation = 1);

// A request head whose bytes live in the object.
class Request {
 public:
  Request(std::string_view method, std::string_view target,
          std::vector<std::pair<std::string, std::string>> fields = {}, std::string body = {});
  const http::RequestHead& head() const { return head_; }
  const std::string& body() const { return body_; }

 private:
  std::string text_, body_;
  http::RequestHead head_;
};
Request with_token(std::string_view method, std::string_view target, const std::string& token,
                   std::string body = {}, std::vector<std::pair<std::string, std::string>> more = {});

// Runs a request through the gate and the ledger until the gate says forward or reply.
struct Outcome {
  Next next;
  Call call;
};
class Portal {
 public:
  explicit Portal(config::Settings s = settings());
  Outcome send(const Request& request);
  const Snapshot& current() const { return *snapshot_; }
  void reload(config::Settings s) { snapshot_ = snapshot(s, ++generation_); }

  Milliseconds store_time{kNow * 1'000};
  UnixTime now = from_unix_seconds(kNow);
  bool no_anonymous = false;
  quota::MemoryLedger ledger{[this] { return store_time; }};
  // What the store of seats answers; asked for each seat that a call needs.
  std::function<seats::Outcome(const seats::Pool&, const identity::Principal&)> seats;
  SeatLooks looks;  // of the usage page
  // What the CRM says of a record's owner, where a call waits for that; nullopt: nothing.
  std::function<std::optional<std::string>(const std::string& record)> owners;
  std::vector<std::string> asked;  // records
  Gate gate{100, 1};

 private:
  std::uint64_t generation_ = 1;
  std::shared_ptr<const Snapshot> snapshot_;
};

}  // namespace tollgate::flow::test
