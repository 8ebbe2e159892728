#include "metering/redis/probe.h"

#include <event2/event.h>
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <optional>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/redis/scripts.h"

namespace tollgate::redis {
namespace {

using Level = Finding::Level;

constexpr int kPings = 5;

// A Connection used from straight-line code: each step runs a loop of its own until it is answered.
class BlockingStore {
 public:
  BlockingStore(ConnectionOptions options, Milliseconds timeout)
      : deadline_(Connection::now() + timeout), base_(event_base_new()) {
    CHECK(base_ != nullptr, "event_base_new");
    options.connect_timeout = std::min(options.connect_timeout, timeout);
    connection_ = std::make_unique<Connection>(base_, std::move(options));
  }
  ~BlockingStore() {
    connection_.reset();
    event_base_free(base_);
  }
  BlockingStore(const BlockingStore&) = delete;
  BlockingStore& operator=(const BlockingStore&) = delete;

  Result<Reply> call(std::initializer_list<std::string_view> words) {
    Milliseconds left = std::chrono::duration_cast<Milliseconds>(deadline_ - Connection::now());
    if (left <= Milliseconds::zero()) return fail(Origin::store, "the store did not answer in time", true);
    connection_->start();
    std::optional<Result<Reply>> answer;
    connection_->send(words, left, [&](Result<Reply*> reply) {
      if (reply)
        answer.emplace(std::move(**reply));
      else
        answer.emplace(std::unexpected(reply.error()));
      event_base_loopbreak(base_);
    });
    // The answer may have come before the loop ran; every command ends by its own deadline.
    while (!answer) event_base_loop(base_, EVLOOP_ONCE);
    return std::move(*answer);
  }

 private:
  MonotonicTime deadline_;
  event_base* base_;
  std::unique_ptr<Connection> connection_;
};

// "name:value" lines of INFO.
std::map<std::string, std::string, std::less<>> parse_info(std::string_view text) {
  std::map<std::string, std::string, std::less<>> values;
  while (!text.empty()) {
    std::size_t end = std::min(text.find('\n'), text.size() - 1);
    std::string_view line = trim(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
    while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
    std::size_t colon = line.find(':');
    if (colon != std::string_view::npos) values.emplace(line.substr(0, colon), line.substr(colon + 1));
  }
  return values;
}

class Examination {
 public:
  Examination(BlockingStore& store, const ProbeOptions& options, ProbeReport& report)
      : store_(store), options_(options), report_(report) {}

  void run() {
    if (!connect()) return;
    time_pings();
    compare_clocks();
    read_info();
    check_scripts();
    check_setting("maxmemory-policy", "eviction", "noeviction", Level::problem,
                  "set maxmemory-policy noeviction: an evicted record is a quota handed out twice");
    check_setting("appendonly", "persistence", "yes", Level::warning,
                  "set appendonly yes and appendfsync everysec: without it a restart of the store forgets "
                  "what was used");
    check_encoding();
  }

 private:
  void add(Level level, std::string subject, std::string text, std::string advice = "") {
    report_.findings.push_back({level, std::move(subject), std::move(text), std::move(advice)});
  }

  bool connect() {
    auto reply = store_.call({"PING"});
    if (!reply) {
      add(Level::problem, "connect", reply.error().message,
          "check store.url, the network between the two, user and password");
      return false;
    }
    report_.reachable = true;
    add(Level::ok, "connect", "the store can be reached");
    return true;
  }

  void time_pings() {
    std::vector<Duration> times;
    for (int i = 0; i < kPings; ++i) {
      MonotonicTime sent = Connection::now();
      if (!store_.call({"PING"})) break;
      times.push_back(Connection::now() - sent);
    }
    if (times.empty())
      return add(Level::problem, "round_trip", "no PING was answered", "see the store's own log");
    std::ranges::sort(times);
    report_.round_trip = times[times.size() / 2];
    double ms = std::chrono::duration<double, std::milli>(report_.round_trip).count();
    bool slow = ms > 5;
    add(slow ? Level::warning : Level::ok, "round_trip", fmt::format("a round trip takes {:.2f} ms", ms),
        slow ? "every first call of a user waits for it: place the store nearer to the proxies" : "");
  }

  void compare_clocks() {
    if (!options_.now) return;
    UnixTime before = options_.now();
    auto reply = store_.call({"TIME"});
    UnixTime after = options_.now();
    if (!reply || reply->type != Reply::Type::array || reply->elements.size() != 2)
      return add(Level::warning, "clock", "the store did not tell its time",
                 "the user of the store needs the right to run TIME");
    auto seconds = parse_decimal(reply->elements[0].text), us = parse_decimal(reply->elements[1].text);
    if (!seconds || !us) return add(Level::warning, "clock", "the store's TIME is not a number", "");
    UnixTime theirs(Seconds(*seconds) + std::chrono::microseconds(*us));
    report_.clock_offset = std::chrono::duration_cast<Milliseconds>(theirs - (before + (after - before) / 2));
    bool apart = std::chrono::abs(report_.clock_offset) > options_.clock_guard;
    add(apart ? Level::warning : Level::ok, "clock",
        fmt::format("the store's clock is {} ms from this machine's", report_.clock_offset.count()),
        apart ? "run NTP on both machines; windows follow the store's clock, token lifetimes follow this one"
              : "");
  }

  void read_info() {
    auto reply = store_.call({"INFO", "server"});
    auto server = reply && !reply->is_error() ? parse_info(reply->text)
                                              : std::map<std::string, std::string, std::less<>>();
    std::string version =
        server.contains("valkey_version") ? server["valkey_version"] : server["redis_version"];
    if (version.empty()) {
      add(Level::warning, "version", "the store does not tell its version",
          "the user of the store needs the right to run INFO");
    } else {
      report_.server = (server.contains("valkey_version") ? "Valkey " : "Redis ") + version;
      auto major = parse_decimal(std::string_view(version).substr(0, version.find('.')));
      bool old = !major || *major < 6;
      add(old ? Level::problem : Level::ok, "version", report_.server,
          old ? "Redis 6 or later is needed, 7 is recommended" : "");
    }
    auto role_reply = store_.call({"INFO", "replication"});
    auto replication = role_reply && !role_reply->is_error()
                           ? parse_info(role_reply->text)
                           : std::map<std::string, std::string, std::less<>>();
    std::string role = replication["role"];
    if (role.empty()) return;
    bool primary = role == "master";
    add(primary ? Level::ok : Level::problem, "role",
        primary ? "the store is a primary" : "the store is a replica and takes no writes",
        primary ? "" : "give the address of the primary");
  }

  void check_scripts() {
    Script script("return redis.call('TIME')");
    auto reply = store_.call({"EVAL", script.text, "0"});
    bool works = reply && !reply->is_error();
    add(works ? Level::ok : Level::problem, "scripts",
        works ? "scripts run" : "scripts do not run: " + (reply ? reply->text : reply.error().message),
        works ? ""
              : "the user of the store needs +evalsha +eval +script|load, the hash commands, pttl, pexpire "
                "and time on keys q:* h:* o:*");
  }

  // nullopt: CONFIG GET is forbidden (managed services) or the setting is unknown there.
  std::optional<std::string> setting(std::string_view name) {
    auto reply = store_.call({"CONFIG", "GET", name});
    if (!reply || reply->type != Reply::Type::array || reply->elements.size() < 2) return std::nullopt;
    return reply->elements[1].text;
  }

  void check_setting(std::string_view name, std::string subject, std::string_view wanted, Level level,
                     std::string advice) {
    auto value = setting(name);
    if (!value) {
      add(Level::warning, std::move(subject), fmt::format("{} cannot be read", name),
          fmt::format("make sure that it is {}", wanted));
    } else if (*value == wanted) {
      add(Level::ok, std::move(subject), fmt::format("{} is {}", name, *value));
    } else {
      add(level, std::move(subject), fmt::format("{} is {}", name, *value), std::move(advice));
    }
  }

  void check_encoding() {
    std::string name = "hash-max-listpack-value";
    auto value = setting(name);
    if (!value) value = setting(name = "hash-max-ziplist-value");  // its name before Redis 7
    if (!value) return;
    bool small = parse_decimal(*value).value_or(0) < 2048;
    add(small ? Level::warning : Level::ok, "encoding", fmt::format("{} is {}", name, *value),
        small ? fmt::format("set {} 2048: a user's record then takes about a third less memory", name) : "");
  }

  BlockingStore& store_;
  const ProbeOptions& options_;
  ProbeReport& report_;
};

}  // namespace

bool ProbeReport::usable() const {
  return reachable &&
         std::ranges::none_of(findings, [](const Finding& f) { return f.level == Level::problem; });
}

ProbeReport probe(ConnectionOptions connection, const ProbeOptions& options) {
  ProbeReport report;
  BlockingStore store(std::move(connection), options.timeout);
  Examination(store, options, report).run();
  return report;
}

}  // namespace tollgate::redis
