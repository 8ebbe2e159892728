// "did you mean ...?": the known name nearest to what somebody typed.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace tollgate::config {

// Edits (insert, delete, replace, swap of neighbours) between two names, without case. Cost: product of the
// lengths.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The nearest candidate, or "" when none is near enough to be meant (more than a third of the letters differ
// and it is no abbreviation).
// First wins among equals.
std::string_view nearest(std::string_view name, std::span<const std::string_view> candidates);

// `; did you mean "listeners"?`, or `; known are: a, b, c` for short lists without a near one, or "".
std::string did_you_mean(std::string_view name, std::span<const std::string_view> candidates);

}  // namespace tollgate::config
