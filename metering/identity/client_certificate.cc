#include "metering/identity/client_certificate.h"

#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/identity/openssl_handles.h"

namespace tollgate::identity {
namespace {

constexpr std::size_t kNameBytesMax = 256;

UnixTime unix_time(const ASN1_TIME* time, UnixTime otherwise) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return otherwise;
  constexpr std::int64_t kBound =
      9'000'000'000;  // in the year 2255: what is beyond overflows the clock's own unit
  return from_unix_seconds(std::clamp<std::int64_t>(timegm(&parts), 0, kBound));
}

std::string hex(std::string_view bytes) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  for (char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    out.push_back(kHex[byte >> 4]);
    out.push_back(kHex[byte & 15]);
  }
  return out;
}

using Digest = int (*)(const X509*, const EVP_MD*, unsigned char*, unsigned*);
std::string sha256(const X509& certificate, Digest digest) {
  std::string out(EVP_MAX_MD_SIZE, '\0');
  unsigned size = 0;
  if (digest(&certificate, EVP_sha256(), reinterpret_cast<unsigned char*>(out.data()), &size) != 1) size = 0;
  out.resize(size);
  return out;
}

// Of the whole SubjectPublicKeyInfo (X509_pubkey_digest() takes the key's bits alone).
int spki_digest(const X509* certificate, const EVP_MD* kind, unsigned char* out, unsigned* size) {
  unsigned char* der = nullptr;
  const int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
  if (length <= 0) return 0;
  const int made = EVP_Digest(der, static_cast<std::size_t>(length), out, size, kind, nullptr);
  OPENSSL_free(der);
  return made;
}

std::string_view text_of(const ASN1_STRING* text) {
  const int length = ASN1_STRING_length(text);
  if (length <= 0) return {};
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)), static_cast<std::size_t>(length)};
}

}  // namespace

void ClientCertificate::take(CertificateName kind, std::string_view text) {
  Name& name = names_[static_cast<std::size_t>(kind)];
  if (name.doubtful || text.empty()) return;
  const bool control =
      std::any_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < ' ') || c == 127; });
  if (control || text.size() > kNameBytesMax || (!name.text.empty() && name.text != text)) {
    name.doubtful = true;
    name.text.clear();
    return;
  }
  name.text = text;
}

std::shared_ptr<const ClientCertificate> ClientCertificate::read(const X509& certificate) {
  openssl::ErrorScope errors;
  auto out = std::make_shared<ClientCertificate>();
  const X509_NAME* subject = X509_get_subject_name(&certificate);
  for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;) {
    unsigned char* utf8 = nullptr;  // common names come in several character sets
    const int length = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (length < 0) {
      out->take(CertificateName::subject_cn, std::string_view("\0", 1));
      continue;
    }
    out->take(CertificateName::subject_cn,
              {reinterpret_cast<const char*>(utf8), static_cast<std::size_t>(length)});
    OPENSSL_free(utf8);
  }
  const std::unique_ptr<GENERAL_NAMES, void (*)(GENERAL_NAMES*)> alternatives(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)),
      &GENERAL_NAMES_free);
  for (int i = 0; i < sk_GENERAL_NAME_num(alternatives.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(alternatives.get(), i);
    if (name->type == GEN_URI)
      out->take(CertificateName::san_uri, text_of(name->d.uniformResourceIdentifier));
    else if (name->type == GEN_DNS)
      out->take(CertificateName::san_dns, to_lower(text_of(name->d.dNSName)));
    else if (name->type == GEN_EMAIL)
      out->take(CertificateName::san_email, text_of(name->d.rfc822Name));
  }
  const std::string whole = sha256(certificate, &X509_digest);
  out->take(CertificateName::sha256, hex(whole));
  out->take(CertificateName::spki_sha256, hex(sha256(certificate, &spki_digest)));
  out->not_before_ = unix_time(X509_get0_notBefore(&certificate), UnixTime::max());
  out->not_after_ = unix_time(X509_get0_notAfter(&certificate), UnixTime::min());
  out->cache_id_ = whole;
  out->cache_id_.push_back('\0');
  return out;
}

std::expected<std::string_view, TokenRefusal> ClientCertificate::name(CertificateName kind) const {
  const Name& name = names_[static_cast<std::size_t>(kind)];
  if (name.doubtful)
    return std::unexpected(
        TokenRefusal{Reason::token_invalid, "The client's certificate does not name one user."});
  return name.text;
}

std::expected<std::shared_ptr<const VerifiedToken>, TokenRefusal> caller_of(
    const ClientCertificate& certificate, CertificateName kind, const Directory* directory, UnixTime now) {
  const auto name = certificate.name(kind);
  if (!name) return std::unexpected(name.error());
  if (name->empty()) return nullptr;
  const std::string* listed = directory == nullptr ? nullptr : directory->find_certificate(*name);
  if (listed == nullptr && is_fingerprint(kind)) return nullptr;
  // A connection may last longer than the certificate that it began with.
  if (now >= certificate.not_after())
    return std::unexpected(TokenRefusal{Reason::token_expired, "The client's certificate has expired."});
  if (now < certificate.not_before())
    return std::unexpected(TokenRefusal{Reason::token_invalid, "The client's certificate is not valid yet."});
  auto out = std::make_shared<VerifiedToken>();
  out->principal.user = listed != nullptr ? *listed : std::string(*name);
  if (directory != nullptr) out->principal = directory->apply(std::move(out->principal));
  if (!out->principal.active) return std::unexpected(inactive_user());
  out->not_before = certificate.not_before();
  out->expires_at = certificate.not_after();
  return out;
}

}  // namespace tollgate::identity
