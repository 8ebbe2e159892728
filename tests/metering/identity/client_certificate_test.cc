#include "metering/identity/client_certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include <functional>

namespace tollgate::identity {
namespace {

using ::testing::MatchesRegex;

constexpr std::int64_t kFrom = 1'790'000'000, kUntil = 1'800'000'000;
const UnixTime kNow = from_unix_seconds(1'795'000'000);

using Edit = std::function<void(X509*)>;

// A self-signed certificate; the authority is the business of the handshake.
std::shared_ptr<const ClientCertificate> certificate(const Edit& edit) {
  const std::unique_ptr<X509, void (*)(X509*)> x509(X509_new(), &X509_free);
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  X509_set_version(x509.get(), X509_VERSION_3);
  X509_set_pubkey(x509.get(), key.get());
  ASN1_TIME_set(X509_getm_notBefore(x509.get()), kFrom);
  ASN1_TIME_set(X509_getm_notAfter(x509.get()), kUntil);
  edit(x509.get());
  EXPECT_GT(X509_sign(x509.get(), key.get(), EVP_sha256()), 0);
  return ClientCertificate::read(*x509);
}
void add_cn(X509* x509, std::string_view text, int type = V_ASN1_UTF8STRING) {
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", type,
                             reinterpret_cast<const unsigned char*>(text.data()),
                             static_cast<int>(text.size()), -1, 0);
}
void add_alternatives(X509* x509, const std::vector<std::pair<int, std::string>>& names) {
  GENERAL_NAMES* list = GENERAL_NAMES_new();
  for (const auto& [type, text] : names) {
    ASN1_IA5STRING* value = ASN1_IA5STRING_new();
    ASN1_STRING_set(value, text.data(), static_cast<int>(text.size()));
    GENERAL_NAME* name = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(name, type, value);
    sk_GENERAL_NAME_push(list, name);
  }
  EXPECT_EQ(X509_add1_ext_i2d(x509, NID_subject_alt_name, list, 0, 0), 1);
  GENERAL_NAMES_free(list);
}
std::string name_of(const ClientCertificate& certificate, CertificateName kind) {
  auto name = certificate.name(kind);
  return name ? std::string(*name) : "refused: " + name.error().detail;
}
const std::string kRefused = "refused: The client's certificate does not name one user.";

TEST(ClientCertificate, EachPartThatMayNameTheCallerIsRead) {
  auto c = certificate([](X509* x509) {
    add_cn(x509, "Zoë");
    add_alternatives(x509, {{GEN_URI, "spiffe://acme.example/billing"},
                            {GEN_DNS, "Robot.Acme.Example"},
                            {GEN_EMAIL, "ann@acme.example"}});
  });
  EXPECT_EQ(name_of(*c, CertificateName::subject_cn), "Zoë");
  EXPECT_EQ(name_of(*c, CertificateName::san_uri), "spiffe://acme.example/billing");
  EXPECT_EQ(name_of(*c, CertificateName::san_dns), "robot.acme.example");
  EXPECT_EQ(name_of(*c, CertificateName::san_email), "ann@acme.example");
  EXPECT_THAT(name_of(*c, CertificateName::sha256), MatchesRegex("[0-9a-f]{64}"));
  EXPECT_THAT(name_of(*c, CertificateName::spki_sha256), MatchesRegex("[0-9a-f]{64}"));
  EXPECT_NE(name_of(*c, CertificateName::sha256), name_of(*c, CertificateName::spki_sha256));
  EXPECT_EQ(c->not_before(), from_unix_seconds(kFrom));
  EXPECT_EQ(c->not_after(), from_unix_seconds(kUntil));
  EXPECT_EQ(c->cache_id().size(), 33U);
  EXPECT_EQ(c->cache_id().back(), '\0');
}

TEST(ClientCertificate, OtherCharacterSetsOfACommonNameAreOneText) {
  auto c =
      certificate([](X509* x509) { add_cn(x509, std::string_view("\0Z\0o\0\xEB", 6), V_ASN1_BMPSTRING); });
  EXPECT_EQ(name_of(*c, CertificateName::subject_cn), "Zoë");
}

TEST(ClientCertificate, WhatReadersDisagreeAboutIsNobodysName) {
  auto twice = certificate([](X509* x509) {
    add_cn(x509, "ann");
    add_cn(x509, "bob");
    add_alternatives(
        x509, {{GEN_URI, "urn:a"}, {GEN_URI, "urn:b"}, {GEN_DNS, "one.example"}, {GEN_DNS, "ONE.example"}});
  });
  EXPECT_EQ(name_of(*twice, CertificateName::subject_cn), kRefused);
  EXPECT_EQ(name_of(*twice, CertificateName::san_uri), kRefused);
  EXPECT_EQ(name_of(*twice, CertificateName::san_dns), "one.example") << "the same twice is one";
  EXPECT_EQ(name_of(*twice, CertificateName::san_email), "");
  auto nul = certificate([](X509* x509) {
    add_cn(x509, std::string_view("ann\0.evil", 9));
    add_alternatives(x509, {{GEN_EMAIL, std::string("ann@acme.example\0x", 18)}, {GEN_URI, "urn:a\nb"}});
  });
  EXPECT_EQ(name_of(*nul, CertificateName::subject_cn), kRefused);
  EXPECT_EQ(name_of(*nul, CertificateName::san_email), kRefused);
  EXPECT_EQ(name_of(*nul, CertificateName::san_uri), kRefused);
  EXPECT_FALSE(caller_of(*nul, CertificateName::subject_cn, nullptr, kNow));
}

TEST(ClientCertificate, TheDirectorySaysWhoseItIs) {
  auto c = certificate([](X509* x509) { add_cn(x509, "robot-7"); });
  const std::string print = name_of(*c, CertificateName::sha256);
  std::string colons;
  for (std::size_t i = 0; i < print.size(); i += 2)
    colons += (i == 0 ? "" : ":") + std::string{static_cast<char>(std::toupper(print[i])),
                                                static_cast<char>(std::toupper(print[i + 1]))};
  auto directory = Directory::parse(
      "user,organization,license,user_type,certificate\nann,Acme,customer portal,portal,robot-7\n"
      "bob,,,staff," +
      colons + "\nrobot-8,Best,,,\n");
  ASSERT_TRUE(directory) << directory.error().message;
  auto by_name = caller_of(*c, CertificateName::subject_cn, &*directory, kNow);
  ASSERT_TRUE(by_name && *by_name);
  EXPECT_EQ((*by_name)->principal.user, "ann");
  EXPECT_EQ((*by_name)->principal.organization, "Acme");
  EXPECT_EQ((*by_name)->expires_at, from_unix_seconds(kUntil));
  auto by_print = caller_of(*c, CertificateName::sha256, &*directory, kNow);
  ASSERT_TRUE(by_print && *by_print);
  EXPECT_TRUE((*by_print)->principal.is_staff());
  // Not listed: a name is a user's name, a fingerprint is nobody's.
  auto itself = caller_of(*c, CertificateName::subject_cn, nullptr, kNow);
  ASSERT_TRUE(itself && *itself);
  EXPECT_EQ((*itself)->principal.user, "robot-7");
  auto nobody = caller_of(*c, CertificateName::spki_sha256, &*directory, kNow);
  ASSERT_TRUE(nobody);
  EXPECT_EQ(*nobody, nullptr);
  auto nameless = caller_of(*c, CertificateName::san_uri, &*directory, kNow);
  ASSERT_TRUE(nameless);
  EXPECT_EQ(*nameless, nullptr);
  auto two = Directory::parse("user,certificate\nann,robot-7\nbob,robot-7\n");
  ASSERT_FALSE(two);
  EXPECT_EQ(two.error().message, "line 3: this certificate is another user's already");
}

TEST(ClientCertificate, ItCountsAsLongAsItIsValid) {
  auto c = certificate([](X509* x509) { add_cn(x509, "ann"); });
  const auto at = [&](std::int64_t seconds) {
    return caller_of(*c, CertificateName::subject_cn, nullptr, from_unix_seconds(seconds));
  };
  EXPECT_TRUE(at(kFrom));
  EXPECT_TRUE(at(kUntil - 1));
  EXPECT_EQ(at(kUntil).error().reason, Reason::token_expired);
  EXPECT_EQ(at(kFrom - 1).error().reason, Reason::token_invalid);
}

}  // namespace
}  // namespace tollgate::identity
