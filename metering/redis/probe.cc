#include "metering/redis/probe.h"

#include <event2/event.h>
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <optional>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/redis/cluster_map.h"
#include "metering/redis/scripts.h"
#include "metering/redis/sentinel.h"

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
    connection_ = std::make_unique<Connection>(base_, with_locator(base_, std::move(options)));
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
  // `cluster`: a node of one, as the URL says; `replicated`: somebody may be promoted in its place.
  Examination(BlockingStore& store, const ProbeOptions& options, ProbeReport& report, bool cluster,
              bool replicated)
      : store_(store), options_(options), report_(report), cluster_(cluster), replicated_(replicated) {}

  void run() {
    if (!connect()) return;
    time_pings();
    compare_clocks();
    read_info();
    check_scripts();
    check_setting("maxmemory-policy", "eviction", "noeviction", Level::problem,
                  "set maxmemory-policy noeviction: an evicted record is a quota handed out twice");
    check_persistence();
    check_encoding();
    check_replicas();
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
    if (role_reply && !role_reply->is_error()) replication_ = parse_info(role_reply->text);
    if (!server.empty() && (server["redis_mode"] == "cluster") != cluster_)
      add(Level::problem, "cluster",
          cluster_ ? "the server is no node of a cluster" : "the server is a node of a cluster",
          cluster_ ? "write its address as redis://" : "write its address as redis+cluster://");
    std::string role = replication_["role"];
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

  void check_persistence() {
    auto appends = setting("appendonly"), syncs = setting("appendfsync");
    if (!appends || !syncs)
      return add(Level::warning, "persistence", "appendonly and appendfsync cannot be read",
                 "make sure that they are yes and everysec (or always)");
    bool kept = *appends == "yes" && *syncs != "no";
    add(kept ? Level::ok : Level::warning, "persistence",
        fmt::format("appendonly is {}, appendfsync is {}", *appends, *syncs),
        kept ? ""
             : "set appendonly yes and appendfsync everysec: without it a restart of the store forgets what "
               "was used "
               "and every proxy has to replay it");
  }

  void check_replicas() {
    if (replication_["role"] != "master") return;
    std::uint64_t connected = parse_decimal(replication_["connected_slaves"]).value_or(0);
    if (options_.min_replicas > 0 && connected < options_.min_replicas)
      add(Level::problem, "replicas",
          fmt::format("{} replicas are connected, {} must confirm each grant", connected,
                      options_.min_replicas),
          "start the replicas, or choose durability replay");
    if (connected == 0 && !replicated_) return;
    std::uint64_t to_write = parse_decimal(setting("min-replicas-to-write").value_or("")).value_or(0);
    std::uint64_t max_lag = parse_decimal(setting("min-replicas-max-lag").value_or("")).value_or(0);
    bool guarded = to_write > 0 && max_lag > 0 && max_lag <= 10;
    add(guarded ? Level::ok : Level::warning, "replicas",
        fmt::format("{} replicas; min-replicas-to-write is {}, min-replicas-max-lag {} s", connected,
                    to_write, max_lag),
        guarded ? ""
                : "set min-replicas-to-write 1 and min-replicas-max-lag 2: a primary cut off from its "
                  "replicas then "
                  "stops granting what would be lost when one of them is promoted");
    check_lag(connected);
    auto backlog = parse_decimal(setting("repl-backlog-size").value_or(""));
    if (!backlog) return;
    constexpr std::uint64_t kWanted = 64ULL << 20;
    add(*backlog < kWanted ? Level::warning : Level::ok, "backlog",
        fmt::format("repl-backlog-size is {} MiB", *backlog >> 20),
        *backlog < kWanted
            ? "set repl-backlog-size 256mb: a replica that was away for a moment then catches up "
              "instead of copying everything"
            : "");
  }

  // slave0:ip=127.0.0.1,port=6380,state=online,offset=123,lag=0
  void check_lag(std::uint64_t connected) {
    std::uint64_t worst = 0;
    bool behind = false;
    for (std::uint64_t i = 0; i < connected; ++i) {
      std::string_view line = replication_[fmt::format("slave{}", i)];
      if (line.find("state=online") == std::string_view::npos) behind = true;
      std::size_t at = line.find("lag=");
      if (at == std::string_view::npos) continue;
      std::string_view digits = line.substr(at + 4);
      worst = std::max(worst, parse_decimal(digits.substr(0, digits.find(','))).value_or(0));
    }
    if (connected == 0) return;
    bool late = behind || worst > 2;
    add(late ? Level::warning : Level::ok, "replica_lag",
        behind ? "a replica is still copying"
               : fmt::format("the slowest replica was last heard of {} s ago", worst),
        late ? "look at the replica's log and at the network: what it lacks is lost if it is promoted" : "");
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
  const bool cluster_, replicated_;
  std::map<std::string, std::string, std::less<>> replication_;  // INFO replication
};

// Every sentinel of the URL: does it answer, does it know the primary.
void examine_sentinels(const ConnectionOptions& connection, const ProbeOptions& options,
                       ProbeReport& report) {
  std::size_t answering = 0;
  std::string complaints;
  for (const Endpoint& endpoint : connection.url.nodes) {
    ConnectionOptions one = connection;
    one.url = connection.url.server(endpoint);
    one.url.database = 0;
    one.optional_password = true;
    Milliseconds share = options.timeout / static_cast<int>(connection.url.nodes.size());
    auto reply = BlockingStore(std::move(one), share)
                     .call({"SENTINEL", "get-master-addr-by-name", connection.url.primary_name});
    bool knows = reply && reply->type == Reply::Type::array;
    answering += knows;
    if (!knows)
      complaints += fmt::format("{}{}: {}", complaints.empty() ? "" : "; ", endpoint.text(),
                                !reply              ? reply.error().message
                                : reply->is_error() ? reply->text
                                                    : "does not know " + connection.url.primary_name);
  }
  std::size_t count = connection.url.nodes.size();
  Level level = answering == 0 ? Level::problem : answering < count || count < 3 ? Level::warning : Level::ok;
  report.findings.push_back(
      {level, "sentinel",
       fmt::format("{} of {} sentinels name the primary {}{}{}", answering, count,
                   connection.url.primary_name, complaints.empty() ? "" : ": ", complaints),
       level == Level::ok ? ""
       : answering == count
           ? "run three sentinels or more and name all of them in store.url"
           : "see that each sentinel of store.url runs and monitors the primary by this name"});
}

// The primaries of the cluster, by the first node that tells.
std::vector<Endpoint> examine_cluster(const ConnectionOptions& connection, const ProbeOptions& options,
                                      ProbeReport& report) {
  std::string complaints;
  for (const Endpoint& endpoint : connection.url.nodes) {
    ConnectionOptions one = connection;
    one.url = connection.url.server(endpoint);
    auto reply =
        BlockingStore(std::move(one), options.timeout / static_cast<int>(connection.url.nodes.size()))
            .call({"CLUSTER", "SLOTS"});
    auto ranges = reply && !reply->is_error()
                      ? parse_slots(*reply, endpoint)
                      : fail(Origin::store, reply ? reply->text : reply.error().message);
    if (!ranges) {
      complaints += (complaints.empty() ? "" : "; ") + ranges.error().message;
      continue;
    }
    std::vector<Endpoint> primaries;
    unsigned covered = 0;
    for (const SlotRange& range : *ranges) {
      covered += range.last - range.first + 1;
      if (std::ranges::find(primaries, range.primary) == primaries.end()) primaries.push_back(range.primary);
    }
    report.findings.push_back(
        {covered == kSlots ? Level::ok : Level::problem, "cluster",
         fmt::format("{} primaries serve {} of {} slots", primaries.size(), covered, kSlots),
         covered == kSlots ? ""
                           : "see redis-cli --cluster check: accounts in the other slots cannot be counted"});
    return primaries;
  }
  report.findings.push_back({Level::problem, "cluster",
                             "no node tells the slots of the cluster: " + complaints,
                             "check store.url, the network between the two, user and password"});
  return {};
}

}  // namespace

bool ProbeReport::usable() const {
  return reachable &&
         std::ranges::none_of(findings, [](const Finding& f) { return f.level == Level::problem; });
}

std::vector<Finding> strict_problems(const ProbeReport& report) {
  std::vector<Finding> problems;
  for (const Finding& finding : report.findings) {
    bool promised =
        finding.subject == "eviction" || finding.subject == "persistence" || finding.subject == "clock";
    if (finding.level == Level::problem || (finding.level == Level::warning && promised))
      problems.push_back(finding);
  }
  return problems;
}

ProbeReport probe(ConnectionOptions connection, const ProbeOptions& options) {
  ProbeReport report;
  bool sentinel = connection.url.kind == StoreUrl::Kind::sentinel;
  if (sentinel) examine_sentinels(connection, options, report);
  if (connection.url.kind != StoreUrl::Kind::cluster) {
    BlockingStore store(std::move(connection), options.timeout);
    Examination(store, options, report, false, sentinel).run();
    return report;
  }
  bool first = true, all_reachable = true;
  for (const Endpoint& endpoint : examine_cluster(connection, options, report)) {
    ConnectionOptions one = connection;
    one.url = connection.url.server(endpoint);
    ProbeReport node;
    BlockingStore store(std::move(one), options.timeout);
    Examination(store, options, node, true, true).run();
    all_reachable = all_reachable && node.reachable;
    for (Finding& finding : node.findings) {
      if (finding.level != Level::ok)
        finding.text = fmt::format("{}: {}", endpoint.text(), finding.text);
      else if (!first)
        continue;
      report.findings.push_back(std::move(finding));
    }
    if (first) {
      report.server = node.server;
      report.round_trip = node.round_trip;
      report.clock_offset = node.clock_offset;
    }
    first = false;
  }
  report.reachable = !first && all_reachable;
  return report;
}

}  // namespace tollgate::redis
