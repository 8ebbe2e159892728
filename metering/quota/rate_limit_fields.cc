#include "metering/quota/rate_limit_fields.h"

#include <fmt/format.h>

#include <algorithm>

#include "metering/base/append.h"

namespace tollgate::quota {
namespace {

constexpr std::uint64_t kStructuredIntegerMax = 999'999'999'999'999;  // RFC 9651 section 3.3.1: 15 digits

std::uint64_t structured_integer(std::uint64_t value) {
  return std::min(value, kStructuredIntegerMax);
}

bool contains(std::span<const std::uint32_t> indexes, std::size_t index) {
  return std::ranges::find(indexes, index) != indexes.end();
}

bool is_plain(char c) {
  return c >= 0x20 && c <= 0x7E && c != '"' && c != '\\';
}

void append_rate_limit(Appender& out, std::string_view policy_name, const AccountState& state) {
  if (std::ranges::all_of(policy_name, is_plain))
    out.text("\"").text(policy_name).text("\"");
  else
    out.text(structured_string(policy_name));
  out.text(";r=").decimal(structured_integer(state.remaining()));
  if (state.next_free_after > Milliseconds(0))
    out.text(";t=").decimal(structured_integer(seconds_up(state.next_free_after)));
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
  std::string out = "\"";
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7E) {
      fmt::format_to(std::back_inserter(out), "%{:02X}", byte);
      continue;
    }
    if (!is_plain(c)) out.push_back('\\');
    out.push_back(c);
  }
  out.push_back('"');
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
  {
    Appender to(out);
    append_rate_limit(to, policy_name, state);
  }
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
                                   std::span<const std::uint32_t> violated, std::string memory) {
  std::string lines = std::move(memory);
  lines.clear();
  lines.reserve(policy.size() + 160);
  {
    Appender out(lines);
    const auto nearest = nearest_to_exhaustion(charges, states, violated);
    if (nearest && charges[*nearest].rule < rules.size()) {
      const AccountState& state = states[*nearest];
      if (options.rate_limit) {
        out.text("RateLimit-Policy: ").text(policy).text("\r\nRateLimit: ");
        append_rate_limit(out, rules[charges[*nearest].rule].name, state);
        out.text("\r\n");
      }
      if (options.legacy) {
        out.text("X-RateLimit-Limit: ").decimal(state.limit);
        out.text("\r\nX-RateLimit-Remaining: ").decimal(state.remaining());
        out.text("\r\nX-RateLimit-Reset: ").decimal(seconds_up(state.next_free_after)).text("\r\n");
      }
    }
    if (!violated.empty())
      if (const auto seconds = retry_after_seconds(states, violated))
        out.text("Retry-After: ").decimal(*seconds).text("\r\n");
  }
  return lines;
}

}  // namespace tollgate::quota
