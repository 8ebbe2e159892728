// An access token for a client of its own account: the client credentials grant (RFC 6749 section 4.4), as
// Creatio's Identity Service has it (academy.creatio.com, "Authorize external requests using client credentials
// grant").
//
//   POST https://idp.example/connect/token    grant_type=client_credentials&client_id=..&client_secret=..&scope=..
//   200  {"access_token":"eyJ..","expires_in":3600,"token_type":"Bearer"}
//   400  {"error":"invalid_client"}
//
// Pure. Nothing here quotes a secret, a token, or a text of the server's.
#pragma once
#include <expected>
#include <string>
#include <string_view>

#include "metering/base/time.h"

namespace tollgate::identity {

struct ClientCredentials {
  std::string token_url;  // "": this is not how to log in
  std::string client_id, client_secret;
  std::string scope;  // words with blanks between them; "": what the server gives
  bool operator==(const ClientCredentials&) const = default;
};

// The body of the request. The secret stands in the form (section 2.3.1), where Creatio wants it.
std::string token_form(const ClientCredentials& client);

struct AccessToken {
  std::string text;
  Milliseconds lifetime{0};  // 0: not said
};
// A clause that says why there is no token: an error of section 5.2 by its name, a type other than Bearer, ...
std::expected<AccessToken, std::string> read_access_token(int status, std::string_view body);

// How long a token is used: until 30 s before it ends, one of less than a minute for half its life. Without a
// lifetime until it is refused: Milliseconds::max().
Milliseconds use_of_token(Milliseconds lifetime);

}  // namespace tollgate::identity
