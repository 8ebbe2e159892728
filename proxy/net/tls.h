// TLS settings made ready: for a listener (ServerTls) and towards an upstream (ClientTls). Immutable after
// loading, shared by all workers; a session keeps what it needs of its context, so a reload drops no
// connection.
//
// Server: TLS 1.2 (ECDHE with AES-GCM or ChaCha20 only) and 1.3, certificate chosen by SNI from the subject
// alternative names of each (exact names first, then "*.example.com" for one label, RFC 6125 section 6.4.3),
// the first certificate when nothing fits or no SNI was sent; ALPN http/1.1; session tickets (ticket_keys.h),
// whose secret goes on after a reload; OCSP responses stapled from files until they expire. Client: chain and host name are verified unless switched off; SNI is sent for names, not
// for addresses.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/settings.h"
#include "metering/base/error.h"
#include "metering/base/time.h"

typedef struct ssl_st SSL;

namespace tollgate::net {

struct CertificateFile {
  std::string file;
  UnixTime not_after;  // of a certificate, or of an OCSP response
};

class ServerTls {
 public:
  // previous: the listener's contexts before the reload, or nullptr. Reads the files.
  static Result<std::shared_ptr<const ServerTls>> load(const config::ListenerTls& settings,
                                                       const ServerTls* previous);
  ~ServerTls();

  SSL* new_session() const;  // for Transport::open, in accepting state
  const std::vector<CertificateFile>& certificates() const { return files_; }

 private:
  struct Contexts;
  explicit ServerTls(std::unique_ptr<Contexts> contexts);
  std::unique_ptr<Contexts> contexts_;
  std::vector<CertificateFile> files_;
};

class ClientTls {
 public:
  static Result<std::shared_ptr<const ClientTls>> load(const config::UpstreamTls& settings);
  ~ClientTls();

  // host: name or address of the server's URL; settings.server_name wins.
  SSL* new_session(const std::string& host) const;

 private:
  struct Context;
  explicit ClientTls(std::unique_ptr<Context> context);
  std::unique_ptr<Context> context_;
};

}  // namespace tollgate::net
