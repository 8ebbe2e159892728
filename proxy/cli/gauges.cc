#include "proxy/cli/gauges.h"

#include <fmt/format.h>

#include <chrono>
#include <map>
#include <set>
#include <tuple>

#include "tollgate_version.h"

namespace tollgate::cli {

void ReloadStatus::succeeded() {
  timestamp_ =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  successful_ = true;
}

telemetry::Metrics::Options metrics_options(const flow::Snapshot& snapshot, unsigned workers) {
  const licence::Rulebook& rules = snapshot.policy.rulebook();
  std::set<std::string> objects(rules.known_objects.begin(), rules.known_objects.end());
  telemetry::Metrics::Options options;
  options.workers = workers;
  options.version = TOLLGATE_VERSION;
  options.revision = TOLLGATE_REVISION;
  for (const licence::Section& section : rules.sections) {
    objects.insert(section.entity);
    options.main_objects.push_back(section.entity);
    for (const auto* list : {&section.views, &section.children, &section.lookups, &section.feed})
      objects.insert(list->begin(), list->end());
  }
  for (const std::string& root : rules.custom_sections) {
    objects.insert(root);
    options.main_objects.push_back(root);
  }
  for (const auto& [root, children] : rules.custom_children) objects.insert(children.begin(), children.end());
  objects.insert(rules.unlicensed_objects.begin(), rules.unlicensed_objects.end());
  options.objects.assign(objects.begin(), objects.end());
  for (const quota::Rule& rule : snapshot.rules.rules())
    if (rule.shadow) options.shadow_limits.push_back(rule.name);
  return options;
}

std::vector<telemetry::Family> gauges(const net::Server& server, std::uint64_t log_lost_lines,
                                      const telemetry::AccessLog* access_log,
                                      const redis::EmbeddedRedis* embedded, const ReloadStatus& reload) {
  using Type = telemetry::Family::Type;
  using Family = telemetry::Family;
  std::vector<Family> out;
  auto add = [&](std::string name, std::string help, Type type, auto value) {
    out.push_back({.name = std::move(name),
                   .help = std::move(help),
                   .type = type,
                   .samples = {{.labels = {}, .value = static_cast<double>(value)}}});
  };
  const net::Counters now = server.counters();
  Family connections{.name = "tollgate_connections",
                     .help = "Open connections by side and state.",
                     .type = Type::gauge,
                     .samples = {}};
  auto state = [&](std::string side, std::string name, std::uint64_t value) {
    connections.samples.push_back({.labels = {{"side", std::move(side)}, {"state", std::move(name)}},
                                   .value = static_cast<double>(value)});
  };
  state("client", "active", now.client.active);
  state("client", "idle", now.client.idle);
  state("client", "tunnel", now.client.tunnels);
  state("upstream", "active", now.upstream.active);
  state("upstream", "idle", now.upstream.idle);
  state("upstream", "connecting", now.upstream_connecting);
  out.push_back(std::move(connections));
  add("tollgate_upstream_waiting_requests", "Requests waiting for an upstream connection.", Type::gauge,
      now.upstream_waiting);
  add("tollgate_connections_accepted_total", "Client connections accepted.", Type::counter,
      now.accepted_total);
  add("tollgate_connections_refused_total", "Client connections turned away by limits.max_connections.",
      Type::counter, now.refused_connections_total);
  add("tollgate_accept_failures_total", "Connections that could not be accepted (file descriptors, memory).",
      Type::counter, now.accept_failures_total);
  add("tollgate_tls_handshake_failures_total", "TLS handshakes with clients that failed.", Type::counter,
      now.tls_failures_total);
  auto by = [&](std::string name, std::string help, const std::string& label_name,
                std::vector<std::pair<std::string, std::uint64_t>> values) {
    Family many{.name = std::move(name), .help = std::move(help), .type = Type::counter, .samples = {}};
    for (auto& [value, count] : values)
      many.samples.push_back({.labels = {{label_name, value}}, .value = static_cast<double>(count)});
    out.push_back(std::move(many));
  };
  by("tollgate_slow_clients_total", "Clients cut off because they were too slow.", "at",
     {{"handshake", now.slow_handshakes_total},
      {"head", now.slow_heads_total},
      {"body", now.slow_bodies_total},
      {"reply", now.slow_readers_total}});
  add("tollgate_proxy_header_failures_total", "Connections without the PROXY header that was expected.",
      Type::counter, now.proxy_header_failures_total);
  by("tollgate_address_refusals_total", "Connections refused by limits.per_address or a fair share.",
     "because", {{"connections", now.address_full_total}, {"rate", now.address_fast_total}});
  add("tollgate_client_addresses", "Client addresses remembered.", Type::gauge, now.client_addresses);
  by("tollgate_shed_requests_total", "Requests answered with 503 because a worker could not keep up.",
     "level", {{"anonymous", now.shed_anonymous_total}, {"everything", now.shed_all_total}});
  add("tollgate_overload_level", "0: serves all; 1: turns anonymous requests away; 2: turns all away.",
      Type::gauge, now.shed_level);
  add("tollgate_loop_lag_seconds", "How late the latest worker's loop is, at least, over a second.",
      Type::gauge, std::chrono::duration<double>(now.loop_lag).count());
  add("tollgate_upstream_connects_total", "Connections opened to the CRM.", Type::counter,
      now.upstream_connects_total);
  add("tollgate_upstream_connect_failures_total", "Connections to the CRM that could not be opened.",
      Type::counter, now.upstream_connect_failures_total);
  add("tollgate_token_cache_hits_total", "Tokens found verified.", Type::counter, now.token_cache_hits);
  add("tollgate_token_cache_misses_total", "Tokens that had to be verified.", Type::counter,
      now.token_cache_misses);
  Family health{.name = "tollgate_upstream_healthy",
                .help = "0 while a server fails its health checks, cannot be reached or is left out.",
                .type = Type::gauge,
                .samples = {}};
  Family calls{.name = "tollgate_upstream_requests_total",
               .help = "Replies of a server; a call that is tried again may have one of each.",
               .type = Type::counter,
               .samples = {}};
  Family in_flight{.name = "tollgate_upstream_requests_in_flight",
                   .help = "Calls at a server, connecting included.",
                   .type = Type::gauge,
                   .samples = {}};
  Family idle{.name = "tollgate_upstream_connections_idle",
              .help = "Connections to a server that are kept for the next call.",
              .type = Type::gauge,
              .samples = {}};
  Family unhealthy{.name = "tollgate_upstream_unhealthy",
                   .help = "1 for each reason why a server is not healthy.",
                   .type = Type::gauge,
                   .samples = {}};
  std::map<std::string, double> waiting_by_upstream;
  Family failures{
      .name = "tollgate_upstream_failures_total",
      .help = "Calls that a server failed: no reply, a broken one, none in time, outlier.statuses.",
      .type = Type::counter,
      .samples = {}};
  Family ejections{.name = "tollgate_upstream_ejections_total",
                   .help = "Times that a worker left a server out for failing calls in a row.",
                   .type = Type::counter,
                   .samples = {}};
  Family checks{.name = "tollgate_upstream_health_checks_total",
                .help = "Health checks by result.",
                .type = Type::counter,
                .samples = {}};
  for (const auto& one : now.upstream_health) {
    const telemetry::Family::Labels which{{"upstream", one.upstream}, {"server", one.server}};
    health.samples.push_back({.labels = which, .value = one.healthy ? 1.0 : 0.0});
    calls.samples.push_back({.labels = which, .value = static_cast<double>(one.calls_total)});
    in_flight.samples.push_back({.labels = which, .value = static_cast<double>(one.in_flight)});
    idle.samples.push_back({.labels = which, .value = static_cast<double>(one.idle)});
    waiting_by_upstream[one.upstream] += static_cast<double>(one.waiting);
    for (const auto& [because, so] :
         {std::pair{"down", one.down}, {"unreachable", one.unreachable}, {"ejected", one.ejected}}) {
      telemetry::Family::Labels labels = which;
      labels.emplace_back("because", because);
      unhealthy.samples.push_back({.labels = std::move(labels), .value = so ? 1.0 : 0.0});
    }
    failures.samples.push_back({.labels = which, .value = static_cast<double>(one.failures_total)});
    ejections.samples.push_back({.labels = which, .value = static_cast<double>(one.ejections_total)});
    if (!one.checked) continue;
    for (const bool passed : {true, false}) {
      telemetry::Family::Labels labels = which;
      labels.emplace_back("result", passed ? "passed" : "failed");
      checks.samples.push_back(
          {.labels = std::move(labels),
           .value = static_cast<double>(passed ? one.checks_passed_total : one.checks_failed_total)});
    }
  }
  Family waiting{.name = "tollgate_upstream_queue_requests",
                 .help = "Requests waiting for a connection to an upstream.",
                 .type = Type::gauge,
                 .samples = {}};
  for (const auto& [upstream, requests] : waiting_by_upstream)
    waiting.samples.push_back({.labels = {{"upstream", upstream}}, .value = requests});
  for (Family* family :
       {&health, &unhealthy, &calls, &in_flight, &idle, &waiting, &failures, &ejections, &checks})
    if (!family->samples.empty()) out.push_back(std::move(*family));
  add("tollgate_upstream_retries_total", "Calls tried again though a server may have received them.",
      Type::counter, now.upstream_retries_total);
  add("tollgate_upstream_retries_refused_total", "Calls not tried again because the budget was used up.",
      Type::counter, now.upstream_retries_refused_total);
  Family expiry{.name = "tollgate_certificate_expiry_timestamp_seconds",
                .help = "End of validity of each certificate in use, seconds since 1970.",
                .type = Type::gauge,
                .samples = {}};
  for (const auto& certificate : server.certificates())
    expiry.samples.push_back({.labels = {{"file", certificate.file}},
                              .value = static_cast<double>(unix_seconds(certificate.not_after))});
  if (!expiry.samples.empty()) out.push_back(std::move(expiry));
  add("tollgate_config_last_reload_successful", "1 when the last reload was accepted.", Type::gauge,
      reload.successful() ? 1 : 0);
  add("tollgate_config_last_reload_success_timestamp_seconds",
      "Time of the last accepted configuration, seconds since 1970.", Type::gauge,
      reload.success_timestamp());
  add("tollgate_draining", "1 while shutting down.", Type::gauge, server.draining() ? 1 : 0);
  add("tollgate_log_lost_lines_total", "Lines of the program's own log that nobody read in time.",
      Type::counter, log_lost_lines);
  if (access_log != nullptr) {
    add("tollgate_access_log_dropped_lines_total",
        "Lines dropped because the log could not be written fast enough.", Type::counter,
        access_log->dropped_lines());
    add("tollgate_access_log_write_errors_total", "Failed writes to the access log.", Type::counter,
        access_log->write_errors());
  }
  const net::LookupService::Counters& lookups = server.lookups();
  add("tollgate_lookups_total", "Times somebody else was asked whose a token or session is.", Type::counter,
      lookups.questions.load(std::memory_order_relaxed));
  add("tollgate_lookup_unknown_total", "Of these, answers that it is nobody's.", Type::counter,
      lookups.nobody.load(std::memory_order_relaxed));
  add("tollgate_lookup_failures_total", "Questions that got no answer that settles anything.", Type::counter,
      lookups.failures.load(std::memory_order_relaxed));
  if (embedded != nullptr)
    add("tollgate_embedded_redis_restarts_total", "Restarts of the embedded redis-server.", Type::counter,
        embedded->restarts());
  return out;
}

std::optional<admin::Sources::Followed> followed(const net::Server& server) {
  const auto trail = server.followed();
  if (trail == nullptr) return std::nullopt;
  return admin::Sources::Followed{.order = trail->order(),
                                  .left = std::chrono::ceil<Milliseconds>(trail->until() - server.now()),
                                  .lines_left = trail->lines_left()};
}

std::vector<admin::Sources::UpstreamServer> upstream_servers(const net::Server& server) {
  std::vector<admin::Sources::UpstreamServer> out;
  for (const net::Counters::Health& one : server.counters().upstream_health)
    out.push_back({.upstream = one.upstream,
                   .server = one.server,
                   .down = one.down,
                   .unreachable = one.unreachable,
                   .ejected = one.ejected,
                   .in_flight = one.in_flight,
                   .idle = one.idle,
                   .waiting = one.waiting,
                   .requests = one.calls_total,
                   .failures = one.failures_total});
  return out;
}

telemetry::Family key_set_failures(const config::Settings& settings, const net::KeySetFetcher& keys) {
  telemetry::Family out{.name = "tollgate_key_set_failures_total",
                        .help = "Key sets that could not be fetched or read; the last good one stays in use.",
                        .type = telemetry::Family::Type::counter,
                        .samples = {}};
  const auto statuses = keys.status();
  std::map<std::string, std::uint64_t>
      by_issuer;  // an issuer may have several entries: one series all the same
  for (std::size_t i = 0; i < statuses.size(); ++i)
    by_issuer[settings.identity.jwt[i].issuer] += statuses[i].failures;
  for (const auto& [issuer, failures] : by_issuer)
    out.samples.push_back({.labels = {{"issuer", issuer}}, .value = static_cast<double>(failures)});
  return out;
}

std::vector<std::string> needs_restart(const config::Settings& now, const config::Settings& next) {
  std::vector<std::string> out;
  auto compare = [&](bool same, std::string_view key) {
    if (!same) out.push_back(fmt::format("{} changed: it takes effect at the next restart", key));
  };
  compare(now.workers == next.workers, "workers");
  compare(now.admin.address == next.admin.address && now.admin.token_file == next.admin.token_file, "admin");
  auto connection = [](const config::Store& s) {
    return std::tie(s.url, s.user, s.password_file, s.timeout, s.connect_timeout, s.ca_file, s.server_name,
                    s.verify, s.redis_server);
  };
  auto leases = [](const config::Store& s) {
    return std::tie(s.durability, s.min_replicas, s.wait_timeout, s.strict, s.session, s.ping_interval,
                    s.flush_interval, s.lease_max, s.fence_wait);
  };
  compare(connection(now.store) == connection(next.store) && leases(now.store) == leases(next.store),
          "store (all but on_outage)");
  auto journal = [](const config::Journal& j) {
    return std::tie(j.directory, j.segment_size, j.commit_interval, j.retention, j.max_size, j.accounts);
  };
  compare(journal(now.journal) == journal(next.journal), "journal (all but on_failure)");
  compare(now.access_log.file == next.access_log.file, "access_log.file");
  return out;
}

}  // namespace tollgate::cli
