#include "proxy/cli/certificates.h"

#include <fmt/format.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>

#include "config/validate.h"

namespace tollgate::cli {
namespace {

template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;

Bio memory(std::string_view text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// A key with a passphrase must not make OpenSSL ask on the terminal.
int no_passphrase(char*, int, int, void*) {
  return -1;
}

Certificate read_certificate(std::string_view pem) {
  Bio bio = memory(pem);
  Certificate certificate(PEM_read_bio_X509_AUX(bio.get(), nullptr, no_passphrase, nullptr));
  ERR_clear_error();
  return certificate;
}
PrivateKey read_key(std::string_view pem) {
  Bio bio = memory(pem);
  PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr));
  ERR_clear_error();
  return key;
}

UnixTime time_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return UnixTime::min();
  return from_unix_seconds(::timegm(&parts));
}

std::string date(UnixTime time) {
  std::time_t seconds = unix_seconds(time);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

struct Pair {
  std::string path;  // of the group
  std::string certificate_file, key_file;
};

std::vector<Pair> pairs_of(const config::Settings& settings) {
  std::vector<Pair> pairs;
  for (std::size_t i = 0; i < settings.listeners.size(); ++i) {
    if (!settings.listeners[i].tls) continue;
    const config::ListenerTls& tls = *settings.listeners[i].tls;
    std::string path = fmt::format("listeners[{}].tls", i);
    pairs.push_back({path, tls.certificate_file, tls.key_file});
    for (std::size_t j = 0; j < tls.certificates.size(); ++j)
      pairs.push_back({fmt::format("{}.certificates[{}]", path, j), tls.certificates[j].certificate_file,
                       tls.certificates[j].key_file});
  }
  for (const config::Upstream& upstream : settings.upstreams)
    if (!upstream.tls.certificate_file.empty())
      pairs.push_back({fmt::format("upstreams.{}.tls", upstream.name), upstream.tls.certificate_file,
                       upstream.tls.key_file});
  return pairs;
}

const std::string* text_of(const config::LoadedConfig& loaded, const std::string& file) {
  auto found = loaded.file_texts.find(file);
  return found == loaded.file_texts.end() ? nullptr : &found->second;
}

}  // namespace

Result<UnixTime> certificate_expiry(std::string_view pem) {
  Certificate certificate = read_certificate(pem);
  if (!certificate) return fail(Origin::config, "holds no certificate in PEM");
  return time_of(X509_get0_notAfter(certificate.get()));
}

std::vector<config::Diagnostic> check_certificates(const config::LoadedConfig& loaded, UnixTime now) {
  std::vector<config::Diagnostic> diagnostics;
  auto report = [&](config::Severity severity, const std::string& path, std::string message) {
    config::Position at = config::position_of(loaded.positions, path);
    diagnostics.push_back({at.file, at.line, at.column, severity, fmt::format("{}: {}", path, message)});
  };
  for (const Pair& pair : pairs_of(loaded.settings)) {
    const std::string* chain = text_of(loaded, pair.certificate_file);
    const std::string* key_text = text_of(loaded, pair.key_file);
    if (chain == nullptr || key_text == nullptr) continue;
    Certificate certificate = read_certificate(*chain);
    PrivateKey key = read_key(*key_text);
    if (!certificate)
      report(config::Severity::error, pair.path + ".certificate_file",
             pair.certificate_file + " holds no certificate in PEM");
    if (!key)
      report(config::Severity::error, pair.path + ".key_file",
             pair.key_file + " holds no private key in PEM without a passphrase");
    if (!certificate || !key) continue;
    if (X509_check_private_key(certificate.get(), key.get()) != 1)
      report(config::Severity::error, pair.path + ".key_file", "this key does not belong to the certificate");
    ERR_clear_error();
    UnixTime end = time_of(X509_get0_notAfter(certificate.get()));
    if (end <= now)
      report(config::Severity::warning, pair.path + ".certificate_file",
             "the certificate expired on " + date(end));
    if (UnixTime begin = time_of(X509_get0_notBefore(certificate.get())); begin > now)
      report(config::Severity::warning, pair.path + ".certificate_file",
             "the certificate is valid from " + date(begin) + " on");
  }
  return diagnostics;
}

std::vector<NamedCertificate> own_certificates(const config::LoadedConfig& loaded) {
  std::vector<NamedCertificate> found;
  for (const Pair& pair : pairs_of(loaded.settings)) {
    const std::string* chain = text_of(loaded, pair.certificate_file);
    if (chain == nullptr) continue;
    if (auto expires_at = certificate_expiry(*chain))
      found.push_back({pair.path + ".certificate_file", pair.certificate_file, *expires_at});
  }
  return found;
}

}  // namespace tollgate::cli
