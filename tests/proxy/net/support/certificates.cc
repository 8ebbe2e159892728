#include "tests/proxy/net/support/certificates.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

namespace tollgate::net::test {

Folder::Folder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "tollgate-net-XXXXXX").string();
  EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
  root_ = pattern;
}
Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(root_, ignored);
}

namespace {

void write_key(const std::string& path, EVP_PKEY* key) {
  FILE* file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
}

void write_certificate(const std::string& path, X509* certificate) {
  FILE* file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  PEM_write_X509(file, certificate);
  std::fclose(file);
}

void extend(X509* certificate, X509* issuer, int id, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str());
  ASSERT_NE(extension, nullptr) << value;
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

X509* blank(EVP_PKEY* key, const std::string& name, long valid_seconds) {
  static long serial = 1;
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), valid_seconds);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  return certificate;
}

void make_authority(const Folder& folder) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = blank(key, "Test Authority", 86'400);
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
  extend(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE");
  X509_sign(certificate, key, EVP_sha256());
  write_key(folder.path("ca.key"), key);
  write_certificate(folder.path("ca.pem"), certificate);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

}  // namespace

void make_certificate(const Folder& folder, const std::string& name, const std::vector<std::string>& names,
                      long valid_seconds) {
  if (!std::filesystem::exists(folder.path("ca.pem"))) make_authority(folder);
  FILE* file = std::fopen(folder.path("ca.key").c_str(), "r");
  EVP_PKEY* authority_key = PEM_read_PrivateKey(file, nullptr, nullptr, nullptr);
  std::fclose(file);
  file = std::fopen(folder.path("ca.pem").c_str(), "r");
  X509* authority = PEM_read_X509(file, nullptr, nullptr, nullptr);
  std::fclose(file);
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = blank(key, name, valid_seconds);
  X509_set_issuer_name(certificate, X509_get_subject_name(authority));
  std::string alternatives;
  for (const std::string& one : names) alternatives += (alternatives.empty() ? "" : ",") + one;
  if (!alternatives.empty()) extend(certificate, authority, NID_subject_alt_name, alternatives);
  X509_sign(certificate, authority_key, EVP_sha256());
  write_key(folder.path(name + ".key"), key);
  write_certificate(folder.path(name + ".pem"), certificate);
  X509_free(certificate);
  X509_free(authority);
  EVP_PKEY_free(key);
  EVP_PKEY_free(authority_key);
}

void FreeContext::operator()(SSL_CTX* context) const {
  SSL_CTX_free(context);
}

Context server_context(const Folder& folder, const std::string& certificate) {
  Context context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX_use_certificate_chain_file(context.get(), folder.path(certificate + ".pem").c_str());
  SSL_CTX_use_PrivateKey_file(context.get(), folder.path(certificate + ".key").c_str(), SSL_FILETYPE_PEM);
  return context;
}

}  // namespace tollgate::net::test
