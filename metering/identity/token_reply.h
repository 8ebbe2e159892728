// Inside of the room: what all replies of token endpoints have in common (RFC 6749 section 5.1).
#pragma once
#include <simdjson.h>

#include <optional>
#include <string_view>

#include "metering/base/time.h"
#include "metering/identity/json_members.h"

namespace tollgate::identity {

// nullopt: no JSON object, or one with a member twice. The views live as long as the parser.
std::optional<JsonMembers> json_object(simdjson::dom::parser& parser, std::string_view body);

// Bytes that can stand in a credential of an Authorization field, 64 KiB at most.
bool is_access_token(std::string_view text);

// expires_in in seconds, as number or text ("1199"), a year at most; 0: not said.
Milliseconds token_lifetime(const JsonMembers& members);

}  // namespace tollgate::identity
