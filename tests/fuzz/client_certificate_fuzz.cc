// Certificates that a client sends: whatever is in them, a name is one line of text, and nobody is named twice.
#include <openssl/err.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cstdint>

#include "metering/base/check.h"
#include "metering/identity/client_certificate.h"

using namespace tollgate;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const unsigned char* at = data;
  X509* x509 = d2i_X509(nullptr, &at, static_cast<long>(size));
  ERR_clear_error();
  if (x509 == nullptr) return 0;
  const auto certificate = identity::ClientCertificate::read(*x509);
  X509_free(x509);
  CHECK(certificate->cache_id().size() == 33, "a certificate has a fingerprint");
  for (std::size_t kind = 1; kind < identity::kCertificateNameCount; ++kind) {
    const auto which = static_cast<identity::CertificateName>(kind);
    const auto name = certificate->name(which);
    if (!name) continue;
    CHECK(std::none_of(name->begin(), name->end(), [](char c) { return (c >= 0 && c < ' ') || c == 127; }),
          "a name has no control characters");
    const auto owner = identity::caller_of(*certificate, which, nullptr, from_unix_seconds(1'795'000'000));
    if (owner && *owner != nullptr)
      CHECK((*owner)->principal.user == *name && !name->empty(), "the name is the user's");
  }
  return 0;
}
