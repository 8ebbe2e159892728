// JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037 section 2) -> Key. Every failure here is about one
// key; the set goes on without it.
#include <fmt/format.h>
#include <openssl/core_names.h>

#include <algorithm>

#include "metering/base/base64.h"
#include "metering/identity/json_members.h"
#include "metering/identity/key_material.h"

namespace tollgate::identity {
namespace {

std::unexpected<Error> unusable(std::string message) {
  return fail(Origin::config, std::move(message));
}

Result<std::string> decoded(const JsonMembers& jwk, std::string_view member) {
  auto text = jwk.text(member);
  if (!text) return unusable(fmt::format("has no \"{}\" text", member));
  auto bytes = base64url_decode(*text);
  if (!bytes || bytes->empty())
    return unusable(fmt::format("\"{}\" is not base64url without padding", member));
  return *std::move(bytes);
}

Result<openssl::Pkey> from_params(const char* type, OSSL_PARAM_BLD* builder) {
  openssl::Params params(OSSL_PARAM_BLD_to_param(builder));
  openssl::PkeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  EVP_PKEY* pkey = nullptr;
  if (!params || !context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &pkey, EVP_PKEY_PUBLIC_KEY, params.get()) != 1)
    return unusable(fmt::format("is not a valid {} public key", type));
  return openssl::Pkey(pkey);
}

Result<openssl::Pkey> rsa(const JsonMembers& jwk) {
  auto modulus = decoded(jwk, "n");
  if (!modulus) return std::unexpected(modulus.error());
  auto exponent = decoded(jwk, "e");
  if (!exponent) return std::unexpected(exponent.error());
  openssl::Number n(BN_bin2bn(openssl::bytes(*modulus), static_cast<int>(modulus->size()), nullptr));
  openssl::Number e(BN_bin2bn(openssl::bytes(*exponent), static_cast<int>(exponent->size()), nullptr));
  openssl::ParamBuilder builder(OSSL_PARAM_BLD_new());
  if (!n || !e || !builder || OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get()) != 1 ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e.get()) != 1)
    return unusable("is not a valid RSA public key");
  return from_params("RSA", builder.get());
}

Result<openssl::Pkey> ec(const JsonMembers& jwk) {
  std::string_view curve = jwk.text("crv").value_or("");
  std::size_t length = 0;
  if (curve == "P-256") length = 32;
  if (curve == "P-384") length = 48;
  if (curve == "P-521") length = 66;
  if (length == 0) return unusable("is on a curve other than P-256, P-384 and P-521");
  auto x = decoded(jwk, "x");
  if (!x) return std::unexpected(x.error());
  auto y = decoded(jwk, "y");
  if (!y) return std::unexpected(y.error());
  if (x->size() != length || y->size() != length)  // RFC 7518 section 6.2.1.2: the full size of a coordinate
    return unusable(fmt::format("has coordinates that are not {} bytes long", length));
  std::string point = "\x04" + *x + *y;
  openssl::ParamBuilder builder(OSSL_PARAM_BLD_new());
  if (!builder ||
      OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, curve.data(),
                                      curve.size()) != 1 ||
      OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()) !=
          1)
    return unusable("is not a valid EC public key");
  auto pkey = from_params("EC", builder.get());
  if (!pkey) return unusable(fmt::format("has a point that is not on {}", curve));
  return pkey;
}

Result<openssl::Pkey> okp(const JsonMembers& jwk) {
  std::string_view curve = jwk.text("crv").value_or("");
  if (curve != "Ed25519" && curve != "Ed448") return unusable("is on a curve other than Ed25519 and Ed448");
  std::size_t length = curve == "Ed25519" ? 32 : 57;
  auto x = decoded(jwk, "x");
  if (!x) return std::unexpected(x.error());
  if (x->size() != length) return unusable(fmt::format("has an \"x\" that is not {} bytes long", length));
  openssl::Pkey pkey(EVP_PKEY_new_raw_public_key(curve == "Ed25519" ? EVP_PKEY_ED25519 : EVP_PKEY_ED448,
                                                 nullptr, openssl::bytes(*x), x->size()));
  if (!pkey) return unusable(fmt::format("is not a valid {} public key", curve));
  return pkey;
}

// use (RFC 7517 section 4.2) and key_ops (4.3): absent, or for checking signatures.
Result<void> check_purpose(const JsonMembers& jwk) {
  if (jwk.has("use") && jwk.text("use") != "sig")
    return unusable("is not for signatures (\"use\" is not sig)");
  auto operations = jwk.find("key_ops");
  if (!operations) return {};
  simdjson::dom::array list;
  if (operations->get(list) != simdjson::SUCCESS) return unusable("has a \"key_ops\" that is not a list");
  bool verifies = std::any_of(list.begin(), list.end(), [](simdjson::dom::element operation) {
    std::string_view text;
    return operation.get(text) == simdjson::SUCCESS && text == "verify";
  });
  if (!verifies) return unusable("is not for signatures (\"key_ops\" lacks verify)");
  return {};
}

Result<std::optional<Algorithm>> own_algorithm(const JsonMembers& jwk) {
  if (!jwk.has("alg")) return std::nullopt;
  auto text = jwk.text("alg");
  if (!text) return unusable("has an \"alg\" that is not a text");
  // RFC 9864 names the curve in the key's algorithm; such a key serves EdDSA on that curve.
  if ((*text == "Ed25519" || *text == "Ed448") && jwk.text("crv") == *text) return Algorithm::eddsa;
  auto algorithm = parse_algorithm(*text);
  if (!algorithm) return unusable("is for an algorithm that signs no token here");
  return algorithm;
}

Result<Key> make(const JsonMembers& jwk, std::string kid) {
  auto kty = jwk.text("kty");
  if (!kty) return unusable("has no \"kty\" text");
  if (auto purpose = check_purpose(jwk); !purpose) return std::unexpected(purpose.error());
  auto only = own_algorithm(jwk);
  if (!only) return std::unexpected(only.error());
  if (*kty == "oct") {
    auto secret = decoded(jwk, "k");
    if (!secret) return std::unexpected(secret.error());
    return make_secret_key(*secret, std::move(kid), *only);
  }
  Result<openssl::Pkey> pkey = unusable("is of a type other than RSA, EC, OKP and oct");
  if (*kty == "RSA") pkey = rsa(jwk);
  if (*kty == "EC") pkey = ec(jwk);
  if (*kty == "OKP") pkey = okp(jwk);
  if (!pkey) return std::unexpected(pkey.error());
  return make_key(*std::move(pkey), std::move(kid), *only);
}

Result<Key> from_element(simdjson::dom::element element, std::string& label) {
  openssl::ErrorScope errors;
  simdjson::dom::object object;
  if (element.get(object) != simdjson::SUCCESS) return unusable("is not an object");
  auto members = JsonMembers::of(object);
  if (!members) return unusable("has a member twice");
  std::string kid;
  if (members->has("kid")) {
    auto text = members->text("kid");
    if (!text) return unusable("has a \"kid\" that is not a text");
    kid = *text;
    label += fmt::format(" (kid {:?})", kid.substr(0, 64));
  }
  return make(*members, std::move(kid));
}

}  // namespace

Result<KeySet> KeySet::from_jwks(std::string_view text) {
  if (text.size() > kMaxText) return unusable(fmt::format("the key set is larger than {} bytes", kMaxText));
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (auto error = parser.parse(text.data(), text.size()).get(root); error != simdjson::SUCCESS)
    return unusable(fmt::format("the key set is not JSON: {}", simdjson::error_message(error)));
  simdjson::dom::object object;
  if (root.get(object) != simdjson::SUCCESS) return unusable("the key set is not a JSON object");
  auto members = JsonMembers::of(object);
  if (!members) return unusable("the key set has a member twice");

  KeySet out;
  auto keys = members->find("keys");
  if (!keys && members->has("kty")) {  // one bare JWK
    std::string label = "the key";
    Result<Key> key = from_element(root, label);
    out.add(std::move(key), label);
  } else {
    simdjson::dom::array list;
    if (!keys || keys->get(list) != simdjson::SUCCESS)
      return unusable("the key set has no \"keys\" list (RFC 7517 section 5)");
    std::size_t number = 0;
    for (simdjson::dom::element element : list) {
      std::string label = fmt::format("key {}", ++number);
      Result<Key> key = from_element(element, label);
      out.add(std::move(key), label);
    }
  }
  if (out.keys_.empty())
    return unusable(fmt::format("the key set has no key that can verify tokens{}{}",
                                out.notes_.empty() ? "" : ": ",
                                out.notes_.empty() ? "" : out.notes_.front()));
  return out;
}

}  // namespace tollgate::identity
