// Signing tokens: for `tollgate token` (development tokens from the configuration's own secret) and for
// tests. Tollgate never mints a token while it serves.
//
//   Mint mint{.algorithm = Algorithm::hs256, .key = secret_file_content, .kid = "", .typ = "JWT",
//             .claims = {text_claim("sub", "ann"), number_claim("exp", 1'900'000'000)}};
//   Result<std::string> token = mint_token(mint);
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/identity/key_set.h"

namespace tollgate::identity {

struct Claim {
  std::string name;
  std::string json;  // the value as JSON text, written as it stands
};
Claim text_claim(std::string_view name, std::string_view value);
Claim number_claim(std::string_view name, std::int64_t value);
Claim texts_claim(std::string_view name, const std::vector<std::string>& values);

struct Mint {
  Algorithm algorithm = Algorithm::hs256;
  std::string key;            // HS*: content of a secret file (see decode_secret); else a private key in PEM
  std::string kid;            // "" leaves it out of the header
  std::string typ = "JWT";    // "" leaves it out of the header
  std::vector<Claim> claims;  // in the order in which they are written
};

// A compact JWS. Errors: key unreadable, of a type that does not fit the algorithm, secret too short.
Result<std::string> mint_token(const Mint& mint);

// The raw JWS signature over any bytes, with the same rules for the key.
Result<std::string> sign(Algorithm algorithm, std::string_view key, std::string_view signing_input);

}  // namespace tollgate::identity
