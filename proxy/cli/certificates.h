// The certificates that a configuration names: readable, fitting their keys, not expired. For `check` and
// `doctor`.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "config/load/load.h"
#include "metering/base/error.h"
#include "metering/base/time.h"

namespace tollgate::cli {

// The end of the first certificate of a PEM text; an error when there is none.
Result<UnixTime> certificate_expiry(std::string_view pem);

// A certificate that is no certificate or does not fit its key: error. Expired, or not yet valid: warning.
// Placed at the keys of the configuration.
std::vector<config::Diagnostic> check_certificates(const config::LoadedConfig& loaded, UnixTime now);

struct NamedCertificate {
  std::string key;  // "listeners[0].tls.certificate_file"
  std::string file;
  UnixTime expires_at;
};
// Every readable certificate with a private key of our own, for `doctor`.
std::vector<NamedCertificate> own_certificates(const config::LoadedConfig& loaded);

}  // namespace tollgate::cli
