#include <gtest/gtest.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/rsa.h>

#include <atomic>
#include <thread>

#include "metering/identity/key_set.h"
#include "tests/metering/identity/support/signer.h"

namespace tollgate::identity {
namespace {

using namespace test;

KeySet set_of(const std::string& text) {
  auto set = KeySet::from_text(text);
  EXPECT_TRUE(set) << set.error().message;
  return set ? *set : KeySet();
}

// The signature of a compact token by the only key of a set. The payload need not be claims.
bool verifies(const KeySet& set, Algorithm algorithm, const std::string& compact) {
  std::size_t dot = compact.rfind('.');
  auto signature = base64url_decode(std::string_view(compact).substr(dot + 1));
  return set.keys().size() == 1 && signature &&
         set.keys()[0].verify(algorithm, compact.substr(0, dot), *signature);
}

const std::string kJoe =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

TEST(Key, VerifiesRfc7515AppendixA1Hs256) {
  KeySet set = set_of(
      R"({"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}]})");
  EXPECT_TRUE(verifies(
      set, Algorithm::hs256,
      "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + kJoe + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
}

TEST(Key, VerifiesRfc7515AppendixA2Rs256) {
  KeySet set = set_of(
      R"({"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"})");
  EXPECT_TRUE(
      verifies(set, Algorithm::rs256,
               "eyJhbGciOiJSUzI1NiJ9." + kJoe +
                   ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_"
                   "O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"
                   "nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-"
                   "eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB"
                   "p0igcN_IoypGlUPQGe77Rw"));
}

TEST(Key, VerifiesRfc7515AppendixA3Es256) {
  KeySet set = set_of(
      R"({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})");
  EXPECT_TRUE(verifies(
      set, Algorithm::es256,
      "eyJhbGciOiJFUzI1NiJ9." + kJoe +
          ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"));
}

TEST(Key, VerifiesRfc7515AppendixA4Es512) {
  KeySet set = set_of(
      R"({"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"})");
  EXPECT_TRUE(
      verifies(set, Algorithm::es512,
               "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-"
               "mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNr"
               "mxYbSW9ERBXukOXolLzeO_Jn"));
}

TEST(Key, VerifiesRfc8037AppendixA4Ed25519) {
  KeySet set = set_of(R"({"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})");
  EXPECT_TRUE(verifies(
      set, Algorithm::eddsa,
      "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3"
      "AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"));
}

struct Pairing {
  std::string alg;
  KeyPair pair;
};
std::vector<Pairing> pairings() {
  return {{"RS256", rsa_pair()},     {"RS384", rsa_pair()},   {"RS512", rsa_pair()},
          {"PS256", rsa_pair()},     {"PS384", rsa_pair()},   {"PS512", rsa_pair()},
          {"ES256", ec_pair(256)},   {"ES384", ec_pair(384)}, {"ES512", ec_pair(521)},
          {"EdDSA", ed25519_pair()}, {"EdDSA", ed448_pair()}};
}

TEST(Key, VerifiesEveryPublicKeyAlgorithmAsOpenSslSignsIt) {
  for (const auto& [alg, pair] : pairings()) {
    KeySet from_jwk = set_of(jwks(jwk(pair))), from_pem = set_of(public_pem(pair));
    for (int round = 0; round < 8; ++round) {  // ECDSA: short r and s turn up
      std::string input = "header.payload" + std::to_string(round);
      std::string signature = raw_signature(alg, pair, input);
      EXPECT_TRUE(from_jwk.keys()[0].verify(*parse_algorithm(alg), input, signature)) << alg;
      EXPECT_TRUE(from_pem.keys()[0].verify(*parse_algorithm(alg), input, signature)) << alg;
    }
  }
}

TEST(Key, EveryFlippedBitOfASignatureOrInputIsNoticed) {
  for (const auto& [alg, pair] : pairings()) {
    KeySet set = set_of(jwks(jwk(pair)));
    std::string input = "header.payload", signature = raw_signature(alg, pair, input);
    for (std::size_t i = 0; i < signature.size(); i += 7) {
      std::string bad = signature;
      bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
      EXPECT_FALSE(set.keys()[0].verify(*parse_algorithm(alg), input, bad)) << alg << " byte " << i;
    }
    EXPECT_FALSE(set.keys()[0].verify(*parse_algorithm(alg), "header.paylode", signature)) << alg;
    EXPECT_FALSE(set.keys()[0].verify(*parse_algorithm(alg), input, signature.substr(1))) << alg;
    EXPECT_FALSE(set.keys()[0].verify(*parse_algorithm(alg), input, signature + '\0')) << alg;
    EXPECT_FALSE(set.keys()[0].verify(*parse_algorithm(alg), input, "")) << alg;
  }
}

TEST(Key, FitsOnlyTheAlgorithmsOfItsType) {
  auto fitting = [](const KeyPair& pair) {
    std::string out;
    KeySet set = set_of(jwks(jwk(pair)));
    for (std::size_t i = 0; i < kAlgorithmCount; ++i)
      if (set.keys()[0].fits(static_cast<Algorithm>(i)))
        out += std::string(name(static_cast<Algorithm>(i))) + " ";
    return out;
  };
  EXPECT_EQ(fitting(rsa_pair()), "RS256 RS384 RS512 PS256 PS384 PS512 ");
  EXPECT_EQ(fitting(ec_pair(256)), "ES256 ");
  EXPECT_EQ(fitting(ec_pair(384)), "ES384 ");
  EXPECT_EQ(fitting(ec_pair(521)), "ES512 ");
  EXPECT_EQ(fitting(ed25519_pair()), "EdDSA ");
  EXPECT_EQ(fitting(ed448_pair()), "EdDSA ");
}

TEST(Key, OwnAlgNarrowsAnRsaKey) {
  KeySet set = set_of(jwks(jwk(rsa_pair(), "", R"(,"alg":"PS256")")));
  EXPECT_TRUE(set.keys()[0].fits(Algorithm::ps256));
  EXPECT_FALSE(set.keys()[0].fits(Algorithm::rs256));
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::rs256, "i", raw_signature("RS256", rsa_pair(), "i")));
}

TEST(Key, PssWithAnotherSaltLengthIsRefused) {
  // RFC 7518 section 3.5: the salt is as long as the hash. Signed here with none.
  std::string input = "header.payload";
  unsigned char digest[32];
  unsigned length = 0;
  ASSERT_EQ(EVP_Digest(input.data(), input.size(), digest, &length, EVP_sha256(), nullptr), 1);
  EVP_PKEY_CTX* context = EVP_PKEY_CTX_new(rsa_pair().get(), nullptr);
  EVP_PKEY_sign_init(context);
  EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING);
  EVP_PKEY_CTX_set_rsa_pss_saltlen(context, 0);
  EVP_PKEY_CTX_set_signature_md(context, EVP_sha256());
  std::string signature(256, '\0');
  std::size_t size = signature.size();
  ASSERT_EQ(EVP_PKEY_sign(context, reinterpret_cast<unsigned char*>(signature.data()), &size, digest, length),
            1);
  EVP_PKEY_CTX_free(context);
  EXPECT_FALSE(set_of(public_pem(rsa_pair())).keys()[0].verify(Algorithm::ps256, input, signature));
}

TEST(Key, EcdsaInDerFormIsRefused) {
  for (int bits : {256, 384, 521}) {
    std::string alg = bits == 521 ? "ES512" : "ES" + std::to_string(bits);
    KeySet set = set_of(jwks(jwk(ec_pair(bits))));
    EXPECT_FALSE(set.keys()[0].verify(*parse_algorithm(alg), "i", der_signature(alg, ec_pair(bits), "i")));
  }
}

TEST(Key, EcdsaWithZeroROrSIsRefused) {
  KeySet set = set_of(jwks(jwk(ec_pair(256))));
  std::string good = raw_signature("ES256", ec_pair(256), "i"), zero(32, '\0');
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::es256, "i", zero + zero));
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::es256, "i", zero + good.substr(32)));
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::es256, "i", good.substr(0, 32) + zero));
}

TEST(Key, EcdsaWithROrSBeyondTheOrderIsRefused) {
  KeySet set = set_of(jwks(jwk(ec_pair(256))));
  std::string good = raw_signature("ES256", ec_pair(256), "i"), ones(32, '\xff'), order(32, '\0');
  BIGNUM* n = nullptr;  // FIPS 186-4 D.1.2.3
  BN_hex2bn(&n, "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551");
  BN_bn2binpad(n, reinterpret_cast<unsigned char*>(order.data()), 32);
  BN_free(n);
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::es256, "i", order + order));
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::es256, "i", order + good.substr(32)));
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::es256, "i", ones + good.substr(32)));
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::es256, "i", good.substr(0, 32) + ones));
}

TEST(Key, EcdsaPaddedToAnotherCurvesLengthIsRefused) {
  KeySet set = set_of(jwks(jwk(ec_pair(256))));
  std::string good = raw_signature("ES256", ec_pair(256), "i"), pad(16, '\0');
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::es256, "i", pad + good.substr(0, 32) + pad + good.substr(32)));
}

TEST(Key, SecretVerifiesEveryHmac) {
  auto set = KeySet::from_secret(kSecret);
  ASSERT_TRUE(set);
  for (std::string alg : {"HS256", "HS384", "HS512"}) {
    std::string signature = raw_signature(alg, nullptr, "i");
    EXPECT_TRUE(set->keys()[0].verify(*parse_algorithm(alg), "i", signature)) << alg;
    EXPECT_FALSE(set->keys()[0].verify(*parse_algorithm(alg), "j", signature)) << alg;
    EXPECT_FALSE(set->keys()[0].verify(*parse_algorithm(alg), "i", signature.substr(0, 16))) << alg;
    EXPECT_FALSE(set->keys()[0].verify(*parse_algorithm(alg), "i", "")) << alg;
  }
}

TEST(Key, FailedVerificationLeavesOpenSslsErrorQueueEmpty) {
  // TLS on the same thread reads this queue.
  KeySet set = set_of(jwks(jwk(ec_pair(256)) + "," + jwk(rsa_pair())));
  EXPECT_FALSE(set.keys()[0].verify(Algorithm::es256, "i", std::string(64, '\xff')));
  EXPECT_FALSE(set.keys()[1].verify(Algorithm::rs256, "i", std::string(256, '\x01')));
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST(Key, OneKeyServesManyThreads) {
  KeySet set = set_of(jwks(jwk(rsa_pair()) + "," + jwk(ec_pair(256)) + R"(,{"kty":"oct","k":")" +
                           base64url_encode(kSecret) + R"("})"));
  std::string rs = raw_signature("RS256", rsa_pair(), "i"), es = raw_signature("ES256", ec_pair(256), "i"),
              hs = raw_signature("HS256", nullptr, "i");
  std::atomic<int> good{0};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] {
        for (int i = 0; i < 20; ++i)
          good += set.keys()[0].verify(Algorithm::rs256, "i", rs) &&
                  set.keys()[1].verify(Algorithm::es256, "i", es) &&
                  set.keys()[2].verify(Algorithm::hs256, "i", hs);
      });
  }
  EXPECT_EQ(good, 80);
}

TEST(Algorithm, NamesAreReadExactly) {
  EXPECT_EQ(parse_algorithm("HS256"), Algorithm::hs256);
  EXPECT_EQ(parse_algorithm("EdDSA"), Algorithm::eddsa);
  for (std::string_view other :
       {"", "none", "None", "NONE", "nOnE", "hs256", "HS1", "RS1", "ES256K", "EDDSA", "HS256 "})
    EXPECT_EQ(parse_algorithm(other), std::nullopt) << other;
}

}  // namespace
}  // namespace tollgate::identity
