// Where a request carries its token: the sources of identity.sources in order, Authorization: Bearer by default.
#pragma once
#include <expected>
#include <string_view>

#include "config/settings.h"
#include "metering/identity/principal.h"
#include "proxy/http/message.h"

namespace tollgate::flow {

// The token's text, a view into the head. The first source that is present decides. Refused: nothing was sent
// (token_missing); a source that is there twice, an empty or several-word credential (token_invalid). A scheme other
// than Bearer is not ours: the next source is tried.
std::expected<std::string_view, identity::TokenRefusal> find_token(const config::Identity& settings,
                                                                   const http::RequestHead& head);

}  // namespace tollgate::flow
