#include "metering/identity/key_set.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/metering/identity/support/signer.h"

namespace tollgate::identity {
namespace {

using namespace test;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string error_of(const Result<KeySet>& set) {
  return set ? "no error" : set.error().message;
}
std::string error_of_jwk(const std::string& jwk) {
  return error_of(KeySet::from_jwks(jwks(jwk)));
}
std::string secret_jwk(std::size_t bytes, std::string_view more = "") {
  return fmt::format(R"({{"kty":"oct","k":"{}"{}}})", base64url_encode(std::string(bytes, 'k')), more);
}

TEST(KeySet, UnusableKeysAreLeftOutWithANoteAndTheRestServes) {
  auto set = KeySet::from_jwks(jwks(jwk(rsa_pair(), "enc", R"(,"use":"enc")") +
                                    R"(,{"kty":"XYZ","kid":"future"},17,)" +
                                    R"({"kty":"OKP","crv":"X25519","x":"AA"},)" + jwk(ec_pair(256), "good")));
  ASSERT_TRUE(set) << set.error().message;
  ASSERT_EQ(set->keys().size(), 1U);
  EXPECT_EQ(set->keys()[0].kid(), "good");
  EXPECT_THAT(set->notes(),
              ElementsAre(AllOf(HasSubstr("key 1 (kid \"enc\")"), HasSubstr("\"use\" is not sig")),
                          AllOf(HasSubstr("key 2 (kid \"future\")"), HasSubstr("of a type other than")),
                          HasSubstr("key 3 is left out: is not an object"),
                          HasSubstr("key 4 is left out: is on a curve other than Ed25519")));
}

TEST(KeySet, TextThatIsNoKeySetSaysWhat) {
  EXPECT_THAT(error_of(KeySet::from_jwks("<html>")), HasSubstr("is not JSON"));
  EXPECT_THAT(error_of(KeySet::from_jwks("")), HasSubstr("is not JSON"));
  EXPECT_THAT(error_of(KeySet::from_jwks(R"({"keys":[]} x)")), HasSubstr("is not JSON"));
  EXPECT_THAT(error_of(KeySet::from_jwks("[]")), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of(KeySet::from_jwks("{}")), HasSubstr("no \"keys\" list"));
  EXPECT_THAT(error_of(KeySet::from_jwks(R"({"keys":{}})")), HasSubstr("no \"keys\" list"));
  EXPECT_THAT(error_of(KeySet::from_jwks(R"({"keys":[]})")), HasSubstr("no key that can verify"));
  EXPECT_THAT(error_of(KeySet::from_jwks(R"({"keys":[],"keys":[]})")), HasSubstr("a member twice"));
  EXPECT_THAT(error_of(KeySet::from_jwks(std::string(KeySet::kMaxText + 1, ' '))), HasSubstr("larger than"));
  EXPECT_THAT(error_of(KeySet::from_text("")), HasSubstr("empty"));
  EXPECT_THAT(error_of(KeySet::from_text(" \n")), HasSubstr("empty"));
}

TEST(KeySet, BareJwkIsASetOfOne) {
  auto set = KeySet::from_jwks(jwk(ec_pair(384), "one"));
  ASSERT_TRUE(set) << set.error().message;
  EXPECT_EQ(set->keys()[0].type(), KeyType::ec_p384);
}

TEST(KeySet, KeysMayShareAKid) {
  auto set = KeySet::from_jwks(jwks(jwk(ec_pair(256), "a") + "," + jwk(rsa_pair(), "a")));
  ASSERT_TRUE(set);
  EXPECT_EQ(set->keys().size(), 2U);
}

TEST(KeySet, MemberTwiceInAKeyLeavesItOutHoweverItIsSpelled) {
  EXPECT_THAT(error_of_jwk(jwk(ec_pair(256), "a", R"(,"kid":"b")")), HasSubstr("has a member twice"));
  EXPECT_THAT(error_of_jwk(jwk(ec_pair(256), "a", ",\"\\u006bid\":\"b\"")), HasSubstr("has a member twice"));
}

TEST(KeySet, PurposeMustBeSignatures) {
  EXPECT_EQ(error_of_jwk(jwk(rsa_pair(), "", R"(,"use":"sig")")), "no error");
  EXPECT_EQ(error_of_jwk(jwk(rsa_pair(), "", R"(,"key_ops":["sign","verify"])")), "no error");
  EXPECT_THAT(error_of_jwk(jwk(rsa_pair(), "", R"(,"use":"enc")")), HasSubstr("not for signatures"));
  EXPECT_THAT(error_of_jwk(jwk(rsa_pair(), "", R"(,"use":7)")), HasSubstr("not for signatures"));
  EXPECT_THAT(error_of_jwk(jwk(rsa_pair(), "", R"(,"key_ops":["sign"])")), HasSubstr("lacks verify"));
  EXPECT_THAT(error_of_jwk(jwk(rsa_pair(), "", R"(,"key_ops":[])")), HasSubstr("lacks verify"));
  EXPECT_THAT(error_of_jwk(jwk(rsa_pair(), "", R"(,"key_ops":"verify")")), HasSubstr("not a list"));
}

TEST(KeySet, AlgMustFitTheKeyType) {
  EXPECT_EQ(error_of_jwk(jwk(rsa_pair(), "", R"(,"alg":"RS512")")), "no error");
  EXPECT_EQ(error_of_jwk(jwk(ed25519_pair(), "", R"(,"alg":"EdDSA")")), "no error");
  EXPECT_EQ(error_of_jwk(jwk(ed25519_pair(), "", R"(,"alg":"Ed25519")")), "no error");
  EXPECT_THAT(error_of_jwk(jwk(ed25519_pair(), "", R"(,"alg":"Ed448")")), HasSubstr("signs no token here"));
  EXPECT_THAT(error_of_jwk(jwk(rsa_pair(), "", R"(,"alg":"HS256")")), HasSubstr("do not belong together"));
  EXPECT_THAT(error_of_jwk(jwk(rsa_pair(), "", R"(,"alg":"RSA-OAEP")")), HasSubstr("signs no token here"));
  EXPECT_THAT(error_of_jwk(jwk(ec_pair(256), "", R"(,"alg":"ES384")")), HasSubstr("do not belong together"));
  EXPECT_THAT(error_of_jwk(jwk(ec_pair(256), "", R"(,"alg":["ES256"])")), HasSubstr("not a text"));
  EXPECT_THAT(error_of_jwk(secret_jwk(64, R"(,"alg":"RS256")")), HasSubstr("RS256"));
}

TEST(KeySet, WeakRsaKeyIsLeftOut) {
  EXPECT_THAT(error_of_jwk(jwk(new_rsa_pair(1024))), AllOf(HasSubstr("1024 bits"), HasSubstr("2048")));
  EXPECT_THAT(error_of(KeySet::from_pem(public_pem(new_rsa_pair(1024)))), HasSubstr("1024 bits"));
}

TEST(KeySet, RsaExponentOneOrEvenIsLeftOut) {
  // With e = 1 every signature is its own message: anybody could sign.
  std::string n = base64url_encode("\xC1" + std::string(254, '\x5A') + "\x01");
  for (std::string_view e : {"AQ", "Ag", "AQAA"})
    EXPECT_THAT(error_of_jwk(fmt::format(R"({{"kty":"RSA","n":"{}","e":"{}"}})", n, e)),
                HasSubstr("exponent"))
        << e;
}

TEST(KeySet, EcPointMustBeOnTheCurveAndOfFullLength) {
  EXPECT_THAT(
      error_of_jwk(
          R"({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a1"})"),
      Not(HasSubstr("no error")));
  EXPECT_THAT(
      error_of_jwk(
          R"({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a4"})"),
      HasSubstr("not on P-256"));
  EXPECT_THAT(error_of_jwk(fmt::format(R"({{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}})",
                                       base64url_encode(std::string(31, 'x')))),
              HasSubstr("not 32 bytes"));
  EXPECT_THAT(error_of_jwk(fmt::format(R"({{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}})",
                                       base64url_encode(std::string(32, '\0')))),
              HasSubstr("not on P-256"));
  EXPECT_THAT(error_of_jwk(R"({"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"})"),
              HasSubstr("other than P-256"));
  EXPECT_THAT(error_of_jwk(R"({"kty":"EC","crv":"P-256","x":"AA=="})"), HasSubstr("\"x\" is not base64url"));
}

TEST(KeySet, SharedSecretInAJwksNeedsTheLengthOfItsHash) {
  EXPECT_THAT(error_of_jwk(secret_jwk(31)), HasSubstr("at least 32"));
  EXPECT_THAT(error_of_jwk(secret_jwk(32, R"(,"alg":"HS512")")), HasSubstr("HS512 needs at least 64"));
  auto set = KeySet::from_jwks(jwks(secret_jwk(48)));
  ASSERT_TRUE(set);
  EXPECT_TRUE(set->keys()[0].fits(Algorithm::hs384));
  EXPECT_FALSE(set->keys()[0].fits(Algorithm::hs512));
  EXPECT_FALSE(set->keys()[0].fits(Algorithm::rs256));
}

TEST(KeySet, HoldsNoMoreKeysThanItsLimit) {
  std::string keys = jwk(ec_pair(256));
  for (std::size_t i = 0; i < KeySet::kMaxKeys; ++i) keys += "," + jwk(ec_pair(256));
  auto set = KeySet::from_jwks(jwks(keys));
  ASSERT_TRUE(set);
  EXPECT_EQ(set->keys().size(), KeySet::kMaxKeys);
  EXPECT_THAT(set->notes(), ElementsAre(HasSubstr("at most 64 keys")));
}

TEST(KeySet, PemHoldsSeveralPublicKeysAndCertificates) {
  auto set = KeySet::from_text("\n" + public_pem(rsa_pair()) + certificate_pem(ec_pair(256)) +
                               public_pem(ed448_pair()));
  ASSERT_TRUE(set) << set.error().message;
  ASSERT_EQ(set->keys().size(), 3U);
  EXPECT_EQ(set->keys()[0].type(), KeyType::rsa);
  EXPECT_EQ(set->keys()[1].type(), KeyType::ec_p256);
  EXPECT_EQ(set->keys()[2].type(), KeyType::ed448);
}

TEST(KeySet, PemFaultsSayWhat) {
  EXPECT_THAT(error_of(KeySet::from_text(private_pem(rsa_pair()))), HasSubstr("is a private key"));
  std::string pem = public_pem(rsa_pair());
  EXPECT_THAT(error_of(KeySet::from_text(pem.substr(0, pem.size() / 2))), HasSubstr("damaged"));
  std::string garbled = pem;
  garbled.replace(60, 8, "!!!!!!!!");
  EXPECT_THAT(error_of(KeySet::from_text(garbled)), HasSubstr("damaged"));
  EXPECT_THAT(error_of(KeySet::from_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")),
              HasSubstr("cannot be read"));
  EXPECT_THAT(error_of(KeySet::from_text(public_pem(new_ec_pair("secp256k1")))),
              HasSubstr("curve other than"));
}

TEST(KeySet, SecretShorterThanAListedAlgorithmNeedsIsAnError) {
  std::vector<std::string> hs256{"HS256"}, both{"HS256", "HS512"};
  EXPECT_EQ(error_of(KeySet::from_secret(std::string(32, 'x'), hs256)), "no error");
  EXPECT_THAT(error_of(KeySet::from_secret(std::string(31, 'x'), hs256)),
              HasSubstr("31 bytes, but HS256 needs at least 32"));
  EXPECT_THAT(error_of(KeySet::from_secret(std::string(32, 'x'), both)),
              HasSubstr("HS512 needs at least 64"));
  EXPECT_THAT(error_of(KeySet::from_secret("short")), HasSubstr("5 bytes"));
  EXPECT_THAT(error_of(KeySet::from_secret("")), HasSubstr("0 bytes"));
}

TEST(Secret, LosesExactlyOneTrailingLineBreak) {
  EXPECT_EQ(decode_secret("abc\n").value(), "abc");
  EXPECT_EQ(decode_secret("abc\r\n").value(), "abc");
  EXPECT_EQ(decode_secret("abc\n\n").value(), "abc\n");
  EXPECT_EQ(decode_secret("abc\r").value(), "abc\r");
  EXPECT_EQ(decode_secret(" abc ").value(), " abc ");
  EXPECT_EQ(decode_secret(std::string_view("a\0b", 3)).value(), std::string("a\0b", 3));
}

TEST(Secret, Base64PrefixIsDecodedInEitherAlphabet) {
  EXPECT_EQ(decode_secret("base64:+/8=\n").value(), "\xfb\xff");
  EXPECT_EQ(decode_secret("base64:-_8").value(), "\xfb\xff");
  EXPECT_EQ(decode_secret("base64: YWJjCg== \r\n").value(), "abc\n");
  EXPECT_FALSE(decode_secret("base64:?"));
  EXPECT_FALSE(decode_secret("base64:A"));
}

TEST(KeyRing, VersionGrowsWithEveryStoreAndLoadGivesTheNewest) {
  KeyRing ring;
  EXPECT_EQ(ring.load(), nullptr);
  EXPECT_EQ(ring.version(), 0U);
  auto first = std::make_shared<const KeySet>(*KeySet::from_secret(kSecret)),
       second = std::make_shared<const KeySet>(*first);
  ring.store(first);
  EXPECT_EQ(ring.load(), first);
  EXPECT_EQ(ring.version(), 1U);
  ring.store(second);
  EXPECT_EQ(ring.load(), second);
  EXPECT_EQ(ring.version(), 2U);
}

TEST(KeyRing, ManyRequestsAreOneUntilTaken) {
  KeyRing ring;
  int calls = 0;
  ring.set_refresh_listener([&] { ++calls; });
  EXPECT_FALSE(ring.take_refresh_request());
  for (int i = 0; i < 100; ++i) ring.request_refresh();
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(ring.take_refresh_request());
  EXPECT_FALSE(ring.take_refresh_request());
  ring.set_refresh_listener({});
  ring.request_refresh();
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(ring.take_refresh_request());
}

}  // namespace
}  // namespace tollgate::identity
