// Log-ins of the Cherwell REST API, as they are seen on the wire. Its tokens are opaque: whose they are stands in the reply
// that hands them out, and which portal they belong to in the request.
//
//   POST /CherwellAPI/token?auth_mode=Internal&site_name=IT     grant_type=password&client_id=..&username=..&password=..
//   POST /CherwellAPI/token                                     grant_type=refresh_token&client_id=..&refresh_token=..
//   200  {"access_token":"..","token_type":"bearer","expires_in":1199,"refresh_token":"..","username":"CHERWELL\\john",...}
//   DELETE /CherwellAPI/api/V1/logout                           ends the session and frees its licence
//   .../api/V1/runonestepaction...                              may answer {"hasNewAccessToken":true,"newAccessToken":".."}
//
// Sources: help.ivanti.com CSM oauth2_authentication_modes, the vendor's Swagger (models of runonestepaction) and demos.
// Pure; bodies are read whole, bounded by the caller.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/identity/session.h"

namespace tollgate::identity {

// lower_path: normalised and in lower case (catalogue::NormalPath::lower).
SessionStep cherwell_step(std::string_view method, std::string_view lower_path);

struct CherwellLogin {
  std::string refresh_token;  // "": a log-in with a name and password, or another proof of one's own
  std::string site;           // session_user() of site_name; "": not a portal's
};
// query and body of a request for a token, both as sent; parameters may stand in either. Errors (origin client): a
// parameter that counts is there twice, a refresh without a token, a site that is no name.
Result<CherwellLogin> read_cherwell_login(std::string_view query, std::string_view body);

// What a refresh token is called before it is hashed (SessionSecret::key_of): nothing that can stand in an Authorization
// field, so that nobody is known by it in a call.
inline std::string refresh_credential(std::string_view refresh_token) {
  return "refresh " + std::string(refresh_token);
}

struct CherwellTokens {
  std::string access_token, refresh_token;  // refresh_token: "" when there is none
  std::string user;                         // session_user() of username
  Milliseconds lifetime{0};                 // 0: not said
};
// The body of a reply with status 200; nullopt: nobody logged in.
std::optional<CherwellTokens> read_cherwell_tokens(std::string_view body);

// The token that a One-Step's reply puts in the place of the one it was run with; "": none.
std::string cherwell_new_token(std::string_view body);

// The site that a request is for, when it says so: /CherwellPortal/{Site}/..., or site_name in the query. Folded as in
// CherwellLogin; nullopt: it names two, or none that is a name. "": it does not say.
std::optional<std::string> cherwell_site(std::string_view path, std::string_view query);

}  // namespace tollgate::identity
