#include "metering/identity/mint.h"

#include <fmt/format.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <algorithm>
#include <array>

#include "metering/base/base64.h"
#include "metering/base/json_text.h"
#include "metering/identity/key_material.h"

namespace tollgate::identity {
namespace {

Result<std::string> sign_hmac(Algorithm algorithm, std::string_view key, std::string_view input) {
  auto secret = decode_secret(key);
  if (!secret) return std::unexpected(secret.error());
  if (secret->size() < hash_bytes(algorithm))
    return fail(Origin::config,
                fmt::format("the secret has {} bytes, but {} needs at least {} (RFC 7518 section 3.2)",
                            secret->size(), name(algorithm), hash_bytes(algorithm)));
  std::array<unsigned char, EVP_MAX_MD_SIZE> mac{};
  std::size_t length = 0;
  if (EVP_Q_mac(nullptr, "HMAC", nullptr, EVP_MD_get0_name(digest(algorithm)), nullptr, secret->data(),
                secret->size(), openssl::bytes(input), input.size(), mac.data(), mac.size(),
                &length) == nullptr)
    return fail(Origin::self, "OpenSSL cannot compute the HMAC");
  return std::string(reinterpret_cast<char*>(mac.data()), length);
}

// The DER form that OpenSSL writes -> r||s, each as long as a coordinate (RFC 7518 section 3.4).
Result<std::string> raw_ecdsa(std::string_view der, KeyType curve) {
  std::size_t coordinate = curve == KeyType::ec_p256 ? 32 : curve == KeyType::ec_p384 ? 48 : 66;
  const unsigned char* at = openssl::bytes(der);
  openssl::EcdsaSignature signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size())));
  std::string out(2 * coordinate, '\0');
  auto* bytes = reinterpret_cast<unsigned char*>(out.data());
  int length = static_cast<int>(coordinate);
  if (!signature || BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), bytes, length) != length ||
      BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), bytes + coordinate, length) != length)
    return fail(Origin::self, "OpenSSL wrote an ECDSA signature that cannot be read");
  return out;
}

Result<openssl::Pkey> private_key(std::string_view pem, Algorithm algorithm) {
  openssl::Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  auto no_passphrase = [](char*, int, int, void*) { return -1; };  // else OpenSSL would ask on the terminal
  openssl::Pkey pkey(bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr) : nullptr);
  if (!pkey) return fail(Origin::config, "the key is not a private key in PEM without a passphrase");
  auto type = type_of(pkey.get());
  if (!type) return std::unexpected(type.error());
  if (!type_fits(*type, algorithm))
    return fail(Origin::config, fmt::format("a {} key does not sign {}", name(*type), name(algorithm)));
  return pkey;
}

}  // namespace

Claim text_claim(std::string_view name, std::string_view value) {
  Claim claim{std::string(name), {}};
  append_json_string(claim.json, value);
  return claim;
}

Claim number_claim(std::string_view name, std::int64_t value) {
  return {std::string(name), std::to_string(value)};
}

Claim texts_claim(std::string_view name, const std::vector<std::string>& values) {
  Claim claim{std::string(name), {}};
  JsonWriter json(claim.json);
  json.array([&] {
    for (const std::string& value : values) json.value(value);
  });
  return claim;
}

Result<std::string> sign(Algorithm algorithm, std::string_view key, std::string_view signing_input) {
  openssl::ErrorScope errors;
  if (type_fits(KeyType::secret, algorithm)) return sign_hmac(algorithm, key, signing_input);
  auto pkey = private_key(key, algorithm);
  if (!pkey) return std::unexpected(pkey.error());
  openssl::DigestContext context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* options = nullptr;  // owned by the context
  bool ready =
      context && EVP_DigestSignInit(context.get(), &options, digest(algorithm), nullptr, pkey->get()) == 1;
  if (ready && algorithm >= Algorithm::ps256 && algorithm <= Algorithm::ps512)
    ready = EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
            EVP_PKEY_CTX_set_rsa_mgf1_md(options, digest(algorithm)) == 1 &&
            EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1;
  std::size_t length = 0;
  std::string out;
  if (ready && EVP_DigestSign(context.get(), nullptr, &length, openssl::bytes(signing_input),
                              signing_input.size()) == 1) {
    out.resize(length);
    ready = EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(out.data()), &length,
                           openssl::bytes(signing_input), signing_input.size()) == 1;
    out.resize(length);
  }
  if (!ready || out.empty())
    return fail(Origin::self, fmt::format("OpenSSL cannot sign {} with this key", name(algorithm)));
  if (auto curve = curve_of(algorithm)) return raw_ecdsa(out, *curve);
  return out;
}

Result<std::string> mint_token(const Mint& mint) {
  std::string header, claims;
  JsonWriter header_json(header);
  header_json.object([&] {
    header_json.field("alg", name(mint.algorithm));
    if (!mint.typ.empty()) header_json.field("typ", mint.typ);
    if (!mint.kid.empty()) header_json.field("kid", mint.kid);
  });
  JsonWriter claims_json(claims);
  claims_json.object([&] {
    for (const Claim& claim : mint.claims) {
      claims_json.key(claim.name);
      claims_json.raw(claim.json);
    }
  });
  std::string input = base64url_encode(header) + "." + base64url_encode(claims);
  auto signature = sign(mint.algorithm, mint.key, input);
  if (!signature) return std::unexpected(signature.error());
  return input + "." + base64url_encode(*signature);
}

}  // namespace tollgate::identity
