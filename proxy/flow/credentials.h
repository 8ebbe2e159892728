// Where a request carries its token: the sources of identity.sources in order, Authorization: Bearer by default.
#pragma once
#include <expected>
#include <optional>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "metering/identity/principal.h"
#include "proxy/http/message.h"

namespace tollgate::flow {

// The token's text, a view into the head. The first source that is present decides. Refused: nothing was sent
// (token_missing); a source that is there twice, an empty or several-word credential (token_invalid). A scheme other
// than Bearer (with identity.current_user: and Zoho-oauthtoken) is not ours: the next source is tried.
std::expected<std::string_view, identity::TokenRefusal> find_token(const config::Identity& settings,
                                                                   const http::RequestHead& head);

// Sources that hold something else than the token that find_token() chose, which must have been found. The caller is known
// by that one: who forwards the others lets him act as somebody else.
std::vector<const config::Identity::Source*> other_tokens(const config::Identity& settings,
                                                          const http::RequestHead& head);

// The key of identity.api_keys, a view into the head; nullopt: none was sent. Refused: it is there twice, or empty.
std::expected<std::optional<std::string_view>, identity::TokenRefusal> find_api_key(
    const config::ApiKeys& settings, const http::RequestHead& head);

// The CRM's own session, when the request carries one: the first cookie of sessions.cookies that is there. Names compare
// without case, as ASP.NET does. Refused: it is there twice, with different values (token_invalid).
struct SessionCookie {
  std::string_view name;  // in the settings
  std::string_view value;
};
std::expected<std::optional<SessionCookie>, identity::TokenRefusal> find_session(
    const config::Sessions& settings, const http::RequestHead& head);

// The names, as the request spells them, of all its cookies that could be a session.
void list_session_cookies(const config::Sessions& settings, const http::RequestHead& head,
                          std::vector<std::string_view>& names);

// Connection names a header of identity.sources or the one of API keys, so that it would end here although the call is let through for it.
bool strips_token(const config::Identity& settings, const http::RequestHead& head);

}  // namespace tollgate::flow
