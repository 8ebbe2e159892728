#include "proxy/flow/reply.h"

#include <fmt/compile.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>

#include "metering/base/append.h"
#include "metering/base/json_text.h"
#include "metering/quota/keys.h"
#include "metering/quota/rate_limit_fields.h"

namespace tollgate::flow {
namespace {

constexpr std::string_view kProblemFields =
    "Content-Type: application/problem+json\r\nCache-Control: no-store\r\n";

constexpr std::size_t kProblemBytes = 1024;  // that nearly every body fits into
constexpr std::size_t kDetailBytes = 256;    // and every detail

// The members that every problem has; `more` writes further ones. OData 4 JSON Format section 21.1 wants `error` with
// code and message at the top level; OData 3 verbose JSON clients read the same member.
template <class More>
std::string problem_body(const Call& call, Reason reason, std::string_view detail, More&& more,
                         std::string memory = {}) {
  std::string body = std::move(memory);
  body.clear();
  body.reserve(kProblemBytes);
  JsonWriter json(body);
  json.object([&] {
    json.members(call.snapshot->problem_heads[static_cast<std::size_t>(reason)]);
    json.field("detail", detail);
    json.field("instance", call.request_id);
    json.field("reason", code(reason));
    more(json);
    if (call.odata_reply)
      json.field_object("error", [&] {
        json.field("code", code(reason));
        json.field("message", detail);
      });
  });
  return body;
}

std::string hours_and_minutes(Milliseconds span) {
  auto seconds = quota::seconds_up(span);
  if (seconds < 120) return fmt::format(FMT_COMPILE("{} seconds"), seconds);
  if (seconds < 7'200) return fmt::format(FMT_COMPILE("{} minutes"), (seconds + 59) / 60);
  const auto minutes = (seconds + 59) / 60;
  return minutes % 60 == 0 ? fmt::format(FMT_COMPILE("{} h"), minutes / 60)
                           : fmt::format(FMT_COMPILE("{} h {} min"), minutes / 60, minutes % 60);
}

// More than it may cost at all, or when there is room again.
std::string quota_detail(const quota::Rule& rule, const quota::AccountState& state, std::uint64_t units) {
  std::string detail;
  detail.reserve(kDetailBytes);
  {
    Appender to(detail);
    const bool credits = rule.on == quota::Scope::credits;
    const std::string_view what = credits ? " credits" : " calls";
    const auto window = std::chrono::duration_cast<Seconds>(rule.window).count();
    if (state.admitted_after == Milliseconds::max()) {
      to.text("This request costs ").decimal(units).text(what);
      to.text(", more than the limit of ").decimal(state.limit);
      to.text(" of quota '").text(rule.name).text("' (").decimal(window).text(" s rolling).");
    } else {
      to.decimal(state.used).text(" of ").decimal(state.limit).text(what).text(" of quota '").text(rule.name);
      to.text(credits ? "' were spent in the last " : "' were made in the last ").decimal(window);
      to.text(" s; this request needs ").decimal(units).text(". There is room again in ");
      to.text(hours_and_minutes(state.admitted_after));
      to.text(". The window is rolling: it does not reset at midnight.");
    }
  }
  return detail;
}

LocalReply reply_with(const Call& call, Reason reason, std::string_view detail) {
  return LocalReply{.status = info(reason).status,
                    .reason = reason,
                    .fields = std::string(kProblemFields),
                    .body = problem_body(call, reason, detail, [](JsonWriter&) {})};
}

// Text for a quoted-string (RFC 9110 section 5.6.4) of which RFC 6750 section 3 allows %x20-21 / %x23-5B / %x5D-7E.
std::string quotable(std::string_view text) {
  std::string out;
  for (char c : text) out.push_back(c >= 0x20 && c < 0x7f && c != '"' && c != '\\' ? c : '\'');
  return out;
}

bool is_observation(const quota::AccountCharge& charge) {
  return charge.rule == quota::Rules::kObservation;
}

// An account without a limit has null in the place of numbers that no client could read.
void write_count(JsonWriter& json, std::string_view name, std::uint64_t count, std::uint64_t limit) {
  json.key(name);
  if (limit == quota::kUnlimited)
    json.null();
  else
    json.value(count);
}

}  // namespace

LocalReply problem(const Call& call, Reason reason, std::string_view detail) {
  LocalReply reply = reply_with(call, reason, detail);
  // The store may be back, or the load gone, at any moment: clients should come again, but not at once.
  if (reason == Reason::store_unavailable || reason == Reason::overloaded || reason == Reason::draining ||
      reason == Reason::address_rate_exceeded || reason == Reason::upstream_unavailable ||
      reason == Reason::identity_unavailable)
    reply.fields += "Retry-After: 1\r\n";
  return reply;
}

LocalReply unauthorized(const Call& call, Reason reason, std::string_view detail) {
  LocalReply reply = reply_with(call, reason, detail);
  reply.fields += "WWW-Authenticate: Bearer realm=\"tollgate\"";
  if (reason != Reason::token_missing)
    reply.fields += fmt::format(", error=\"invalid_token\", error_description=\"{}\"", quotable(detail));
  reply.fields += "\r\n";
  return reply;
}

LocalReply quota_exceeded(const Call& call, std::span<const std::uint32_t> violated, LocalReply memory) {
  if (violated.empty()) return problem(call, Reason::quota_exceeded, "The quota is used up.");
  const std::uint32_t worst = *std::ranges::max_element(
      violated, {}, [&](std::uint32_t index) { return call.states[index].admitted_after; });
  const auto& rules = call.snapshot->rules.rules();
  const quota::AccountState& state = call.states[worst];
  const quota::AccountCharge& charge = call.charges[worst];
  const std::string detail = quota_detail(rules[charge.rule], state, charge.units);
  LocalReply reply{.status = info(Reason::quota_exceeded).status,
                   .reason = Reason::quota_exceeded,
                   .fields = rate_limit_lines(call, violated, std::move(memory.fields)),
                   .body = {}};
  reply.fields += kProblemFields;
  reply.body = problem_body(
      call, Reason::quota_exceeded, detail,
      [&](JsonWriter& json) {
        json.field_array("violated-policies", [&] {
          for (std::uint32_t index : violated) json.value(rules[call.charges[index].rule].name);
        });
        json.field("limit", state.limit);
        json.field("used", state.used);
        json.field("units", charge.units);
        if (auto seconds = quota::retry_after_seconds(call.states, violated))
          json.field("retry_after", *seconds);
      },
      std::move(memory.body));
  return reply;
}

LocalReply portal_full(const Call& call) {
  const seats::Pool& pool = call.portal->pool;
  const std::size_t wanted = call.classification.portal->members.size();
  LocalReply reply{.status = info(Reason::seat_cap_reached).status,
                   .reason = Reason::seat_cap_reached,
                   .fields = std::string(kProblemFields),
                   .body = {}};
  const std::string detail =
      fmt::format("There may be {} portal users, and {} more would be too many. Nobody was invited.",
                  pool.capacity, wanted == 1 ? "one" : std::to_string(wanted));
  reply.body = problem_body(call, Reason::seat_cap_reached, detail, [&](JsonWriter& json) {
    json.field("pool", pool.id);
    json.field("capacity", pool.capacity);
    json.field("wanted", wanted);
  });
  return reply;
}

LocalReply seat_refused(const Call& call, const seats::Outcome& outcome) {
  if (call.portal != nullptr) return portal_full(call);
  const SeatPool& wanted =
      call.snapshot->seat_pools[static_cast<std::size_t>(std::countr_zero(call.seats_needed))];
  const seats::Pool& pool = wanted.pool;
  const bool named = pool.kind == seats::Kind::named;
  const Reason reason = named ? Reason::seat_cap_reached : Reason::concurrent_licenses_exhausted;
  const auto seconds = quota::seconds_up(outcome.retry_after);
  const std::string detail =
      named ? fmt::format("All {} seats of the {} are taken, and this user has none of them.", pool.capacity,
                          wanted.title)
            : fmt::format("{} portal users are active, as many as may be at once.{}", pool.capacity,
                          seconds > 0 ? fmt::format(" The first seat may become free in {}.",
                                                    hours_and_minutes(outcome.retry_after))
                                      : std::string());
  LocalReply reply{
      .status = info(reason).status, .reason = reason, .fields = std::string(kProblemFields), .body = {}};
  reply.body = problem_body(call, reason, detail, [&](JsonWriter& json) {
    json.field("pool", pool.id);
    json.field("capacity", pool.capacity);
    if (seconds > 0) json.field("retry_after", seconds);
  });
  if (!named) reply.fields += fmt::format("Retry-After: {}\r\n", std::max<std::uint64_t>(1, seconds));
  return reply;
}

LocalReply seat_unavailable(const Call& call, const seats::Outcome& outcome) {
  LocalReply reply = reply_with(
      call, Reason::store_unavailable,
      call.portal != nullptr
          ? "It cannot be told at the moment how many portal users there are. Nobody was invited; "
            "try again."
          : "It cannot be told at the moment whether this user has a seat, or may get one. Nothing "
            "was charged; try again.");
  reply.fields +=
      fmt::format("Retry-After: {}\r\n", std::max<std::uint64_t>(1, quota::seconds_up(outcome.retry_after)));
  return reply;
}

std::string usage_json(const Snapshot& snapshot, const identity::Principal& principal,
                       std::span<const quota::AccountCharge> accounts,
                       std::span<const quota::AccountState> states,
                       std::span<const quota::Ledger::Listed> objects,
                       std::span<const Result<seats::Page>> seats) {
  std::string body;
  JsonWriter json(body);
  json.object([&] {
    json.field("user", principal.user);
    if (!principal.tenant.empty()) json.field("tenant", principal.tenant);
    if (!principal.organization.empty()) json.field("organization", principal.organization);
    if (!principal.account.empty()) json.field("account", principal.account);
    json.field_array("limits", [&] {
      for (std::size_t i = 0; i < states.size(); ++i) {
        if (is_observation(accounts[i])) continue;
        const quota::Rule& rule = snapshot.rules.rules()[accounts[i].rule];
        const quota::AccountState& state = states[i];
        json.object([&] {
          json.field("name", rule.name);
          if (rule.shadow) json.field("mode", "shadow");
          write_count(json, "limit", state.limit, state.limit);
          json.field("window", std::chrono::duration_cast<Seconds>(rule.window).count());
          json.field("used", state.used);
          write_count(json, "remaining", state.remaining(), state.limit);
          if (state.next_free_units > 0)
            json.field_object("next_free", [&] {
              json.field("seconds", quota::seconds_up(state.next_free_after));
              json.field("calls", state.next_free_units);
            });
        });
      }
    });
    json.field_array("objects", [&] {
      std::map<std::pair<std::string, std::string_view>, std::uint64_t> sorted;
      for (const auto& listed : objects)
        if (auto operation = quota::Rules::parse_observation(listed.field)) {
          auto object = quota::unescape_name(operation->object).value_or(std::string(operation->object));
          sorted[{std::move(object), operation->operation}] += listed.used;
        }
      for (const auto& [what, calls] : sorted)
        json.object([&] {
          json.field("object", what.first);
          json.field("operation", what.second);
          json.field("calls", calls);
        });
    });
    if (seats.empty()) return;
    json.field_array("seats", [&] {
      for (std::size_t i = 0; i < seats.size(); ++i) {
        if (snapshot.seat_pools[i].of_members) continue;
        const seats::Pool& pool = snapshot.seat_pools[i].pool;
        json.object([&] {
          json.field("pool", pool.id);
          json.field("kind", seats::name(pool.kind));
          if (!seats[i]) return;  // the store did not say
          json.field("held", seats[i]->own.has_value());
          if (seats[i]->own && pool.kind == seats::Kind::concurrent)
            json.field("seconds_left", quota::seconds_up(*seats[i]->own - seats[i]->now));
        });
      }
    });
  });
  return body;
}

LocalReply usage(const Call& call, std::span<const quota::AccountState> states,
                 std::span<const quota::Ledger::Listed> objects, std::span<const Result<seats::Page>> seats) {
  return LocalReply{
      .status = 200,
      .reason = Reason::ok,
      .fields = "Content-Type: application/json\r\nCache-Control: no-store\r\n" + rate_limit_lines(call),
      .body = usage_json(*call.snapshot, call.token->principal, call.charges, states, objects, seats)};
}

std::string rate_limit_lines(const Call& call, std::span<const std::uint32_t> violated, std::string memory) {
  const config::Proxy& settings = call.snapshot->settings.proxy;
  quota::FieldOptions options{.rate_limit = settings.rate_limit_headers != "never",
                              .legacy = settings.legacy_rate_limit_headers};
  return quota::rate_limit_field_lines(options, call.snapshot->rate_limit_policy,
                                       call.snapshot->rules.rules(), call.charges, call.states, violated,
                                       std::move(memory));
}

}  // namespace tollgate::flow
