#include "proxy/admin/changes.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "config/values.h"
#include "proxy/admin/body.h"
#include "proxy/admin/replies.h"

namespace tollgate::admin {
namespace {

using Element = simdjson::dom::element;
using quota::LimitOverride;

// Goes into the audit and onto terminals: one line of text.
std::expected<std::string, Reply> read_reason(const simdjson::dom::object& object, std::string_view query) {
  std::string reason = query_value(query, "reason");
  Element value;
  if (object["reason"].get(value) == simdjson::SUCCESS) {
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) return bad("\"reason\" must be a text.");
    reason = text;
  }
  if (reason.size() > kReasonBytesMax)
    return bad(fmt::format("The reason is longer than {} bytes.", kReasonBytesMax));
  for (char c : reason)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      return bad("The reason must be one line without control characters.");
  return reason;
}

// A change that takes a reason and nothing else.
std::expected<Change, Reply> parse_plain(std::string_view action, std::string_view detail,
                                         std::string_view body, std::string_view query) {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (auto wrong = read_object(parser, body, {"reason"}, object)) return std::unexpected(std::move(*wrong));
  auto reason = read_reason(object, query);
  if (!reason) return std::unexpected(std::move(reason.error()));
  return Change{.action = std::string(action), .detail = std::string(detail), .reason = std::move(*reason)};
}

// "for" or "until", exactly one, to a moment after now. Whole seconds, so that it reads back as written.
std::expected<Milliseconds, Reply> read_until(const simdjson::dom::object& object, Milliseconds now) {
  Element for_value, until_value;
  const bool has_for = object["for"].get(for_value) == simdjson::SUCCESS;
  const bool has_until = object["until"].get(until_value) == simdjson::SUCCESS;
  if (has_for == has_until)
    return bad(R"(Say how long: exactly one of "for" ("24h") and "until" ("2026-11-23T18:00:00Z").)");
  Milliseconds until{0};
  std::string_view text;
  if (has_for) {
    if (for_value.get(text) != simdjson::SUCCESS) return bad("\"for\" must be a duration such as \"24h\".");
    auto duration = config::parse_duration(text);
    if (!duration) return bad(fmt::format("\"for\": \"{}\" {}.", text, duration.error()));
    until = std::chrono::ceil<Seconds>(now + *duration);
  } else {
    if (until_value.get(text) != simdjson::SUCCESS) return bad("\"until\" must be a moment of RFC 3339.");
    auto moment = parse_moment(text);
    if (!moment)
      return bad(
          fmt::format("\"until\": \"{}\" is no moment such as 2026-11-23T18:00:00Z (RFC 3339).", text));
    until = *moment;
  }
  if (until <= now) return bad("The grant would be over before it begins.");
  if (until > now + kGrantLongest)
    return bad("A grant ends within 366 days; set the limit for what stays longer.");
  return until;
}

}  // namespace

std::string grant_detail(const LimitOverride::Grant& grant) {
  return fmt::format("+{} until {}", grant.extra, format_moment(grant.until));
}

std::expected<Change, Reply> parse_set(std::string_view body, std::string_view query) {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (auto wrong = read_object(parser, body, {"limit", "reason"}, object))
    return std::unexpected(std::move(*wrong));
  std::uint64_t limit = 0;
  Element value;
  constexpr std::string_view kWanted =
      R"(The body must be {"limit": n} with a whole number n from 0 to 2^53, or null for no limit.)";
  if (object["limit"].get(value) != simdjson::SUCCESS) return bad(kWanted);
  if (value.is_null())
    limit = quota::kUnlimited;
  else if (value.get(limit) != simdjson::SUCCESS || limit > LimitOverride::kLimitMax)
    return bad(kWanted);
  auto reason = read_reason(object, query);
  if (!reason) return std::unexpected(std::move(reason.error()));
  return Change{.action = "quota.set",
                .detail = limit == quota::kUnlimited ? "no limit" : fmt::format("limit {}", limit),
                .reason = std::move(*reason),
                .apply = [limit](LimitOverride& override) -> std::optional<Reply> {
                  override.limit = limit;
                  return std::nullopt;
                }};
}

std::expected<Change, Reply> parse_unset(std::string_view body, std::string_view query) {
  auto change = parse_plain("quota.unset", "the configured limit", body, query);
  if (change)
    change->apply = [](LimitOverride& override) -> std::optional<Reply> {
      override.limit.reset();
      return std::nullopt;
    };
  return change;
}

std::expected<Change, Reply> parse_grant(std::string_view body, Milliseconds now) {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (auto wrong = read_object(parser, body, {"extra", "for", "until", "reason"}, object))
    return std::unexpected(std::move(*wrong));
  LimitOverride::Grant grant;
  if (object["extra"].get(grant.extra) != simdjson::SUCCESS || grant.extra == 0 ||
      grant.extra > LimitOverride::kLimitMax)
    return bad(R"(Say how many calls more: "extra", a whole number from 1 to 2^53.)");
  auto until = read_until(object, now);
  if (!until) return std::unexpected(std::move(until.error()));
  grant.until = *until;
  auto reason = read_reason(object, "");
  if (!reason) return std::unexpected(std::move(reason.error()));
  if (reason->empty()) return bad("Say why: a grant needs a \"reason\".");
  return Change{.action = "quota.grant",
                .detail = grant_detail(grant),
                .reason = std::move(*reason),
                .apply = [grant](LimitOverride& override) -> std::optional<Reply> {
                  if (override.grants.size() >= LimitOverride::kGrantsMax)
                    return problem(
                        409, "Too many grants",
                        fmt::format("The account has {} grants, the most there can be: take them away "
                                    "first, or set the limit.",
                                    LimitOverride::kGrantsMax));
                  override.grants.push_back(grant);
                  return std::nullopt;
                }};
}

std::expected<Change, Reply> parse_withdraw(std::string_view body, std::string_view query) {
  auto change = parse_plain("quota.withdraw", "all grants", body, query);
  if (change)
    change->apply = [](LimitOverride& override) -> std::optional<Reply> {
      override.grants.clear();
      return std::nullopt;
    };
  return change;
}

std::expected<Change, Reply> parse_reset(std::string_view body, std::string_view query) {
  return parse_plain("quota.reset", "what was counted is forgotten", body, query);
}

std::expected<Change, Reply> parse_assign(std::string_view body, std::string_view query) {
  return parse_plain("seat.assign", "a seat", body, query);
}

std::expected<Change, Reply> parse_release(std::string_view body, std::string_view query) {
  return parse_plain("seat.release", "the seat is free", body, query);
}

// Answers its job once. A store that drops its callback uncalled drops the last owner of the turn: that is an answer too.
class ChangeQueue::Turn {
 public:
  Turn(std::shared_ptr<ChangeQueue> queue, Job job) : queue_(std::move(queue)), job_(std::move(job)) {}
  ~Turn() {
    finish({.stored = fail(Origin::store, "the store gave no answer", true)});
    queue_->next();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  Job& job() { return job_; }
  void finish(Outcome outcome) {
    if (auto done = std::exchange(job_.done, nullptr)) done(std::move(outcome));
  }

 private:
  std::shared_ptr<ChangeQueue> queue_;
  Job job_;
};

void ChangeQueue::run(quota::AccountKey key, Milliseconds now,
                      std::function<std::optional<Reply>(LimitOverride&)> apply, Done done) {
  {
    std::lock_guard lock(mutex_);
    waiting_.push_back({std::move(key), now, std::move(apply), std::move(done)});
    if (running_) return;
    running_ = true;
  }
  next();
}

void ChangeQueue::next() {
  std::unique_lock lock(mutex_);
  if (waiting_.empty()) {
    running_ = false;
    return;
  }
  Job job = std::move(waiting_.front());
  waiting_.pop_front();
  lock.unlock();
  begin(std::make_shared<Turn>(shared_from_this(), std::move(job)));
}

void ChangeQueue::begin(const std::shared_ptr<Turn>& turn) {
  get_(turn->job().key, [turn, set = set_](Result<Sources::Override> read) {
    if (!read) return turn->finish({.stored = std::unexpected(read.error())});
    LimitOverride value = read->value_or(LimitOverride{});
    std::erase_if(value.grants,
                  [&](const LimitOverride::Grant& grant) { return grant.until <= turn->job().now; });
    if (auto refusal = turn->job().apply(value))
      return turn->finish({.stored = {}, .refusal = std::move(refusal)});
    Sources::Override next;
    if (!value.empty()) next = std::move(value);
    set(turn->job().key, std::move(next),
        [turn](Result<void> stored) { turn->finish({.stored = std::move(stored)}); });
  });
}

}  // namespace tollgate::admin
