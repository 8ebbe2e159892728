// Reason phrases of the status codes that we send ourselves (RFC 9110 section 15).
#pragma once
#include <string_view>

namespace tollgate::flow {

// "" for a code that is not in the registry: the phrase may be empty.
std::string_view status_phrase(int status);

}  // namespace tollgate::flow
