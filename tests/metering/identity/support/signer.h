// Signs tokens straight with OpenSSL, on other paths than the code under test (EVP_PKEY_sign over a digest
// instead of EVP_DigestSign, HMAC() instead of EVP_MAC), so that a mistake in one is not hidden by the same
// mistake in the other.
#pragma once
#include <openssl/evp.h>

#include <memory>
#include <string>
#include <string_view>

#include "metering/base/base64.h"

namespace tollgate::identity::test {

using KeyPair = std::shared_ptr<EVP_PKEY>;

// Made once a process.
const KeyPair& rsa_pair();         // 2048 bits
const KeyPair& ec_pair(int bits);  // 256, 384, 521
const KeyPair& ed25519_pair();
const KeyPair& ed448_pair();
KeyPair new_rsa_pair(unsigned bits);
KeyPair new_ec_pair(const char* curve);

inline const std::string kSecret(64, 's');  // long enough for HS512

std::string public_pem(const KeyPair& pair);
std::string private_pem(const KeyPair& pair);
std::string certificate_pem(const KeyPair& pair);  // self-signed
// A public JWK; `more` is put in front of the last brace, e.g. R"(,"use":"sig")".
std::string jwk(const KeyPair& pair, std::string_view kid = "", std::string_view more = "");
inline std::string jwks(const std::string& keys) {
  return R"({"keys":[)" + keys + "]}";
}

// The raw JWS signature; alg is the JOSE name ("ES256"). The pair is not used for HS*, the secret for nothing
// else.
std::string raw_signature(std::string_view alg, const KeyPair& pair, std::string_view input,
                          std::string_view secret = kSecret);
// DER form of an ES* signature, which is what OpenSSL gives.
std::string der_signature(std::string_view alg, const KeyPair& pair, std::string_view input);

inline std::string signing_input(std::string_view header, std::string_view claims) {
  return base64url_encode(header) + "." + base64url_encode(claims);
}
inline std::string with_signature(const std::string& input, std::string_view signature) {
  return input + "." + base64url_encode(signature);
}
// A compact token with exactly this header and these claims.
inline std::string token(std::string_view alg, const KeyPair& pair, std::string_view header,
                         std::string_view claims, std::string_view secret = kSecret) {
  std::string input = signing_input(header, claims);
  return with_signature(input, raw_signature(alg, pair, input, secret));
}

}  // namespace tollgate::identity::test
