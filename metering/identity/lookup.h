// Whose credential it is, when only somebody else can tell: an authorization server (token introspection, RFC 7662), or
// the CRM, asked as the caller or for him. What is asked and how the answer is read are data, one LookupSource for each
// way; net::LookupService asks, LookupTable remembers.
//
//   introspection   POST https://idp.example/introspect         {"active":true,"sub":"ann","exp":1795003600,...}
//                   Authorization: Basic ..., token=2YotnFZF
//   current user    GET https://www.zohoapis.com/crm/v8/users?type=CurrentUser
//                   Authorization: Zoho-oauthtoken 1000.x.y     {"users":[{"email":"ann@acme.example",...}]}
//   session         GET https://crm.example/0/rest/UsrWhoAmI/Get
//                   Cookie: .ASPXAUTH=9F3C...                   {"user":"ann","user_type":"SSP"}
//
// Only a reply that was meant settles something. Somebody: 200 and an object that names him. Nobody: 200 and
// `active: false` (RFC 7662 section 2.2), or the CRM's 401 to the credential. All else (5xx, a 401 to our own credentials, a
// page instead of JSON) is a failure, which settles nothing: it must not lock a caller out for as long as a verdict holds.
//
// Pure; every function may be called from any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/identity/token_verifier.h"

namespace tollgate::identity {

struct LookupSource {
  std::string name;  // key in the settings: "identity.introspection"
  std::string url;
  std::string ca_file;          // PEM bundle; "" is the system's store
  Milliseconds timeout{2'000};  // the whole exchange

  // Where the credential goes: a parameter of a form (POST), or a field of the request (GET).
  enum class Place : std::uint8_t { form, header };
  Place place = Place::form;
  std::string field = "token";       // name of the parameter or field
  std::string prefix;                // header: before the credential: "Zoho-oauthtoken "
  std::string more_form;             // further parameters: "client_id=tollgate&client_secret=..."
  std::vector<std::string> headers;  // further fields: "Authorization: Basic ..."

  // How the reply is read.
  std::string
      at;  // JSON pointer (RFC 6901) to the object that speaks of the user: "/users/0"; "" is the reply itself
  bool active = false;                  // the object has to say `active: true`
  bool unauthorized_is_nobody = false;  // a 401 speaks of the credential, not of us
  IssuerRules rules;                    // names of claims and what has to be in aud; no keys
  std::string refusal;                  // for the caller who is nobody: "The access token is not active."

  // How long a verdict holds at most; of a user also not beyond `exp`.
  Milliseconds max_age{60'000}, negative_age{10'000};
};

// What tells two sources apart whose verdicts differ: all of the above but name and timeout. Holds secrets; only
// LookupTable::key_of() takes it.
std::string lookup_identity(const LookupSource& source);

struct LookupRequest {
  bool post = false;
  std::string body;
  std::vector<std::string> headers;
};
// The credential is written so that it cannot become anything else: percent-encoded in a form; with a control character
// it does not go into a field (error, origin client).
Result<LookupRequest> lookup_request(const LookupSource& source, std::string_view credential);

// What a reply settles. Somebody: `user`, which ends at `until`. Nobody: nullptr, and the refusal for the caller.
struct LookupVerdict {
  std::shared_ptr<const VerifiedToken> user;
  TokenRefusal refusal;
  UnixTime until;
};
// Errors (origin upstream) say for the log why the reply settles nothing, and never quote it.
Result<LookupVerdict> read_lookup(const LookupSource& source, int status, std::string_view body,
                                  UnixTime now);

// "Authorization: Basic ..." of an OAuth client: both parts are form-encoded first (RFC 6749 section 2.3.1).
std::string basic_of_client(std::string_view id, std::string_view secret);

inline constexpr std::size_t kLookupReplyMax = 64 * 1024;  // bytes that are read of a reply

}  // namespace tollgate::identity
