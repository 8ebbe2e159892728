// The text of one value to its meaning. Failures are the end of a sentence that begins with the value itself:
// `"50" ` + `needs a unit: write 50ms or 50s`.
#pragma once
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "config/keys.h"
#include "metering/base/time.h"

namespace tollgate::config {

template <class T>
using Parsed = std::expected<T, std::string>;

// Decimal digits, no sign, no leading zero (YAML reads 010 as eight, people as ten).
Parsed<std::uint64_t> parse_number(std::string_view text);
// "250ms", "10s", "5m", "24h", "31d", or several with falling units: "1h30m". "0" needs no unit.
Parsed<Milliseconds> parse_duration(std::string_view text);
// "512", "64KiB", "8MiB", "1GiB": powers of 1024.
Parsed<std::uint64_t> parse_size(std::string_view text);
Parsed<bool> parse_flag(std::string_view text);

// The shortest text that parse_duration / parse_size read back as the same: 86'400'000 ms -> "1d".
std::string duration_text(Milliseconds duration);
std::string size_text(std::uint64_t bytes);

// Checks a text against its format and returns its normal form: "localhost:80" -> "127.0.0.1:80",
// "HTTP://crm/" -> "http://crm:80". Paths are returned as they are (config/load makes them absolute).
Parsed<std::string> check_format(std::string_view text, Format format);

// The password inside a store URL, or "".
std::string_view password_of_url(std::string_view url);
// The URL with the password replaced by "***".
std::string redact_url(std::string_view url);

}  // namespace tollgate::config
