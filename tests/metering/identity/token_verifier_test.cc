#include "metering/identity/token_verifier.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "metering/identity/mint.h"
#include "tests/metering/identity/support/signer.h"

namespace tollgate::identity {
namespace {

using namespace test;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::int64_t kNow = 1'800'000'000;
const UnixTime kTime = from_unix_seconds(kNow);
const std::string kHs256 = R"({"alg":"HS256","typ":"JWT"})";

std::shared_ptr<KeyRing> ring_of(const std::string& jwks_text) {
  auto set = KeySet::from_text(jwks_text);
  EXPECT_TRUE(set) << set.error().message;
  return std::make_shared<KeyRing>(*std::move(set));
}
std::shared_ptr<KeyRing> secret_ring(const std::string& secret = kSecret) {
  return std::make_shared<KeyRing>(*KeySet::from_secret(secret));
}
IssuerRules rules_with(std::shared_ptr<KeyRing> ring, std::vector<std::string> algorithms) {
  IssuerRules rules;
  rules.issuer = "https://idp.example";
  rules.audience = {"crm-portal"};
  rules.algorithms = std::move(algorithms);
  rules.keys = std::move(ring);
  rules.leeway = Seconds(30);
  return rules;
}

// Good claims, with members put in front of them: the object's first brace is written here.
std::string claims(std::string_view extra = "", std::int64_t exp = kNow + 60) {
  return fmt::format(R"({{{}"iss":"https://idp.example","aud":"crm-portal","sub":"ann","exp":{}}})", extra,
                     exp);
}
std::string bare(std::string_view members) {  // without exp
  return fmt::format(R"({{"iss":"https://idp.example","aud":"crm-portal","sub":"ann"{}}})", members);
}

class Verifier : public ::testing::Test {
 protected:
  TokenVerifier hs{{rules_with(secret_ring(), {"HS256", "HS384", "HS512"})}, 8192};

  std::string hs_token(std::string_view claims_text, std::string_view header = kHs256) {
    return token("HS256", nullptr, header, claims_text);
  }
  // "ok", or the reason and the detail.
  static std::string outcome(const TokenVerifier& verifier, std::string_view text, UnixTime now = kTime) {
    auto verified = verifier.verify(text, now);
    if (verified) return "ok";
    EXPECT_THAT(verified.error().detail, ::testing::Not(HasSubstr("ann"))) << "a refusal quotes the token";
    return fmt::format("{}: {}", code(verified.error().reason), verified.error().detail);
  }
  std::string by_claims(std::string_view claims_text, UnixTime now = kTime) {
    return outcome(hs, hs_token(claims_text), now);
  }
  std::string by_header(std::string_view header) { return outcome(hs, hs_token(claims(), header)); }
};

TEST_F(Verifier, GoodTokenGivesThePrincipal) {
  auto verified = hs.verify(
      hs_token(claims(R"("tenant":"t1","org":"Acme","user_type":"portal","licenses":["a","b"],"nbf":5,)")),
      kTime);
  ASSERT_TRUE(verified) << verified.error().detail;
  const VerifiedToken& got = **verified;
  EXPECT_EQ(got.principal.user, "ann");
  EXPECT_EQ(got.principal.tenant, "t1");
  EXPECT_EQ(got.principal.organization, "Acme");
  EXPECT_EQ(got.principal.user_type, UserType::portal);
  EXPECT_THAT(got.principal.licenses, ElementsAre("a", "b"));
  EXPECT_EQ(got.expires_at, from_unix_seconds(kNow + 90));
  EXPECT_EQ(got.not_before, from_unix_seconds(-25));
}

TEST_F(Verifier, AnAccountIsAnIdOrNotSaid) {
  const auto account = [&](std::string_view member) {
    const auto verified = hs.verify(hs_token(claims(member)), kTime);
    EXPECT_TRUE(verified) << verified.error().detail;
    return verified ? (*verified)->principal.account : "";
  };
  EXPECT_EQ(account(R"("account":"25D7C1AB-1DE0-4501-B402-02E0E5A72D6E",)"),
            "25d7c1ab-1de0-4501-b402-02e0e5a72d6e");
  for (const char* other : {"", R"("account":"Acme",)", R"("account":7,)", R"("account":{"roles":[]},)",
                            R"("account":"00000000-0000-0000-0000-000000000000",)"})
    EXPECT_EQ(account(other), "") << other;
}

TEST_F(Verifier, Rfc7515AppendixA1IsAcceptedUntilItsExp) {
  IssuerRules rules = rules_with(
      ring_of(
          R"({"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"})"),
      {"HS256"});
  rules.issuer = "joe";
  rules.audience = {};
  rules.user_claim = "iss";
  rules.leeway = Seconds(0);
  TokenVerifier verifier({rules}, 8192);
  const std::string text =
      "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
      "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLm"
      "NvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
  EXPECT_EQ(outcome(verifier, text, from_unix_seconds(1300819379)), "ok");
  EXPECT_THAT(outcome(verifier, text, from_unix_seconds(1300819380)), HasSubstr("token_expired"));
}

TEST_F(Verifier, EveryAlgorithmIsAccepted) {
  std::vector<std::pair<std::string, KeyPair>> all{
      {"HS256", nullptr},        {"HS384", nullptr},      {"HS512", nullptr},      {"RS256", rsa_pair()},
      {"RS384", rsa_pair()},     {"RS512", rsa_pair()},   {"PS256", rsa_pair()},   {"PS384", rsa_pair()},
      {"PS512", rsa_pair()},     {"ES256", ec_pair(256)}, {"ES384", ec_pair(384)}, {"ES512", ec_pair(521)},
      {"EdDSA", ed25519_pair()}, {"EdDSA", ed448_pair()}};
  for (const auto& [alg, pair] : all) {
    TokenVerifier verifier({rules_with(pair ? ring_of(jwks(jwk(pair, "k1"))) : secret_ring(), {alg})}, 8192);
    std::string good = token(alg, pair, fmt::format(R"({{"alg":"{}","kid":"k1"}})", alg), claims());
    EXPECT_EQ(outcome(verifier, good), "ok") << alg;
    // The same token with other claims under the old signature.
    std::string tampered =
        signing_input(fmt::format(R"({{"alg":"{}","kid":"k1"}})", alg), claims(R"("x":1,)")) +
        good.substr(good.rfind('.'));
    EXPECT_THAT(outcome(verifier, tampered), HasSubstr("signature does not match")) << alg;
  }
}

// ---- algorithm

TEST_F(Verifier, AlgNoneIsRefusedInAnyCase) {
  for (std::string_view none : {"none", "None", "NONE", "nOnE"}) {
    std::string input = signing_input(fmt::format(R"({{"alg":"{}"}})", none), claims());
    EXPECT_THAT(outcome(hs, input + "."), HasSubstr("not signed"));
    EXPECT_THAT(outcome(hs, with_signature(input, "x")), HasSubstr("algorithm (alg) is not accepted"))
        << none;
    EXPECT_THAT(outcome(hs, with_signature(input, raw_signature("HS256", nullptr, input))),
                HasSubstr("algorithm (alg) is not accepted"));
  }
  TokenVerifier careless({rules_with(secret_ring(), {"none", "HS256"})}, 8192);
  std::string input = signing_input(R"({"alg":"none"})", claims());
  EXPECT_THAT(outcome(careless, with_signature(input, "x")), HasSubstr("algorithm (alg) is not accepted"));
}

TEST_F(Verifier, AlgMissingOrNotATextIsRefused) {
  for (std::string_view header : {R"({"typ":"JWT"})", R"({"alg":null})", R"({"alg":["HS256"]})",
                                  R"({"alg":""})", R"({"alg":"hs256"})", R"({"alg":"HS256\u0000"})"})
    EXPECT_THAT(by_header(header), HasSubstr("algorithm (alg) is not accepted")) << header;
}

TEST_F(Verifier, PublicKeyUsedAsHmacSecretIsRefused) {
  // The classic confusion: sign with HS256 and the public key's text, which everybody knows.
  std::vector<std::string> secrets{public_pem(rsa_pair()), jwk(rsa_pair(), "k1"),
                                   jwks(jwk(rsa_pair(), "k1"))};
  for (const std::string& text : {jwks(jwk(rsa_pair(), "k1")), public_pem(rsa_pair())}) {
    TokenVerifier verifier({rules_with(ring_of(text), {"RS256", "HS256"})},
                           8192);  // even when HS256 is listed
    for (const std::string& secret : secrets) {
      std::string forged = token("HS256", nullptr, R"({"alg":"HS256","kid":"k1"})", claims(), secret);
      EXPECT_THAT(outcome(verifier, forged), HasSubstr("does not fit the issuer's key"));
    }
  }
}

TEST_F(Verifier, AlgorithmOutsideTheIssuersListIsRefused) {
  TokenVerifier verifier({rules_with(ring_of(jwks(jwk(rsa_pair()))), {"RS256"})}, 8192);
  EXPECT_EQ(outcome(verifier, token("RS256", rsa_pair(), R"({"alg":"RS256"})", claims())), "ok");
  EXPECT_THAT(outcome(verifier, token("RS512", rsa_pair(), R"({"alg":"RS512"})", claims())),
              HasSubstr("not accepted from this issuer"));
  EXPECT_THAT(outcome(verifier, token("PS256", rsa_pair(), R"({"alg":"PS256"})", claims())),
              HasSubstr("not accepted from this issuer"));
}

TEST_F(Verifier, SignatureMadeUnderAnotherAlgorithmOfTheSameKeyIsRefused) {
  TokenVerifier verifier({rules_with(ring_of(jwks(jwk(rsa_pair()))), {"RS256", "PS256", "RS512"})}, 8192);
  EXPECT_THAT(outcome(verifier, token("RS256", rsa_pair(), R"({"alg":"PS256"})", claims())),
              HasSubstr("signature"));
  EXPECT_THAT(outcome(verifier, token("PS256", rsa_pair(), R"({"alg":"RS256"})", claims())),
              HasSubstr("signature"));
  EXPECT_THAT(outcome(verifier, token("RS256", rsa_pair(), R"({"alg":"RS512"})", claims())),
              HasSubstr("signature"));
}

TEST_F(Verifier, EcdsaOnAnotherCurveThanTheAlgorithmsIsRefused) {
  TokenVerifier verifier({rules_with(ring_of(jwks(jwk(ec_pair(384)))), {"ES256", "ES384"})}, 8192);
  std::string input = signing_input(R"({"alg":"ES256"})", claims());
  EXPECT_THAT(outcome(verifier, with_signature(input, raw_signature("ES256", ec_pair(384), input))),
              HasSubstr("does not fit the issuer's key"));
}

TEST_F(Verifier, EcdsaSignatureOfWrongShapeIsRefused) {
  TokenVerifier verifier({rules_with(ring_of(jwks(jwk(ec_pair(256)))), {"ES256"})}, 8192);
  std::string input = signing_input(R"({"alg":"ES256"})", claims()),
              good = raw_signature("ES256", ec_pair(256), input);
  EXPECT_EQ(outcome(verifier, with_signature(input, good)), "ok");
  std::vector<std::string> bad{der_signature("ES256", ec_pair(256), input),
                               good.substr(0, 63),
                               good + '\0',
                               good.substr(0, 32),
                               std::string(64, '\0'),
                               std::string(64, '\xff'),
                               good + good};
  for (const std::string& signature : bad)
    EXPECT_THAT(outcome(verifier, with_signature(input, signature)), HasSubstr("signature does not match"));
}

// ---- keys

TEST_F(Verifier, UnknownKidIsRefusedAndAsksForFreshKeys) {
  auto ring = ring_of(jwks(jwk(ec_pair(256), "old")));
  TokenVerifier verifier({rules_with(ring, {"ES256"})}, 8192);
  std::string text = token("ES256", ec_pair(256), R"({"alg":"ES256","kid":"new"})", claims());
  EXPECT_THAT(outcome(verifier, text), HasSubstr("(kid) is not in the issuer's key set"));
  EXPECT_TRUE(ring->take_refresh_request());
  ring->store(std::make_shared<const KeySet>(*KeySet::from_jwks(jwk(ec_pair(256), "new"))));
  EXPECT_EQ(outcome(verifier, text), "ok");
  EXPECT_FALSE(ring->take_refresh_request());
}

TEST_F(Verifier, BadSignatureUnderAKnownKidAsksForNothing) {
  auto ring = ring_of(jwks(jwk(ec_pair(256), "k")));
  TokenVerifier verifier({rules_with(ring, {"ES256"})}, 8192);
  EXPECT_THAT(
      outcome(verifier, token("ES256", new_ec_pair("P-256"), R"({"alg":"ES256","kid":"k"})", claims())),
      HasSubstr("signature does not match"));
  EXPECT_FALSE(ring->take_refresh_request());
}

TEST_F(Verifier, AlgorithmThatIsNotListedAsksForNothing) {
  auto ring = ring_of(jwks(jwk(ec_pair(256), "k")));
  TokenVerifier verifier({rules_with(ring, {"ES256"})}, 8192);
  outcome(verifier, token("HS256", nullptr, R"({"alg":"HS256","kid":"storm"})", claims()));
  EXPECT_FALSE(ring->take_refresh_request());
}

TEST_F(Verifier, TokenWithoutKidIsTriedAgainstAllKeysThatFit) {
  KeyPair other = new_ec_pair("P-256");
  TokenVerifier verifier(
      {rules_with(ring_of(jwks(jwk(rsa_pair(), "a") + "," + jwk(ec_pair(256), "b") + "," + jwk(other, "c"))),
                  {"ES256"})},
      8192);
  EXPECT_EQ(outcome(verifier, token("ES256", ec_pair(256), R"({"alg":"ES256"})", claims())), "ok");
  EXPECT_EQ(outcome(verifier, token("ES256", other, R"({"alg":"ES256"})", claims())), "ok");
  EXPECT_THAT(outcome(verifier, token("ES256", new_ec_pair("P-256"), R"({"alg":"ES256"})", claims())),
              HasSubstr("signature"));
}

TEST_F(Verifier, KidPicksTheKeyAndNoOtherIsTried) {
  KeyPair other = new_ec_pair("P-256");
  TokenVerifier verifier(
      {rules_with(ring_of(jwks(jwk(ec_pair(256), "b") + "," + jwk(other, "c"))), {"ES256"})}, 8192);
  EXPECT_EQ(outcome(verifier, token("ES256", other, R"({"alg":"ES256","kid":"c"})", claims())), "ok");
  EXPECT_THAT(outcome(verifier, token("ES256", other, R"({"alg":"ES256","kid":"b"})", claims())),
              HasSubstr("signature"));
}

TEST_F(Verifier, SharedKidIsTriedWithEveryKeyOfThatName) {
  KeyPair other = new_ec_pair("P-256");
  TokenVerifier verifier(
      {rules_with(ring_of(jwks(jwk(ec_pair(256), "k") + "," + jwk(other, "k"))), {"ES256"})}, 8192);
  EXPECT_EQ(outcome(verifier, token("ES256", other, R"({"alg":"ES256","kid":"k"})", claims())), "ok");
}

TEST_F(Verifier, KeyWithoutKidStandsForAnyKid) {
  EXPECT_EQ(by_header(R"({"alg":"HS256","kid":"whatever"})"), "ok");
}

TEST_F(Verifier, KidThatIsNoTextIsRefused) {
  EXPECT_THAT(by_header(R"({"alg":"HS256","kid":7})"), HasSubstr("(kid) is not a text"));
  EXPECT_THAT(by_header(R"({"alg":"HS256","kid":null})"), HasSubstr("(kid) is not a text"));
}

TEST_F(Verifier, KeyForEncryptionVerifiesNothing) {
  auto ring = ring_of(jwks(jwk(rsa_pair(), "e", R"(,"use":"enc")") + "," + jwk(ec_pair(256), "s")));
  TokenVerifier verifier({rules_with(ring, {"RS256", "ES256"})}, 8192);
  EXPECT_THAT(outcome(verifier, token("RS256", rsa_pair(), R"({"alg":"RS256","kid":"e"})", claims())),
              HasSubstr("(kid)"));
  EXPECT_THAT(outcome(verifier, token("RS256", rsa_pair(), R"({"alg":"RS256"})", claims())),
              HasSubstr("does not fit"));
}

TEST_F(Verifier, WeakRsaKeyVerifiesNothing) {
  KeyPair weak = new_rsa_pair(1024);
  TokenVerifier verifier(
      {rules_with(ring_of(jwks(jwk(weak, "w") + "," + jwk(ec_pair(256), "s"))), {"RS256"})}, 8192);
  EXPECT_THAT(outcome(verifier, token("RS256", weak, R"({"alg":"RS256","kid":"w"})", claims())),
              HasSubstr("(kid)"));
}

TEST_F(Verifier, KeyInsideTheTokenIsIgnored) {
  KeyPair attacker = new_rsa_pair(2048);
  TokenVerifier verifier({rules_with(ring_of(jwks(jwk(rsa_pair(), "k"))), {"RS256"})}, 8192);
  std::string header = R"({"alg":"RS256","jku":"https://evil.example","x5u":"https://evil.example","jwk":)" +
                       jwk(attacker) + "}";
  EXPECT_THAT(outcome(verifier, token("RS256", attacker, header, claims())),
              HasSubstr("signature does not match"));
  EXPECT_EQ(outcome(verifier, token("RS256", rsa_pair(), header, claims())), "ok");
}

TEST_F(Verifier, WithoutKeysEverythingIsRefused) {
  auto ring = std::make_shared<KeyRing>();
  TokenVerifier verifier({rules_with(ring, {"HS256"})}, 8192);
  EXPECT_THAT(outcome(verifier, hs_token(claims())), HasSubstr("not available yet"));
  EXPECT_TRUE(ring->take_refresh_request());
}

TEST_F(Verifier, KeysVersionGrowsWhenAnyRingChanges) {
  auto a = secret_ring(), b = secret_ring();
  TokenVerifier verifier({rules_with(a, {"HS256"}), rules_with(b, {"HS256"})}, 8192);
  std::uint64_t before = verifier.keys_version();
  b->store(a->load());
  EXPECT_GT(verifier.keys_version(), before);
}

// ---- header

TEST_F(Verifier, CritIsRefusedWhateverItHolds) {
  for (std::string_view crit : {R"(["exp"])", R"(["b64"])", "[]", R"("exp")", "null"})
    EXPECT_THAT(by_header(fmt::format(R"({{"alg":"HS256","crit":{}}})", crit)), HasSubstr("crit")) << crit;
}

TEST_F(Verifier, UnencodedPayloadIsRefused) {
  EXPECT_THAT(by_header(R"({"alg":"HS256","b64":false})"), HasSubstr("b64"));
  EXPECT_THAT(by_header(R"({"alg":"HS256","b64":"true"})"), HasSubstr("b64"));
  EXPECT_THAT(by_header(R"({"alg":"HS256","b64":false,"crit":["b64"]})"), HasSubstr("crit"));
}

TEST_F(Verifier, TypMustBeThatOfAnAccessToken) {
  for (std::string_view typ : {"JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt"})
    EXPECT_EQ(by_header(fmt::format(R"({{"alg":"HS256","typ":"{}"}})", typ)), "ok") << typ;
  for (std::string_view typ : {"", "JWS", "dpop+jwt", "logout+jwt", "secevent+jwt", "JWT ", "text/jwt"})
    EXPECT_THAT(by_header(fmt::format(R"({{"alg":"HS256","typ":"{}"}})", typ)), HasSubstr("(typ)")) << typ;
  EXPECT_THAT(by_header(R"({"alg":"HS256","typ":null})"), HasSubstr("(typ)"));
  EXPECT_EQ(by_header(R"({"alg":"HS256"})"), "ok");
}

TEST_F(Verifier, NestedTokenIsRefused) {
  for (std::string_view cty : {"JWT", "jwt", "application/JWT"})
    EXPECT_THAT(by_header(fmt::format(R"({{"alg":"HS256","cty":"{}"}})", cty)), HasSubstr("Nested")) << cty;
  EXPECT_THAT(by_header(R"({"alg":"HS256","cty":1})"), HasSubstr("Nested"));
}

TEST_F(Verifier, MemberTwiceInTheHeaderIsRefused) {
  for (std::string_view header : {R"({"alg":"HS256","alg":"HS256"})", R"({"alg":"none","alg":"HS256"})",
                                  R"({"alg":"HS256","\u0061lg":"none"})",
                                  R"({"alg":"HS256","kid":"a","kid":"b"})", R"({"alg":"HS256","x":1,"x":1})"})
    EXPECT_THAT(by_header(header), HasSubstr("header holds a member twice")) << header;
}

// ---- shape of the token

TEST_F(Verifier, NothingSentIsTokenMissing) {
  EXPECT_THAT(outcome(hs, ""), HasSubstr("token_missing: "));
}

TEST_F(Verifier, TokenBeyondTheLimitIsRefusedUnread) {
  std::string good = hs_token(claims());
  EXPECT_EQ(outcome(TokenVerifier({hs.issuers()[0]}, good.size()), good), "ok");
  EXPECT_THAT(outcome(TokenVerifier({hs.issuers()[0]}, good.size() - 1), good), HasSubstr("longer than"));
}

TEST_F(Verifier, OtherThanThreePartsIsRefused) {
  std::string good = hs_token(claims());
  for (const std::string& text :
       std::vector<std::string>{"a", "a.b", ".", good + ".", "." + good, good + ".x", good + "." + good})
    EXPECT_THAT(outcome(hs, text), HasSubstr("token_invalid: ")) << text.size();
  EXPECT_THAT(outcome(hs, good + ".x.y"), HasSubstr("encrypted (JWE)"));
}

TEST_F(Verifier, EmptyPartIsRefused) {
  std::string input = signing_input(kHs256, claims()), signature = raw_signature("HS256", nullptr, input);
  EXPECT_THAT(outcome(hs, ".."), HasSubstr("not signed"));
  EXPECT_THAT(outcome(hs, input + "."), HasSubstr("not signed"));
  std::string no_header = "." + base64url_encode(claims()), no_claims = base64url_encode(kHs256) + ".";
  EXPECT_THAT(outcome(hs, with_signature(no_header, raw_signature("HS256", nullptr, no_header))),
              HasSubstr("header is not"));
  EXPECT_THAT(outcome(hs, with_signature(no_claims, raw_signature("HS256", nullptr, no_claims))),
              HasSubstr("claims set is not"));
}

TEST_F(Verifier, WhiteSpacePaddingAndOtherAlphabetAreRefused) {
  std::string good = hs_token(claims());
  std::size_t dot = good.find('.');
  for (const std::string& text : std::vector<std::string>{
           good + "=", good + " ", " " + good, good + "\n", good + std::string(1, '\0'),
           good.substr(0, dot) + "=" + good.substr(dot), good.substr(0, 5) + "\n" + good.substr(5),
           good.substr(0, dot) + " " + good.substr(dot), good.substr(0, 4) + "+/" + good.substr(6)})
    EXPECT_THAT(outcome(hs, text), HasSubstr("not base64url"));
}

TEST_F(Verifier, UnusedBitsOfTheLastCharacterMustBeZero) {
  // 32 bytes of HMAC are 43 characters, the last of which carries 4 of its 6 bits: three further spellings
  // exist.
  std::string good = hs_token(claims());
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::size_t value = alphabet.find(good.back());
  ASSERT_EQ(value % 4, 0U);
  for (std::size_t more = 1; more < 4; ++more) {
    std::string other = good;
    other.back() = alphabet[value + more];
    EXPECT_THAT(outcome(hs, other), HasSubstr("not base64url"));
  }
}

TEST_F(Verifier, PartsThatAreNoJsonObjectAreRefused) {
  for (std::string_view header : {"", "{", "[]", "null", "\"x\"",
                                  R"({"alg":"HS256"} )"
                                  "x",
                                  R"({"alg":"HS256",})", "{'alg':'HS256'}"})
    EXPECT_THAT(by_header(header), HasSubstr("header is not a JSON object")) << header;
  for (std::string_view text : {"", "{", "[]", "1", "{\"sub\":\"\xff\"}", "{\"sub\":\"a\nb\"}"})
    EXPECT_THAT(by_claims(text), HasSubstr("claims set is not a JSON object")) << text;
}

TEST_F(Verifier, BadSignatureIsToldBeforeExpiry) {
  std::string input = signing_input(kHs256, claims("", kNow - 1000));
  EXPECT_THAT(outcome(hs, with_signature(input, std::string(32, 'x'))), HasSubstr("token_invalid: "));
}

// ---- claims

TEST_F(Verifier, ClaimTwiceIsRefusedHoweverItIsSpelled) {
  EXPECT_THAT(by_claims(claims(R"("sub":"bob",)")), HasSubstr("claims set holds a member twice"));
  EXPECT_THAT(by_claims(claims("\"\\u0073ub\":\"bob\",")), HasSubstr("claims set holds a member twice"));
  EXPECT_THAT(by_claims(claims(R"("exp":9999999999,)")), HasSubstr("claims set holds a member twice"));
  EXPECT_THAT(by_claims(claims(R"("x":{"sub":"bob","y":1},)")), HasSubstr("ok"));
}

TEST_F(Verifier, ExpiryIsExactToTheSecondWithLeeway) {
  EXPECT_EQ(by_claims(claims("", kNow - 29)), "ok");
  EXPECT_EQ(by_claims(claims("", kNow - 30), kTime - Duration(1)), "ok");
  EXPECT_THAT(by_claims(claims("", kNow - 30)), HasSubstr("token_expired: "));
  EXPECT_THAT(by_claims(claims("", -5)), HasSubstr("token_expired: "));
  EXPECT_THAT(by_claims(claims("", 0)), HasSubstr("token_expired: "));
}

TEST_F(Verifier, NotBeforeAndIssuedAtAreExactToTheSecondWithLeeway) {
  for (std::string_view name : {"nbf", "iat"}) {
    EXPECT_EQ(by_claims(claims(fmt::format(R"("{}":{},)", name, kNow + 30))), "ok");
    EXPECT_THAT(by_claims(claims(fmt::format(R"("{}":{},)", name, kNow + 31))),
                HasSubstr("token_invalid: The access token is not valid yet"));
    EXPECT_THAT(by_claims(claims(fmt::format(R"("{}":{},)", name, kNow + 30)), kTime - Duration(1)),
                HasSubstr("not valid yet"));
  }
  EXPECT_THAT(by_claims(claims(fmt::format(R"("nbf":{},"iat":1,)", kNow + 31))), HasSubstr("not valid yet"));
}

TEST_F(Verifier, FractionalDatesCount) {
  auto at = [](double seconds) {
    return from_unix_seconds(kNow) + Duration(static_cast<std::int64_t>(seconds * 1e9));
  };
  std::string text = hs_token(bare(fmt::format(R"(,"exp":{}.5)", kNow)));
  EXPECT_EQ(outcome(hs, text, at(30.49)), "ok");
  EXPECT_THAT(outcome(hs, text, at(30.5)), HasSubstr("token_expired"));
  EXPECT_EQ(by_claims(bare(R"(,"exp":1.9e9)")), "ok");
}

TEST_F(Verifier, DatesBeyondAnyCalendarDoNotOverflow) {
  for (std::string_view exp : {"253402300799", "9223372036854775807", "18446744073709551615", "1e300"}) {
    auto verified = hs.verify(hs_token(bare(fmt::format(R"(,"exp":{})", exp))), kTime);
    ASSERT_TRUE(verified) << exp << verified.error().detail;
    EXPECT_EQ((*verified)->expires_at, UnixTime::max()) << exp;
  }
  for (std::string_view exp : {"-9223372036854775808", "-1e300"})
    EXPECT_THAT(by_claims(bare(fmt::format(R"(,"exp":{})", exp))), HasSubstr("token_expired")) << exp;
  EXPECT_THAT(by_claims(claims(R"("nbf":1e300,)")), HasSubstr("not valid yet"));
  EXPECT_EQ(by_claims(claims(R"("nbf":-1e300,"iat":-9223372036854775808,)")), "ok");
}

TEST_F(Verifier, DatesThatAreNoNumbersAreRefused) {
  for (std::string_view value : {R"("1900000000")", "null", "true", "[1900000000]", "{}"}) {
    EXPECT_THAT(by_claims(bare(fmt::format(R"(,"exp":{})", value))), HasSubstr("exp is not a number"))
        << value;
    EXPECT_THAT(by_claims(claims(fmt::format(R"("nbf":{},)", value))), HasSubstr("nbf is not a number"))
        << value;
    EXPECT_THAT(by_claims(claims(fmt::format(R"("iat":{},)", value))), HasSubstr("iat is not a number"))
        << value;
  }
  for (std::string_view value : {"1e999", "NaN", "Infinity", "-Infinity"})
    EXPECT_THAT(by_claims(bare(fmt::format(R"(,"exp":{})", value))), HasSubstr("token_invalid")) << value;
}

TEST_F(Verifier, ExpiryIsRequiredUnlessConfiguredOtherwise) {
  EXPECT_THAT(by_claims(bare("")), HasSubstr("no end of validity"));
  IssuerRules rules = hs.issuers()[0];
  rules.require_expiry = false;
  auto verified = TokenVerifier({rules}, 8192).verify(hs_token(bare("")), kTime);
  ASSERT_TRUE(verified);
  EXPECT_EQ((*verified)->expires_at, UnixTime::max());
}

TEST_F(Verifier, AudienceIsATextOrAListThatHoldsOneOfOurs) {
  auto with_aud = [](std::string_view aud) {
    return fmt::format(R"({{"iss":"https://idp.example","sub":"ann","exp":{}{}}})", kNow + 60, aud);
  };
  EXPECT_EQ(by_claims(with_aud(R"(,"aud":"crm-portal")")), "ok");
  EXPECT_EQ(by_claims(with_aud(R"(,"aud":["other","crm-portal"])")), "ok");
  EXPECT_THAT(by_claims(with_aud("")), HasSubstr("another audience"));
  for (std::string_view aud :
       {R"("other")", R"("CRM-portal")", R"("crm-portal ")", "[]", R"(["other"])", R"("")"})
    EXPECT_THAT(by_claims(with_aud(fmt::format(R"(,"aud":{})", aud))), HasSubstr("another audience")) << aud;
  for (std::string_view aud :
       {"7", "null", R"({"crm-portal":1})", R"(["crm-portal",7])", R"([["crm-portal"]])"})
    EXPECT_THAT(by_claims(with_aud(fmt::format(R"(,"aud":{})", aud))), HasSubstr("The token's aud is "))
        << aud;
}

TEST_F(Verifier, IssuerMustBeOneOfOurs) {
  auto with_iss = [](std::string_view iss) {
    return fmt::format(R"({{{}"aud":"crm-portal","sub":"ann","exp":{}}})", iss, kNow + 60);
  };
  EXPECT_THAT(by_claims(with_iss(R"("iss":"https://idp.example/",)")), HasSubstr("(iss) is not accepted"));
  EXPECT_THAT(by_claims(with_iss(R"("iss":"",)")), HasSubstr("(iss) is not accepted"));
  EXPECT_THAT(by_claims(with_iss("")), HasSubstr("(iss) is not accepted"));
  EXPECT_THAT(by_claims(with_iss(R"("iss":["https://idp.example"],)")), HasSubstr("(iss) is not a text"));
  EXPECT_THAT(by_claims(with_iss(R"("iss":null,)")), HasSubstr("(iss) is not a text"));
}

TEST_F(Verifier, UserMustBeANameWithoutControlCharacters) {
  auto with_sub = [](std::string_view sub) {
    return fmt::format(R"({{"iss":"https://idp.example","aud":"crm-portal"{},"exp":{}}})", sub, kNow + 60);
  };
  EXPECT_EQ(by_claims(with_sub(R"(,"sub":"Jürgen Müller \u00a0 😀")")), "ok");
  for (std::string_view sub :
       {"", R"(,"sub":"")", R"(,"sub":null)", R"(,"sub":7)", R"(,"sub":["x"])", R"(,"Sub":"x")"})
    EXPECT_THAT(by_claims(with_sub(sub)), HasSubstr("names no user")) << sub;
  for (std::string_view sub : {R"(a\u0000b)", R"(a\nb)", R"(\u001f)", R"(\u007f)", R"(\u0085)", R"(\u009f)"})
    EXPECT_THAT(by_claims(with_sub(fmt::format(R"(,"sub":"{}")", sub))), HasSubstr("control characters"))
        << sub;
}

TEST_F(Verifier, UserTypesAreReadAsTheContractAndCreatioSpellThem) {
  auto type = [&](std::string_view value) {
    auto verified = hs.verify(hs_token(claims(fmt::format(R"("user_type":{},)", value))), kTime);
    EXPECT_TRUE(verified) << value;
    return verified ? (*verified)->principal.user_type : UserType::unknown;
  };
  for (std::string_view portal : {R"("portal")", R"("Portal")", R"("SSP")", R"("ssp")"})
    EXPECT_EQ(type(portal), UserType::portal);
  for (std::string_view staff : {R"("staff")", R"("STAFF")", R"("General")"})
    EXPECT_EQ(type(staff), UserType::staff);
  for (std::string_view other : {R"("")", R"("admin")", R"("staff ")", "null"})
    EXPECT_EQ(type(other), UserType::unknown) << other;
  EXPECT_THAT(by_claims(claims(R"("user_type":["staff"],)")), HasSubstr("user_type is not a text"));
}

TEST_F(Verifier, TenantAndOrganizationAreTextsOrWholeNumbers) {
  auto verified = hs.verify(hs_token(claims(R"("tenant":42,"org":18446744073709551615,)")), kTime);
  ASSERT_TRUE(verified);
  EXPECT_EQ((*verified)->principal.tenant, "42");
  EXPECT_EQ((*verified)->principal.organization, "18446744073709551615");
  verified = hs.verify(hs_token(claims(R"("tenant":null,)")), kTime);
  ASSERT_TRUE(verified);
  EXPECT_EQ((*verified)->principal.tenant, "");
  EXPECT_THAT(by_claims(claims(R"("tenant":{},)")), HasSubstr("tenant is neither"));
  EXPECT_THAT(by_claims(claims(R"("org":1.5,)")), HasSubstr("org is neither"));
  EXPECT_THAT(by_claims(claims(R"("org":"a\u0000",)")), HasSubstr("control characters"));
}

TEST_F(Verifier, LicensesAreATextOrAListOfTexts) {
  auto licenses = [&](std::string_view value) {
    auto verified = hs.verify(hs_token(claims(fmt::format(R"("licenses":{},)", value))), kTime);
    EXPECT_TRUE(verified) << value;
    return verified ? (*verified)->principal.licenses : std::vector<std::string>();
  };
  EXPECT_THAT(licenses(R"("Creatio portal, self-service")"), ElementsAre("Creatio portal, self-service"));
  EXPECT_THAT(licenses(R"(["a","b","a",""])"), ElementsAre("a", "b"));
  EXPECT_THAT(licenses("[]"), IsEmpty());
  EXPECT_THAT(licenses("null"), IsEmpty());
  EXPECT_THAT(licenses(R"("")"), IsEmpty());
  for (std::string_view value : {"7", "{}", "[7]", R"([["a"]])", "true", R"(["a\u0000"])"})
    EXPECT_THAT(by_claims(claims(fmt::format(R"("licenses":{},)", value))), HasSubstr("licenses is neither"))
        << value;
}

TEST_F(Verifier, ClaimNamesAreConfigurable) {
  IssuerRules rules = hs.issuers()[0];
  rules.user_claim = "email";
  rules.organization_claim = "https://acme.example/org";
  auto verified = TokenVerifier({rules}, 8192)
                      .verify(hs_token(claims(R"("email":"a@b","https://acme.example/org":"Acme",)")), kTime);
  ASSERT_TRUE(verified) << verified.error().detail;
  EXPECT_EQ((*verified)->principal.user, "a@b");
  EXPECT_EQ((*verified)->principal.organization, "Acme");
}

// ---- several issuers

TEST_F(Verifier, TokenThatNamesAnIssuerIsOnlyTriedThere) {
  IssuerRules other = rules_with(secret_ring(std::string(64, 'o')), {"HS256"});
  other.issuer = "https://other.example";
  IssuerRules any = rules_with(secret_ring(std::string(64, 'a')), {"HS256"});
  any.issuer = "";
  TokenVerifier verifier({any, other, hs.issuers()[0]}, 8192);
  EXPECT_EQ(outcome(verifier, hs_token(claims())), "ok");
  // Signed with the key of another issuer, or of the one that accepts any.
  for (char c : {'o', 'a'})
    EXPECT_THAT(outcome(verifier, token("HS256", nullptr, kHs256, claims(), std::string(64, c))),
                HasSubstr("signature"));
  // Names nobody's issuer, or none: the one that accepts any.
  std::string stranger =
      fmt::format(R"({{"iss":"https://third.example","aud":"crm-portal","sub":"ann","exp":{}}})", kNow + 60);
  EXPECT_EQ(outcome(verifier, token("HS256", nullptr, kHs256, stranger, std::string(64, 'a'))), "ok");
  EXPECT_THAT(outcome(verifier, hs_token(stranger)), HasSubstr("signature"));
}

TEST_F(Verifier, TwoEntriesForOneIssuerAreBothTried) {
  IssuerRules second = rules_with(ring_of(jwks(jwk(ec_pair(256)))), {"ES256"});
  TokenVerifier verifier({hs.issuers()[0], second}, 8192);
  EXPECT_EQ(outcome(verifier, token("ES256", ec_pair(256), R"({"alg":"ES256"})", claims())), "ok");
  EXPECT_EQ(outcome(verifier, hs_token(claims())), "ok");
  EXPECT_THAT(outcome(verifier, hs_token(claims("", kNow - 100))), HasSubstr("token_expired"));
}

TEST_F(Verifier, NoIssuerConfiguredRefusesEverything) {
  EXPECT_THAT(outcome(TokenVerifier({}, 8192), hs_token(claims())), HasSubstr("token_invalid"));
}

// ---- minting

TEST(Mint, TokensVerifyWithEveryAlgorithm) {
  std::vector<std::pair<Algorithm, KeyPair>> all{
      {Algorithm::hs256, nullptr},        {Algorithm::hs384, nullptr},      {Algorithm::hs512, nullptr},
      {Algorithm::rs256, rsa_pair()},     {Algorithm::rs384, rsa_pair()},   {Algorithm::rs512, rsa_pair()},
      {Algorithm::ps256, rsa_pair()},     {Algorithm::ps384, rsa_pair()},   {Algorithm::ps512, rsa_pair()},
      {Algorithm::es256, ec_pair(256)},   {Algorithm::es384, ec_pair(384)}, {Algorithm::es512, ec_pair(521)},
      {Algorithm::eddsa, ed25519_pair()}, {Algorithm::eddsa, ed448_pair()}};
  for (const auto& [algorithm, pair] : all) {
    Mint mint;
    mint.algorithm = algorithm;
    mint.key = pair ? private_pem(pair) : kSecret + "\n";
    mint.kid = "k1";
    mint.claims = {text_claim("iss", "https://idp.example"), text_claim("aud", "crm-portal"),
                   text_claim("sub", "a \"b\""), number_claim("exp", kNow),
                   texts_claim("licenses", {"x", "y"})};
    auto text = mint_token(mint);
    ASSERT_TRUE(text) << text.error().message;
    TokenVerifier verifier(
        {rules_with(pair ? ring_of(public_pem(pair)) : secret_ring(), {std::string(name(algorithm))})}, 8192);
    auto verified = verifier.verify(*text, kTime);
    ASSERT_TRUE(verified) << name(algorithm) << verified.error().detail;
    EXPECT_EQ((*verified)->principal.user, "a \"b\"");
    EXPECT_THAT((*verified)->principal.licenses, ElementsAre("x", "y"));
  }
}

TEST(Mint, WritesHeaderAndClaimsInTheGivenOrder) {
  Mint mint;
  mint.key = kSecret;
  mint.claims = {number_claim("z", 1), text_claim("a", "b")};
  auto text = mint_token(mint);
  ASSERT_TRUE(text);
  EXPECT_TRUE(text->starts_with(signing_input(R"({"alg":"HS256","typ":"JWT"})", R"({"z":1,"a":"b"})") + "."));
}

TEST(Mint, KeyThatDoesNotFitIsAnError) {
  auto error = [](Algorithm algorithm, const std::string& key) {
    auto result = sign(algorithm, key, "input");
    return result ? std::string("none") : result.error().message;
  };
  EXPECT_THAT(error(Algorithm::hs256, "short"), HasSubstr("at least 32"));
  EXPECT_THAT(error(Algorithm::hs512, std::string(63, 'x')), HasSubstr("at least 64"));
  EXPECT_THAT(error(Algorithm::rs256, private_pem(ec_pair(256))), HasSubstr("P-256 key does not sign RS256"));
  EXPECT_THAT(error(Algorithm::es384, private_pem(ec_pair(256))), HasSubstr("does not sign ES384"));
  EXPECT_THAT(error(Algorithm::rs256, "not a key"), HasSubstr("private key in PEM"));
  EXPECT_THAT(error(Algorithm::rs256, public_pem(rsa_pair())), HasSubstr("private key in PEM"));
}

}  // namespace
}  // namespace tollgate::identity
