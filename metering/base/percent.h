// Text as it stands in addresses and forms (RFC 3986 section 2): unreserved characters as they are, all else as
// %XX, so that it cannot become anything else there. "a b/c" is "a%20b%2Fc".
#pragma once
#include <string>
#include <string_view>

namespace tollgate {

void append_percent_encoded(std::string& out, std::string_view text);
std::string percent_encoded(std::string_view text);

// Appends name=value as application/x-www-form-urlencoded; after an "&" when there is something already.
void append_form(std::string& form, std::string_view name, std::string_view value);

}  // namespace tollgate
