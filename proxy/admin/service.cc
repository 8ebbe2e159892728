#include "proxy/admin/service.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/json_text.h"
#include "proxy/flow/reply.h"

namespace tollgate::admin {
namespace {

Reply problem(int status, std::string_view title, std::string_view detail) {
  Reply reply{.status = status, .content_type = "application/problem+json", .fields = {}, .body = {}};
  JsonWriter json(reply.body);
  json.object([&] {
    json.field("type", "about:blank");
    json.field("title", title);
    json.field("status", status);
    json.field("detail", detail);
  });
  return reply;
}

Reply not_found(std::string_view path) {
  return problem(404, "Not found", fmt::format("There is no {} here; see docs/admin-api.md.", path));
}

Reply method_not_allowed(std::string_view allow) {
  Reply reply = problem(405, "Method not allowed", fmt::format("Allowed: {}.", allow));
  reply.fields = fmt::format("Allow: {}\r\n", allow);
  return reply;
}

Reply store_failed(const Error& error) {
  return problem(503, "The quota store is unavailable", error.message);
}

// Compares in a time that does not tell how much of the token was right.
bool same_secret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size() || hex_value(text[i + 1]) < 0 || hex_value(text[i + 2]) < 0) return std::nullopt;
    out.push_back(static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2])));
    i += 2;
  }
  return out;
}

std::string query_value(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    if (pair.substr(0, pair.find('=')) == name && pair.size() > name.size())
      return percent_decode(pair.substr(name.size() + 1)).value_or("");
  }
  return {};
}

std::vector<std::string> segments(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    std::string_view segment = path.substr(0, path.find('/'));
    path.remove_prefix(segment.size());
    if (auto decoded = percent_decode(segment))
      out.push_back(std::move(*decoded));
    else
      return {};
  }
  return out;
}

void write_state(JsonWriter& json, const quota::AccountState& state) {
  json.field("limit", state.limit);
  json.field("used", state.used);
  json.field("remaining", state.remaining());
}

}  // namespace

Service::Service(Sources sources, std::string token)
    : sources_(std::move(sources)), token_(std::move(token)) {}

Reply Service::ready(bool verbose) const {
  const std::vector<Check> checks = sources_.readiness();
  const bool ok = std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.ok; });
  Reply reply{
      .status = ok ? 200 : 503, .content_type = "text/plain; charset=utf-8", .fields = {}, .body = {}};
  if (verbose)
    for (const Check& check : checks)
      reply.body += fmt::format("[{}]{} {}{}{}\n", check.ok ? '+' : '-', check.name,
                                check.ok ? "ok" : "failed", check.detail.empty() ? "" : ": ", check.detail);
  reply.body += ok ? "ready\n" : "not ready\n";
  return reply;
}

void Service::handle(const Request& request, Done done) const {
  std::string_view path = request.path;
  if (path.starts_with("/api/")) return handle_api(request, path, std::move(done));
  const bool get = request.method == "GET" || request.method == "HEAD";
  if (path == "/livez" || path == "/healthz" || path == "/readyz" || path == "/metrics" ||
      path == "/version" || path == "/") {
    if (!get) return done(method_not_allowed("GET, HEAD"));
  }
  if (path == "/livez" || path == "/healthz")
    return done({.status = 200, .content_type = "text/plain; charset=utf-8", .fields = {}, .body = "ok\n"});
  if (path == "/readyz")
    return done(ready(request.query == "verbose" || request.query.starts_with("verbose=")));
  if (path == "/metrics")
    return done({.status = 200,
                 .content_type = sources_.metrics_content_type,
                 .fields = {},
                 .body = sources_.metrics()});
  if (path == "/version") {
    Reply reply;
    JsonWriter json(reply.body);
    json.object([&] {
      json.field("version", sources_.version);
      json.field("revision", sources_.revision);
    });
    return done(std::move(reply));
  }
  if (path == "/")
    return done({.status = 200,
                 .content_type = "text/plain; charset=utf-8",
                 .fields = {},
                 .body = "Tollgate admin port\n/livez /readyz?verbose /metrics /version\n"
                         "/api/v1/users/{tenant}/{user}/usage and /quotas (bearer token)\n"});
  done(not_found(path));
}

void Service::handle_api(const Request& request, std::string_view path, Done done) const {
  if (token_.empty())
    return done(
        problem(403, "Closed", "The admin API is closed: admin.token_file is not set in the configuration."));
  std::string_view given = request.authorization;
  if (starts_with_ignore_case(given, "Bearer "))
    given = trim(given.substr(7));
  else
    given = {};
  if (given.empty() || !same_secret(given, token_)) {
    Reply reply = problem(401, "Not authorised",
                          "Send the admin token: Authorization: Bearer <content of admin.token_file>.");
    reply.fields = "WWW-Authenticate: Bearer realm=\"tollgate-admin\"\r\n";
    return done(std::move(reply));
  }
  std::vector<std::string> parts = segments(path);
  if (path == "/api/v1/config/reload") {
    if (request.method != "POST") return done(method_not_allowed("POST"));
    auto reloaded = sources_.reload();
    if (!reloaded) return done(problem(422, "The configuration was not accepted", reloaded.error().message));
    return done(
        {.status = 200, .content_type = "application/json", .fields = {}, .body = R"({"reloaded":true})"});
  }
  if (parts.size() >= 6 && parts[1] == "v1" && parts[2] == "users")
    return handle_user(request, std::move(parts), std::move(done));
  done(not_found(path));
}

// parts: api v1 users TENANT USER usage | quotas [RULE [reset]]
void Service::handle_user(const Request& request, std::vector<std::string> parts, Done done) const {
  auto snapshot = sources_.snapshot();
  identity::Principal principal;
  principal.tenant = parts[3] == "-" ? "" : parts[3];
  principal.user = parts[4];
  principal.organization = query_value(request.query, "organization");
  const quota::Caller caller{.tenant = principal.tenant,
                             .organization = principal.organization,
                             .user = principal.user,
                             .staff = false};
  std::vector<quota::AccountCharge> accounts = snapshot->rules.accounts(caller);
  const bool get = request.method == "GET" || request.method == "HEAD";

  if (parts[5] == "usage" && parts.size() == 6) {
    if (!get) return done(method_not_allowed("GET, HEAD"));
    auto answer = [snapshot, principal, accounts, done = std::move(done)](Sources::States states,
                                                                          Sources::Listed listed) {
      if (!states) return done(store_failed(states.error()));
      if (!listed) return done(store_failed(listed.error()));
      Reply reply;
      reply.body = flow::usage_json(*snapshot, principal, accounts, *states, *listed);
      done(std::move(reply));
    };
    return sources_.read_usage(accounts, snapshot->rules.observation(caller), std::move(answer));
  }
  if (parts[5] != "quotas" || parts.size() > 8) return done(not_found(request.path));
  if (parts.size() == 6) {
    if (!get) return done(method_not_allowed("GET, HEAD"));
    return reply_quotas(std::move(accounts), false, std::move(done));
  }
  auto wanted = std::find_if(accounts.begin(), accounts.end(), [&](const quota::AccountCharge& account) {
    return account.rule != quota::Rules::kObservation &&
           snapshot->rules.rules()[account.rule].name == parts[6];
  });
  if (wanted == accounts.end())
    return done(
        problem(404, "No such quota",
                fmt::format("There is no quota '{}' that can be set for one user; GET .../quotas lists them.",
                            parts[6])));
  quota::AccountCharge account = *wanted;
  const std::string name =
      fmt::format("quota {} of user {} (tenant '{}')", parts[6], principal.user, principal.tenant);
  if (parts.size() == 8) {
    if (parts[7] != "reset") return done(not_found(request.path));
    if (request.method != "POST") return done(method_not_allowed("POST"));
    auto answer = [audit = sources_.audit, name, done = std::move(done)](Result<void> changed) {
      if (!changed) return done(store_failed(changed.error()));
      audit("reset " + name);
      done({.status = 200, .content_type = "application/json", .fields = {}, .body = R"({"reset":true})"});
    };
    return sources_.reset({account.key}, std::move(answer));
  }
  if (get) return reply_quotas({std::move(account)}, true, std::move(done));
  change_quota(request, std::move(account), name, std::move(done));
}

void Service::reply_quotas(std::vector<quota::AccountCharge> accounts, bool single, Done done) const {
  auto snapshot = sources_.snapshot();
  std::erase_if(accounts, [](const quota::AccountCharge& account) {
    return account.rule == quota::Rules::kObservation;
  });
  auto answer = [snapshot, accounts, single, done = std::move(done)](Sources::States states,
                                                                     Sources::Listed) {
    if (!states) return done(store_failed(states.error()));
    Reply reply;
    JsonWriter json(reply.body);
    auto one = [&](std::size_t i) {
      json.object([&] {
        json.field("name", snapshot->rules.rules()[accounts[i].rule].name);
        write_state(json, (*states)[i]);
        json.field("configured_limit", accounts[i].limit);
        json.field("overridden", (*states)[i].limit != accounts[i].limit);
      });
    };
    if (single) {
      one(0);
    } else {
      json.array([&] {
        for (std::size_t i = 0; i < accounts.size(); ++i) one(i);
      });
    }
    done(std::move(reply));
  };
  sources_.read_usage(accounts, {}, std::move(answer));
}

void Service::change_quota(const Request& request, quota::AccountCharge account, std::string name,
                           Done done) const {
  std::optional<std::uint64_t> limit;
  if (request.method == "PUT") {
    simdjson::dom::parser parser;
    simdjson::dom::element document;
    std::uint64_t value = 0;
    const simdjson::padded_string body(request.body);
    if (parser.parse(body).get(document) != simdjson::SUCCESS ||
        document["limit"].get(value) != simdjson::SUCCESS)
      return done(
          problem(400, "Bad request", R"(The body must be {"limit": n} with a whole number n >= 0.)"));
    limit = value;
  } else if (request.method != "DELETE") {
    return done(method_not_allowed("GET, HEAD, PUT, DELETE"));
  }
  auto answer = [this, account, limit, name = std::move(name),
                 done = std::move(done)](Result<void> changed) mutable {
    if (!changed) return done(store_failed(changed.error()));
    sources_.audit(limit ? fmt::format("set {} to {}", name, *limit)
                         : fmt::format("removed the override of {}", name));
    reply_quotas({std::move(account)}, true, std::move(done));
  };
  sources_.set_override(account.key, limit, std::move(answer));
}

}  // namespace tollgate::admin
