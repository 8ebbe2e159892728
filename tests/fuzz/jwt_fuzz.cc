// Everything of the token room that reads what strangers or operators wrote. The first byte picks the reader:
//   't'  the rest is a token, as it comes from the network: it must be refused unless its HMAC is right,
//   recomputed here 's'  the rest is header, line feed, claims: signed properly, so that the rules behind the
//   signature are reached 'k'  a JWKS or PEM text        'p'  a secret file        'd'  a directory CSV
// In all cases: no crash, no leak, and what comes out keeps the promises of the headers.
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "metering/base/base64.h"
#include "metering/base/check.h"
#include "metering/identity/directory.h"
#include "metering/identity/token_verifier.h"

namespace {

using namespace tollgate;
using namespace tollgate::identity;

const std::string kSecret(64, 's');
constexpr std::int64_t kNow = 1'800'000'000;

std::string hmac(std::string_view input) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  HMAC(EVP_sha256(), kSecret.data(), static_cast<int>(kSecret.size()),
       reinterpret_cast<const unsigned char*>(input.data()), input.size(), mac, &length);
  return std::string(reinterpret_cast<char*>(mac), length);
}

const TokenVerifier& verifier() {
  static const TokenVerifier instance = [] {
    IssuerRules named;
    named.issuer = "https://idp.example";
    named.audience = {"crm-portal"};
    named.algorithms = {"HS256"};
    named.keys = std::make_shared<KeyRing>(*KeySet::from_secret(kSecret));
    // Public keys of RFC 7515 A.2 and A.3 and RFC 8037 A.4.
    IssuerRules any = named;
    any.issuer = "";
    any.audience = {};
    any.algorithms = {"HS256", "RS256", "PS256", "ES256", "EdDSA"};
    any.require_expiry = false;
    any.keys = std::make_shared<KeyRing>(*KeySet::from_jwks(R"({"keys":[
      {"kty":"EC","crv":"P-256","kid":"e","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
      {"kty":"OKP","crv":"Ed25519","kid":"o","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})"));
    return TokenVerifier({named, any}, 8192);
  }();
  return instance;
}

void check_verified(const VerifiedToken& token) {
  CHECK(!token.principal.user.empty(), "a user");
  for (char c : token.principal.user)
    CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F, "no control character");
  CHECK(token.not_before <= from_unix_seconds(kNow) && from_unix_seconds(kNow) < token.expires_at,
        "valid now");
}

void try_token(std::string_view text) {
  auto verified = verifier().verify(text, from_unix_seconds(kNow));
  if (!verified) {
    CHECK(!verified.error().detail.empty(), "every refusal says why");
    return;
  }
  check_verified(**verified);
  std::size_t dot = text.rfind('.');
  CHECK(base64url_encode(hmac(text.substr(0, dot))) == text.substr(dot + 1),
        "accepted without the one right signature");
}

void try_signed(std::string_view text) {
  std::size_t line = text.find('\n');
  if (line == std::string_view::npos) return;
  std::string input = base64url_encode(text.substr(0, line)) + "." + base64url_encode(text.substr(line + 1));
  try_token(input + "." + base64url_encode(hmac(input)));
}

void try_key_set(std::string_view text) {
  auto set = KeySet::from_text(text);
  if (!set) {
    CHECK(!set.error().message.empty(), "every error says why");
    return;
  }
  CHECK(!set->keys().empty() && set->keys().size() <= KeySet::kMaxKeys, "a set has keys");
  for (const Key& key : set->keys())
    for (std::size_t i = 0; i < kAlgorithmCount; ++i) {
      auto algorithm = static_cast<Algorithm>(i);
      CHECK((key.type() == KeyType::secret) == (key.fits(algorithm) && i < 3) || !key.fits(algorithm),
            "types do not mix");
      CHECK(!key.verify(algorithm, "input", "signature"), "no key accepts rubbish");
    }
}

void try_directory(std::string_view text) {
  auto directory = Directory::parse(text);
  if (!directory) CHECK(directory.error().message.starts_with("line "), "errors name the line");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 't':
      try_token(text);
      break;
    case 's':
      try_signed(text);
      break;
    case 'k':
      try_key_set(text);
      break;
    case 'p':
      static_cast<void>(KeySet::from_secret(text));
      break;
    case 'd':
      try_directory(text);
      break;
    default:
      break;
  }
  return 0;
}
