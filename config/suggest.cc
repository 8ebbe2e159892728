#include "config/suggest.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "metering/base/ascii.h"

namespace tollgate::config {
namespace {
constexpr std::size_t kComparedMax = 64;  // longer names are no typing mistake
constexpr std::size_t kListedMax = 13;

// "lisen" is meant as "listeners": its letters stand there in this order, and are half of them.
bool is_abbreviation(std::string_view name, std::string_view candidate) {
  if (name.size() * 2 < candidate.size()) return false;
  std::size_t found = 0;
  for (char c : candidate)
    if (found < name.size() && ascii_lower(name[found]) == ascii_lower(c)) ++found;
  return found == name.size();
}
}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      auto same = [&](std::size_t x, std::size_t y) { return ascii_lower(a[x]) == ascii_lower(b[y]); };
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same(i - 1, j - 1) ? 0U : 1U)});
      if (i > 1 && j > 1 && same(i - 1, j - 2) && same(i - 2, j - 1))
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string_view nearest(std::string_view name, std::span<const std::string_view> candidates) {
  std::string_view best;
  if (name.empty() || name.size() > kComparedMax) return best;
  std::size_t best_distance = SIZE_MAX;
  for (std::string_view candidate : candidates) {
    std::size_t distance = edit_distance(name, candidate);
    std::size_t near = std::max<std::size_t>(1, std::max(name.size(), candidate.size()) / 3);
    if ((distance <= near || is_abbreviation(name, candidate)) && distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view name, std::span<const std::string_view> candidates) {
  if (std::string_view best = nearest(name, candidates); !best.empty())
    return fmt::format("; did you mean \"{}\"?", best);
  if (candidates.empty() || candidates.size() > kListedMax) return "";
  return fmt::format("; known are: {}", fmt::join(candidates, ", "));
}

}  // namespace tollgate::config
