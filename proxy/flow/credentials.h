// Where a request carries its token: the sources of identity.sources in order, Authorization: Bearer by default.
#pragma once
#include <expected>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "metering/identity/principal.h"
#include "proxy/http/message.h"

namespace tollgate::flow {

// The token's text, a view into the head. The first source that is present decides. Refused: nothing was sent
// (token_missing); a source that is there twice, an empty or several-word credential (token_invalid). A scheme other
// than Bearer is not ours: the next source is tried.
std::expected<std::string_view, identity::TokenRefusal> find_token(const config::Identity& settings,
                                                                   const http::RequestHead& head);

// Sources that hold something else than the token that find_token() chose, which must have been found. The caller is known
// by that one: who forwards the others lets him act as somebody else.
std::vector<const config::Identity::Source*> other_tokens(const config::Identity& settings,
                                                          const http::RequestHead& head);

// Connection names a header of identity.sources, so that it would end here although the call is let through for it.
bool strips_token(const config::Identity& settings, const http::RequestHead& head);

}  // namespace tollgate::flow
