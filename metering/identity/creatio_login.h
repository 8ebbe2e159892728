// The log-in with forms of Creatio, as it is seen on the wire.
//
//   POST /ServiceModel/AuthService.svc/Login           {"UserName":"ann","UserPassword":"..."}
//   200  Set-Cookie: .ASPXAUTH=9F3C...; HttpOnly       {"Code":0,"Message":"","UserType":"SSP",...}
//   200                                                {"Code":1,"Message":"Invalid username or password ..."}
//   POST /0/rest/MainMenuService/Logout
//
// A wrong password is a 200 too: only the number 0 in Code is a log-in. Who it is stands in the request,
// which the client wrote, but the CRM has checked it against the password; the cookies UserName and UserType
// are the client's own word and are never looked at. Sources: academy.creatio.com node/1390, recorded
// traffic. Pure; bodies are read whole, bounded by the caller.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "metering/base/error.h"
#include "metering/identity/principal.h"
#include "metering/identity/session.h"

namespace tollgate::identity {

// lower_path: normalised and in lower case (catalogue::NormalPath::lower).
SessionStep creatio_step(std::string_view method, std::string_view lower_path);

// session_user() of the UserName in a log-in's body. Errors (origin client): no JSON object, no UserName, one
// that is no name, or two members of that name in whatever case: servers disagree which counts.
Result<std::string> creatio_login_user(std::string_view body);

// The user type when the body of a reply with status 200 says that somebody logged in; nullopt: nobody did.
std::optional<UserType> creatio_login_reply(std::string_view body);

// `name` and the value of a Set-Cookie field, without quotes; nullopt: no name=value pair (RFC 6265 section
// 5.2).
struct SetCookie {
  std::string_view name, value;  // an empty value takes the cookie away
};
std::optional<SetCookie> parse_set_cookie(std::string_view field);

}  // namespace tollgate::identity
