// JSON Web Tokens (RFC 7519, 7515, 7517, 8037, 8725): from the text of a token to a Principal or a refusal.
//
// Rules that keep forgers out:
//   - the algorithm must be in the issuer's list AND fit the key's type; `none` is never accepted; a key from
//     secret_file only serves HS*, a key from a JWKS only its own kty/alg/use (no RS256 -> HS256 confusion)
//   - jku, x5u, jwk, x5c in the header are ignored; `crit` with anything in it is refused (RFC 7515 4.1.11)
//   - duplicate members in the header or duplicate claims that we use are refused: parsers disagree which wins
//   - exp, nbf, iat are numbers; exp is required unless configured otherwise; leeway applies to all three
//   - the user claim must be a non-empty string without control characters
//   - typ is absent, JWT or at+jwt (RFC 9068); nested (cty: JWT) and unencoded (b64: false) tokens are refused
//
// Which keys are tried: those of the issuer that fit the algorithm and whose kid is the token's; a token without kid is
// tried against all that fit, and a key without kid (secret, PEM) stands for any kid. A token that names a key the set
// lacks is refused and makes the ring ask for a fresh set.
// Claims beside the user: tenant and organization are text or whole numbers, user_type is read by parse_user_type(),
// licences are a text or a list of texts; null counts as absent; any other type is refused.
//
// Key sets can change while workers verify: KeyRing holds a pointer to an immutable KeySet
// behind a mutex that is held for one copy of the pointer.
#pragma once
#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/time.h"
#include "metering/identity/key_set.h"
#include "metering/identity/principal.h"

namespace tollgate::identity {

struct IssuerRules {
  std::string issuer;                 // "" accepts any
  std::vector<std::string> audience;  // empty accepts any
  std::vector<std::string> algorithms;
  std::shared_ptr<KeyRing> keys;
  Seconds leeway{30};
  bool require_expiry = true;
  std::string user_claim = "sub", tenant_claim = "tenant", organization_claim = "org",
              user_type_claim = "user_type", licenses_claim = "licenses", site_claim = "site",
              customer_claim = "customer", account_claim = "account", security_right_claim = "security_right",
              consume_license_claim = "consume_license";
};

class TokenVerifier {
 public:
  TokenVerifier(std::vector<IssuerRules> issuers, std::size_t max_token_bytes);

  // Thread-safe. The first issuer whose rules accept the token decides; a token that names an issuer is only tried
  // against that issuer. Cost: one signature check for each key that fits.
  std::expected<std::shared_ptr<const VerifiedToken>, TokenRefusal> verify(std::string_view token,
                                                                           UnixTime now) const;

  const std::vector<IssuerRules>& issuers() const { return issuers_; }
  // Grows whenever a key set of any issuer is swapped: read it before verify(); when it differs from the last call's,
  // clear the token cache first, so that a withdrawn key stops working at once. A few atomic loads.
  std::uint64_t keys_version() const;

 private:
  std::vector<IssuerRules> issuers_;
  std::vector<std::uint32_t> permitted_;  // a bit for each Algorithm, in the order of issuers_
  std::size_t max_token_bytes_;
};

}  // namespace tollgate::identity
