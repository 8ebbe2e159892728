#include "metering/quota/rate_limit_fields.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/ascii.h"

namespace tollgate::quota {
namespace {

constexpr std::uint64_t kStructuredIntegerMax = 999'999'999'999'999;  // RFC 9651 section 3.3.1: 15 digits

std::uint64_t structured_integer(std::uint64_t value) {
  return std::min(value, kStructuredIntegerMax);
}

bool contains(std::span<const std::uint32_t> indexes, std::size_t index) {
  return std::ranges::find(indexes, index) != indexes.end();
}

void append_structured_string(std::string& out, std::string_view text) {
  out.push_back('"');
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7E) {
      fmt::format_to(std::back_inserter(out), "%{:02X}", byte);
      continue;
    }
    if (c == '"' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  out.push_back('"');
}

void append_rate_limit(std::string& out, std::string_view policy_name, const AccountState& state) {
  append_structured_string(out, policy_name);
  append_decimal(out.append(";r="), structured_integer(state.remaining()));
  if (state.next_free_after > Milliseconds(0))
    append_decimal(out.append(";t="), structured_integer(seconds_up(state.next_free_after)));
}

// Part of the limit that is left; a limit of 0 has nothing left.
double part_left(const AccountState& state) {
  return state.limit == 0 ? 0.0 : static_cast<double>(state.remaining()) / static_cast<double>(state.limit);
}

}  // namespace

std::uint64_t seconds_up(Milliseconds duration) {
  const auto ms = static_cast<std::uint64_t>(std::max<std::int64_t>(duration.count(), 0));
  return ms / 1000 + (ms % 1000 != 0 ? 1 : 0);
}

std::string structured_string(std::string_view text) {
  std::string out;
  append_structured_string(out, text);
  return out;
}

std::string rate_limit_policy(std::span<const Rule> rules) {
  std::string out;
  for (const Rule& rule : rules) {
    if (rule.limit == kUnlimited || rule.shadow) continue;
    if (!out.empty()) out += ", ";
    out += fmt::format("{};q={};w={}", structured_string(rule.name), structured_integer(rule.limit),
                       structured_integer(seconds_up(rule.window)));
  }
  return out;
}

std::optional<std::size_t> nearest_to_exhaustion(std::span<const AccountCharge> charges,
                                                 std::span<const AccountState> states,
                                                 std::span<const std::uint32_t> violated) {
  std::optional<std::size_t> nearest;
  for (std::size_t i = 0; i < charges.size() && i < states.size(); ++i) {
    if (charges[i].rule == Rules::kObservation || charges[i].shadow || states[i].limit == kUnlimited)
      continue;
    if (!violated.empty() && !contains(violated, i)) continue;
    if (!nearest) {
      nearest = i;
      continue;
    }
    const AccountState &best = states[*nearest], &one = states[i];
    const bool nearer = violated.empty() ? std::pair(part_left(one), one.remaining()) <
                                               std::pair(part_left(best), best.remaining())
                                         : one.admitted_after > best.admitted_after;
    if (nearer) nearest = i;
  }
  return nearest;
}

std::string rate_limit(std::string_view policy_name, const AccountState& state) {
  std::string out;
  append_rate_limit(out, policy_name, state);
  return out;
}

std::optional<std::uint64_t> retry_after_seconds(std::span<const AccountState> states,
                                                 std::span<const std::uint32_t> violated) {
  std::uint64_t seconds = 1;
  for (std::uint32_t index : violated) {
    if (index >= states.size()) continue;
    if (states[index].admitted_after == Milliseconds::max()) return std::nullopt;
    seconds = std::max(seconds, seconds_up(states[index].admitted_after));
  }
  return seconds;
}

std::string rate_limit_field_lines(const FieldOptions& options, std::string_view policy,
                                   std::span<const Rule> rules, std::span<const AccountCharge> charges,
                                   std::span<const AccountState> states,
                                   std::span<const std::uint32_t> violated) {
  std::string out;
  const auto nearest = nearest_to_exhaustion(charges, states, violated);
  if (nearest && charges[*nearest].rule < rules.size()) {
    const AccountState& state = states[*nearest];
    if (options.rate_limit) {
      out.reserve(policy.size() + 96);
      out.append("RateLimit-Policy: ").append(policy).append("\r\nRateLimit: ");
      append_rate_limit(out, rules[charges[*nearest].rule].name, state);
      out.append("\r\n");
    }
    if (options.legacy) {
      append_decimal(out.append("X-RateLimit-Limit: "), state.limit);
      append_decimal(out.append("\r\nX-RateLimit-Remaining: "), state.remaining());
      append_decimal(out.append("\r\nX-RateLimit-Reset: "), seconds_up(state.next_free_after));
      out.append("\r\n");
    }
  }
  if (!violated.empty())
    if (const auto seconds = retry_after_seconds(states, violated)) {
      append_decimal(out.append("Retry-After: "), *seconds);
      out.append("\r\n");
    }
  return out;
}

}  // namespace tollgate::quota
