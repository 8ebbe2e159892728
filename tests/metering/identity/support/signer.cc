#include "tests/metering/identity/support/signer.h"

#include <fmt/format.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <functional>
#include <vector>

#include "metering/base/check.h"

namespace tollgate::identity::test {
namespace {

KeyPair own(EVP_PKEY* pkey) {
  CHECK(pkey != nullptr, "no key pair");
  return KeyPair(pkey, EVP_PKEY_free);
}

const EVP_MD* hash_of(std::string_view alg) {
  if (alg.ends_with("256")) return EVP_sha256();
  return alg.ends_with("384") ? EVP_sha384() : EVP_sha512();
}

std::string text_of(const std::function<int(BIO*)>& write) {
  std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new(BIO_s_mem()), BIO_free_all);
  CHECK(write(bio.get()) == 1, "cannot write PEM");
  char* start = nullptr;
  long length = BIO_get_mem_data(bio.get(), &start);
  return std::string(start, static_cast<std::size_t>(length));
}

std::string number(const EVP_PKEY* pkey, const char* name, int width = 0) {
  BIGNUM* value = nullptr;
  CHECK(EVP_PKEY_get_bn_param(pkey, name, &value) == 1, "no such number");
  std::string out(static_cast<std::size_t>(width > 0 ? width : BN_num_bytes(value)), '\0');
  BN_bn2binpad(value, reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(out.size()));
  BN_free(value);
  return base64url_encode(out);
}

// EVP_PKEY_sign over a digest computed apart.
std::string sign_digest(std::string_view alg, EVP_PKEY* pkey, std::string_view input) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  CHECK(EVP_Digest(input.data(), input.size(), digest, &length, hash_of(alg), nullptr) == 1, "digest");
  std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> context(EVP_PKEY_CTX_new(pkey, nullptr),
                                                                      EVP_PKEY_CTX_free);
  CHECK(EVP_PKEY_sign_init(context.get()) == 1, "sign_init");
  if (alg.starts_with("PS")) {
    CHECK(EVP_PKEY_CTX_set_rsa_padding(context.get(), RSA_PKCS1_PSS_PADDING) == 1, "padding");
    CHECK(EVP_PKEY_CTX_set_rsa_pss_saltlen(context.get(), static_cast<int>(length)) == 1, "salt");
  } else if (alg.starts_with("RS")) {
    CHECK(EVP_PKEY_CTX_set_rsa_padding(context.get(), RSA_PKCS1_PADDING) == 1, "padding");
  }
  CHECK(EVP_PKEY_CTX_set_signature_md(context.get(), hash_of(alg)) == 1, "md");
  std::size_t size = 0;
  CHECK(EVP_PKEY_sign(context.get(), nullptr, &size, digest, length) == 1, "sign");
  std::string out(size, '\0');
  CHECK(
      EVP_PKEY_sign(context.get(), reinterpret_cast<unsigned char*>(out.data()), &size, digest, length) == 1,
      "sign");
  out.resize(size);
  return out;
}

}  // namespace

KeyPair new_rsa_pair(unsigned bits) {
  return own(EVP_RSA_gen(bits));
}
KeyPair new_ec_pair(const char* curve) {
  return own(EVP_EC_gen(curve));
}

const KeyPair& rsa_pair() {
  static const KeyPair pair = new_rsa_pair(2048);
  return pair;
}
const KeyPair& ec_pair(int bits) {
  static const KeyPair p256 = new_ec_pair("P-256"), p384 = new_ec_pair("P-384"), p521 = new_ec_pair("P-521");
  return bits == 256 ? p256 : bits == 384 ? p384 : p521;
}
const KeyPair& ed25519_pair() {
  static const KeyPair pair = own(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  return pair;
}
const KeyPair& ed448_pair() {
  static const KeyPair pair = own(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED448"));
  return pair;
}

std::string public_pem(const KeyPair& pair) {
  return text_of([&](BIO* bio) { return PEM_write_bio_PUBKEY(bio, pair.get()); });
}
std::string private_pem(const KeyPair& pair) {
  return text_of([&](BIO* bio) {
    return PEM_write_bio_PrivateKey(bio, pair.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
}
std::string certificate_pem(const KeyPair& pair) {
  std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), pair.get());
  CHECK(X509_sign(certificate.get(), pair.get(), EVP_sha256()) > 0, "certificate");
  return text_of([&](BIO* bio) { return PEM_write_bio_X509(bio, certificate.get()); });
}

std::string jwk(const KeyPair& pair, std::string_view kid, std::string_view more) {
  std::string out;
  if (EVP_PKEY_is_a(pair.get(), "RSA")) {
    out = fmt::format(R"({{"kty":"RSA","n":"{}","e":"{}")", number(pair.get(), OSSL_PKEY_PARAM_RSA_N),
                      number(pair.get(), OSSL_PKEY_PARAM_RSA_E));
  } else if (EVP_PKEY_is_a(pair.get(), "EC")) {
    int bits = EVP_PKEY_get_bits(pair.get()), width = (bits + 7) / 8;
    out = fmt::format(R"({{"kty":"EC","crv":"P-{}","x":"{}","y":"{}")", bits,
                      number(pair.get(), OSSL_PKEY_PARAM_EC_PUB_X, width),
                      number(pair.get(), OSSL_PKEY_PARAM_EC_PUB_Y, width));
  } else {
    std::size_t size = 0;
    EVP_PKEY_get_raw_public_key(pair.get(), nullptr, &size);
    std::string raw(size, '\0');
    EVP_PKEY_get_raw_public_key(pair.get(), reinterpret_cast<unsigned char*>(raw.data()), &size);
    out = fmt::format(R"({{"kty":"OKP","crv":"{}","x":"{}")", size == 32 ? "Ed25519" : "Ed448",
                      base64url_encode(raw));
  }
  if (!kid.empty()) out += fmt::format(R"(,"kid":"{}")", kid);
  return out + std::string(more) + "}";
}

std::string der_signature(std::string_view alg, const KeyPair& pair, std::string_view input) {
  return sign_digest(alg, pair.get(), input);
}

std::string raw_signature(std::string_view alg, const KeyPair& pair, std::string_view input,
                          std::string_view secret) {
  if (alg.starts_with("HS")) {
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    HMAC(hash_of(alg), secret.data(), static_cast<int>(secret.size()),
         reinterpret_cast<const unsigned char*>(input.data()), input.size(), mac, &length);
    return std::string(reinterpret_cast<char*>(mac), length);
  }
  if (alg == "EdDSA") {
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    std::size_t size = 200;
    std::string out(size, '\0');
    CHECK(EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, pair.get()) == 1, "init");
    CHECK(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(out.data()), &size,
                         reinterpret_cast<const unsigned char*>(input.data()), input.size()) == 1,
          "sign");
    out.resize(size);
    return out;
  }
  std::string signature = sign_digest(alg, pair.get(), input);
  if (!alg.starts_with("ES")) return signature;
  auto width = static_cast<std::size_t>((EVP_PKEY_get_bits(pair.get()) + 7) / 8);
  const auto* at = reinterpret_cast<const unsigned char*>(signature.data());
  ECDSA_SIG* parsed = d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(signature.size()));
  std::string out(2 * width, '\0');
  auto* bytes = reinterpret_cast<unsigned char*>(out.data());
  BN_bn2binpad(ECDSA_SIG_get0_r(parsed), bytes, static_cast<int>(width));
  BN_bn2binpad(ECDSA_SIG_get0_s(parsed), bytes + width, static_cast<int>(width));
  ECDSA_SIG_free(parsed);
  return out;
}

}  // namespace tollgate::identity::test
