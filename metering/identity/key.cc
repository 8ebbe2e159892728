#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/rsa.h>

#include <algorithm>

#include "metering/base/check.h"
#include "metering/identity/key_material.h"

namespace tollgate::identity {
namespace {

struct AlgorithmInfo {
  std::string_view name;
  const char* digest;  // OpenSSL's name; nullptr: the algorithm hashes by itself
  std::size_t hash_bytes;
};
constexpr std::array<AlgorithmInfo, kAlgorithmCount> kAlgorithms = {{
    {"HS256", "SHA256", 32},
    {"HS384", "SHA384", 48},
    {"HS512", "SHA512", 64},
    {"RS256", "SHA256", 32},
    {"RS384", "SHA384", 48},
    {"RS512", "SHA512", 64},
    {"PS256", "SHA256", 32},
    {"PS384", "SHA384", 48},
    {"PS512", "SHA512", 64},
    {"ES256", "SHA256", 32},
    {"ES384", "SHA384", 48},
    {"ES512", "SHA512", 64},
    {"EdDSA", nullptr, 0},
}};

constexpr int kRsaBitsMin = 2048;  // RFC 7518 sections 3.3 and 3.5
constexpr int kRsaBitsMax =
    8192;  // a verification with more takes milliseconds: a lever for whoever sends garbage

const AlgorithmInfo& info(Algorithm algorithm) {
  CHECK(algorithm < Algorithm::kCount, "unknown algorithm");
  return kAlgorithms[static_cast<std::size_t>(algorithm)];
}
bool within(Algorithm algorithm, Algorithm first, Algorithm last) {
  return algorithm >= first && algorithm <= last;
}
bool is_pss(Algorithm algorithm) {
  return within(algorithm, Algorithm::ps256, Algorithm::ps512);
}
bool is_ecdsa(Algorithm algorithm) {
  return within(algorithm, Algorithm::es256, Algorithm::es512);
}
bool is_hmac(Algorithm algorithm) {
  return within(algorithm, Algorithm::hs256, Algorithm::hs512);
}

std::size_t coordinate_bytes(KeyType type) {
  switch (type) {
    case KeyType::ec_p256:
      return 32;
    case KeyType::ec_p384:
      return 48;
    case KeyType::ec_p521:
      return 66;
    default:
      return 0;
  }
}

openssl::DigestContext verification(EVP_PKEY* pkey, Algorithm algorithm) {
  openssl::DigestContext context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* options = nullptr;  // owned by the context
  if (!context || EVP_DigestVerifyInit(context.get(), &options, digest(algorithm), nullptr, pkey) != 1)
    return nullptr;
  if (is_pss(algorithm) && (EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) != 1 ||
                            EVP_PKEY_CTX_set_rsa_mgf1_md(options, digest(algorithm)) != 1 ||
                            EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) != 1))
    return nullptr;
  return context;
}

// r||s of exactly twice the coordinate's length -> the DER form that OpenSSL reads; "" when r or s is zero.
// Values at or above the order are turned away by the verification itself.
std::string ecdsa_der(std::string_view raw, std::size_t coordinate) {
  openssl::Number r(BN_bin2bn(openssl::bytes(raw), static_cast<int>(coordinate), nullptr));
  openssl::Number s(BN_bin2bn(openssl::bytes(raw.substr(coordinate)), static_cast<int>(coordinate), nullptr));
  if (!r || !s || BN_is_zero(r.get()) || BN_is_zero(s.get())) return {};
  openssl::EcdsaSignature signature(ECDSA_SIG_new());
  if (!signature || ECDSA_SIG_set0(signature.get(), r.get(), s.get()) != 1) return {};
  static_cast<void>(r.release());  // the signature owns both now
  static_cast<void>(s.release());
  std::string der(static_cast<std::size_t>(std::max(0, i2d_ECDSA_SIG(signature.get(), nullptr))), '\0');
  auto* out = reinterpret_cast<unsigned char*>(der.data());
  if (i2d_ECDSA_SIG(signature.get(), &out) <= 0) return {};
  return der;
}

bool verify_hmac(const EVP_MAC_CTX* keyed, std::string_view input, std::string_view signature) {
  openssl::MacContext context(EVP_MAC_CTX_dup(keyed));
  std::array<unsigned char, EVP_MAX_MD_SIZE> expected{};
  std::size_t length = 0;
  if (!context || EVP_MAC_update(context.get(), openssl::bytes(input), input.size()) != 1 ||
      EVP_MAC_final(context.get(), expected.data(), &length, expected.size()) != 1)
    return false;
  // The length is public; the bytes are compared in constant time (RFC 8725 section 3.2 asks for no leaks of
  // the MAC).
  return signature.size() == length && CRYPTO_memcmp(signature.data(), expected.data(), length) == 0;
}

bool verify_digest(EVP_MD_CTX* context, std::string_view input, std::string_view signature) {
  return EVP_DigestVerify(context, openssl::bytes(signature), signature.size(), openssl::bytes(input),
                          input.size()) == 1;
}

Result<void> check_rsa(const EVP_PKEY* pkey) {
  int bits = EVP_PKEY_get_bits(pkey);
  if (bits < kRsaBitsMin)
    return fail(Origin::config,
                fmt::format("RSA key of {} bits: at least {} are required (RFC 7518 section 3.3)", bits,
                            kRsaBitsMin));
  if (bits > kRsaBitsMax)
    return fail(Origin::config,
                fmt::format("RSA key of {} bits: at most {} are accepted", bits, kRsaBitsMax));
  BIGNUM* exponent = nullptr;
  EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_E, &exponent);
  openssl::Number owned(exponent);
  if (!owned || !BN_is_odd(owned.get()) || BN_is_one(owned.get()) || BN_num_bits(owned.get()) > 64)
    return fail(Origin::config, "RSA key whose exponent is not an odd number of 2 to 64 bits above 1");
  return {};
}

}  // namespace

std::optional<Algorithm> parse_algorithm(std::string_view name) {
  for (std::size_t i = 0; i < kAlgorithmCount; ++i)
    if (kAlgorithms[i].name == name) return static_cast<Algorithm>(i);
  return std::nullopt;
}
std::string_view name(Algorithm algorithm) {
  return info(algorithm).name;
}
std::size_t hash_bytes(Algorithm algorithm) {
  return info(algorithm).hash_bytes;
}

std::string_view name(KeyType type) {
  switch (type) {
    case KeyType::rsa:
      return "RSA";
    case KeyType::ec_p256:
      return "P-256";
    case KeyType::ec_p384:
      return "P-384";
    case KeyType::ec_p521:
      return "P-521";
    case KeyType::ed25519:
      return "Ed25519";
    case KeyType::ed448:
      return "Ed448";
    case KeyType::secret:
      return "secret";
  }
  return "?";
}

const EVP_MD* digest(Algorithm algorithm) {
  // Never freed: OpenSSL cleans up behind us at exit, and other static objects may still verify until then.
  static EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  static EVP_MD* const sha384 = EVP_MD_fetch(nullptr, "SHA384", nullptr);
  static EVP_MD* const sha512 = EVP_MD_fetch(nullptr, "SHA512", nullptr);
  switch (hash_bytes(algorithm)) {
    case 32:
      return sha256;
    case 48:
      return sha384;
    case 64:
      return sha512;
    default:
      return nullptr;
  }
}

std::optional<KeyType> curve_of(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::es256:
      return KeyType::ec_p256;
    case Algorithm::es384:
      return KeyType::ec_p384;
    case Algorithm::es512:
      return KeyType::ec_p521;
    default:
      return std::nullopt;
  }
}

bool type_fits(KeyType type, Algorithm algorithm) {
  if (is_hmac(algorithm)) return type == KeyType::secret;
  if (is_ecdsa(algorithm)) return type == curve_of(algorithm);
  if (algorithm == Algorithm::eddsa) return type == KeyType::ed25519 || type == KeyType::ed448;
  return type == KeyType::rsa;
}

Result<KeyType> type_of(const EVP_PKEY* pkey) {
  if (EVP_PKEY_is_a(pkey, "RSA")) return KeyType::rsa;
  if (EVP_PKEY_is_a(pkey, "ED25519")) return KeyType::ed25519;
  if (EVP_PKEY_is_a(pkey, "ED448")) return KeyType::ed448;
  if (EVP_PKEY_is_a(pkey, "EC")) {
    std::array<char, 64> group{};
    if (EVP_PKEY_get_group_name(pkey, group.data(), group.size(), nullptr) == 1) {
      std::string_view curve = group.data();
      if (curve == "prime256v1" || curve == "P-256") return KeyType::ec_p256;
      if (curve == "secp384r1" || curve == "P-384") return KeyType::ec_p384;
      if (curve == "secp521r1" || curve == "P-521") return KeyType::ec_p521;
    }
    return fail(Origin::config, "EC key on a curve other than P-256, P-384 and P-521");
  }
  const char* type = EVP_PKEY_get0_type_name(pkey);
  return fail(Origin::config, fmt::format("{} keys do not sign tokens here (RSA, EC, Ed25519, Ed448 do)",
                                          type != nullptr ? type : "such"));
}

Result<Key> make_key(openssl::Pkey pkey, std::string kid, std::optional<Algorithm> only) {
  openssl::ErrorScope errors;
  auto type = type_of(pkey.get());
  if (!type) return std::unexpected(type.error());
  if (*type == KeyType::rsa)
    if (auto sound = check_rsa(pkey.get()); !sound) return std::unexpected(sound.error());
  if (only && !type_fits(*type, *only))
    return fail(Origin::config,
                fmt::format("{} key with alg {}: they do not belong together", name(*type), name(*only)));

  auto impl = std::make_shared<Key::Impl>();
  impl->kid = std::move(kid);
  impl->type = *type;
  impl->coordinate = coordinate_bytes(*type);
  if (impl->coordinate != 0) {  // on the curve, and not the point at infinity
    openssl::PkeyContext context(EVP_PKEY_CTX_new_from_pkey(nullptr, pkey.get(), nullptr));
    if (!context || EVP_PKEY_public_check(context.get()) != 1)
      return fail(Origin::config, fmt::format("{} key whose point is not on the curve", name(*type)));
  }
  for (std::size_t i = 0; i < kAlgorithmCount; ++i) {
    auto algorithm = static_cast<Algorithm>(i);
    if (!type_fits(*type, algorithm) || (only && *only != algorithm)) continue;
    impl->fits |= bit(algorithm);
    if (algorithm == Algorithm::eddsa) continue;
    impl->digests[i] = verification(pkey.get(), algorithm);
    if (!impl->digests[i])
      return fail(Origin::self, fmt::format("OpenSSL cannot verify {} with this key", name(algorithm)));
  }
  impl->pkey = std::move(pkey);
  return Key(std::move(impl));
}

Result<Key> make_secret_key(std::string_view secret, std::string kid, std::optional<Algorithm> only) {
  openssl::ErrorScope errors;
  std::size_t needed = hash_bytes(only.value_or(Algorithm::hs256));
  if (only && !is_hmac(*only)) return fail(Origin::config, fmt::format("secret with alg {}", name(*only)));
  if (secret.size() < needed)
    return fail(Origin::config, fmt::format("secret of {} bytes: {} needs at least {} (RFC 7518 section 3.2)",
                                            secret.size(), name(only.value_or(Algorithm::hs256)), needed));
  static EVP_MAC* const hmac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);  // kept for the life of the process
  auto impl = std::make_shared<Key::Impl>();
  impl->kid = std::move(kid);
  for (Algorithm algorithm : {Algorithm::hs256, Algorithm::hs384, Algorithm::hs512}) {
    if (secret.size() < hash_bytes(algorithm) || (only && *only != algorithm)) continue;
    openssl::MacContext context(EVP_MAC_CTX_new(hmac));
    std::string digest_name = info(algorithm).digest;
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest_name.data(), 0),
        OSSL_PARAM_construct_end()};
    if (!context || EVP_MAC_init(context.get(), openssl::bytes(secret), secret.size(), params) != 1)
      return fail(Origin::self, fmt::format("OpenSSL cannot compute {}", name(algorithm)));
    impl->fits |= bit(algorithm);
    impl->macs[static_cast<std::size_t>(algorithm)] = std::move(context);
  }
  return Key(std::move(impl));
}

Key::Key(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
const std::string& Key::kid() const {
  return impl_->kid;
}
KeyType Key::type() const {
  return impl_->type;
}
bool Key::fits(Algorithm algorithm) const {
  return (impl_->fits & bit(algorithm)) != 0;
}

bool Key::verify(Algorithm algorithm, std::string_view signing_input, std::string_view signature) const {
  if (!fits(algorithm)) return false;
  openssl::ErrorScope errors;
  auto index = static_cast<std::size_t>(algorithm);
  if (impl_->type == KeyType::secret) return verify_hmac(impl_->macs[index].get(), signing_input, signature);
  if (algorithm == Algorithm::eddsa) {
    openssl::DigestContext context = verification(impl_->pkey.get(), algorithm);
    return context && verify_digest(context.get(), signing_input, signature);
  }
  std::string der;
  if (impl_->coordinate != 0) {
    if (signature.size() != 2 * impl_->coordinate) return false;
    der = ecdsa_der(signature, impl_->coordinate);
    if (der.empty()) return false;
    signature = der;
  } else if (signature.size() != static_cast<std::size_t>(EVP_PKEY_get_size(impl_->pkey.get()))) {
    return false;  // RFC 8017 section 8.2.2 step 1: as long as the modulus
  }
  openssl::DigestContext context(EVP_MD_CTX_new());
  return context && EVP_MD_CTX_copy_ex(context.get(), impl_->digests[index].get()) == 1 &&
         verify_digest(context.get(), signing_input, signature);
}

}  // namespace tollgate::identity
