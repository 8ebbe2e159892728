// Who calls, by the certificate that a client proved to hold in a TLS handshake of ours (identity.client_certificate).
//
//   auto certificate = ClientCertificate::read(*SSL_get0_peer_certificate(session));     // once a connection
//   auto name = certificate->name(CertificateName::san_uri);                 // "spiffe://acme.example/billing"
//   caller_of(*certificate, CertificateName::san_uri, directory)             // the user who has that name
//
// Only what the handshake verified is ever read: a field that a client or a gateway sends about certificates says
// nothing here (and is left out: docs/wire.md).
//
// A certificate that has the configured name twice with different values, or with control characters (a NUL, above
// all) in it, is nobody's: who it stands for would depend on the reader. Immutable; any thread may read.
#pragma once
#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/time.h"
#include "metering/identity/directory.h"
#include "metering/identity/principal.h"

typedef struct x509_st X509;

namespace tollgate::identity {

// Which part of it is the caller's name. Fingerprints are SHA-256 in lower case hexadecimal: of the whole certificate
// (another one after each renewal), or of its public key (SubjectPublicKeyInfo; RFC 7469 section 2.4).
enum class CertificateName : std::uint8_t {
  none,
  subject_cn,
  san_uri,
  san_dns,
  san_email,
  sha256,
  spki_sha256
};
inline constexpr std::size_t kCertificateNameCount = 7;
constexpr bool is_fingerprint(CertificateName kind) {
  return kind == CertificateName::sha256 || kind == CertificateName::spki_sha256;
}

class ClientCertificate {
 public:
  static std::shared_ptr<const ClientCertificate> read(const X509& certificate);

  // "": it has none. Refused (token_invalid): several, or one that readers would disagree about.
  std::expected<std::string_view, TokenRefusal> name(CertificateName kind) const;
  UnixTime not_before() const { return not_before_; }
  UnixTime not_after() const { return not_after_; }
  // 33 bytes that no token and no session's name can spell: for caches.
  std::string_view cache_id() const { return cache_id_; }

 private:
  struct Name {
    std::string text;
    bool doubtful = false;
  };
  void take(CertificateName kind, std::string_view text);

  std::array<Name, kCertificateNameCount> names_;
  UnixTime not_before_, not_after_;
  std::string cache_id_;
};

// The user whom the directory lists with this name in its column `certificate`; without such a row, the name itself,
// but a fingerprint that is not listed is nobody's (nullptr). nullptr also when the certificate has no such name.
// Refused: as name(); expired, or not valid yet, by now.
std::expected<std::shared_ptr<const VerifiedToken>, TokenRefusal> caller_of(
    const ClientCertificate& certificate, CertificateName kind, const Directory* directory, UnixTime now);

}  // namespace tollgate::identity
