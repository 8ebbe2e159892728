// Moments as RFC 3339 writes them, "2026-11-23T18:00:00Z". Pure.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "metering/base/time.h"

namespace tollgate {

// To the second, rounded down.
std::string format_moment(Milliseconds since_1970);
// Accepts fractions (dropped) and offsets; refuses dates that do not exist and years beyond 9999.
std::optional<Milliseconds> parse_moment(std::string_view text);

}  // namespace tollgate
