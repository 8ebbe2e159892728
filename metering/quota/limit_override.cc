#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/quota/store_model.h"

namespace tollgate::quota {
namespace {

constexpr std::uint64_t kMomentMax = 1ULL << 48;  // ms

// One spelling a number: no leading zeros.
std::optional<std::uint64_t> parse_number(std::string_view text, std::uint64_t most) {
  if (text.size() > 1 && text.front() == '0') return std::nullopt;
  const auto number = parse_decimal(text);
  return number && *number <= most ? number : std::nullopt;
}

}  // namespace

std::uint64_t LimitOverride::effective(std::uint64_t rule_limit, Milliseconds now) const {
  std::uint64_t sum = limit.value_or(rule_limit);
  if (sum > kLimitMax) return kUnlimited;
  for (const Grant& grant : grants)
    if (grant.until > now) sum = std::min(sum + std::min(grant.extra, kLimitMax), kLimitMax);
  return sum;
}

std::string LimitOverride::format() const {
  if (empty()) return "";
  std::string out = !limit ? "-" : *limit > kLimitMax ? "*" : std::to_string(*limit);
  for (const Grant& grant : grants)
    out +=
        ";+" + std::to_string(std::min(grant.extra, kLimitMax)) + "@" + std::to_string(grant.until.count());
  return out;
}

std::optional<LimitOverride> LimitOverride::parse(std::string_view text) {
  LimitOverride out;
  const std::size_t first_end = std::min(text.find(';'), text.size());
  const std::string_view base = text.substr(0, first_end);
  text.remove_prefix(first_end);
  if (base == "*") {
    out.limit = kUnlimited;
  } else if (base != "-") {
    out.limit = parse_number(base, kLimitMax);
    if (!out.limit) return std::nullopt;
  }
  while (!text.empty()) {
    text.remove_prefix(1);
    const std::string_view grant = text.substr(0, text.find(';'));
    text.remove_prefix(grant.size());
    const std::size_t at = grant.find('@');
    if (!grant.starts_with('+') || at == std::string_view::npos) return std::nullopt;
    const auto extra = parse_number(grant.substr(1, at - 1), kLimitMax);
    const auto until = parse_number(grant.substr(at + 1), kMomentMax);
    if (!extra || !until || out.grants.size() == kGrantsMax) return std::nullopt;
    out.grants.push_back({*extra, Milliseconds(static_cast<std::int64_t>(*until))});
  }
  if (out.empty()) return std::nullopt;
  return out;
}

}  // namespace tollgate::quota
