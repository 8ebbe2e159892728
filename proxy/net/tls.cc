#include "proxy/net/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <ctime>
#include <map>

#include "metering/base/ascii.h"
#include "metering/base/check.h"

namespace tollgate::net {

namespace {

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using ContextPointer = std::unique_ptr<SSL_CTX, FreeContext>;

constexpr const char* kCiphers12 = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL:!SHA1:!PSK";
constexpr unsigned char kAlpn[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
constexpr std::size_t kTicketKeys = 80;  // OpenSSL 3: name 16, hmac 32, aes 32

std::string last_tls_error() {
  char text[256] = "unknown error";
  const unsigned long code = ERR_peek_last_error();
  if (code != 0) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

void common_options(SSL_CTX* context) {
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_cipher_list(context, kCiphers12);
  SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(context, 1);
}

Result<void> use_certificate(SSL_CTX* context, const std::string& certificate, const std::string& key) {
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1)
    return fail(Origin::config,
                fmt::format("certificate file {} cannot be used: {}", certificate, last_tls_error()));
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1)
    return fail(Origin::config, fmt::format("key file {} cannot be used: {}", key, last_tls_error()));
  if (SSL_CTX_check_private_key(context) != 1)
    return fail(Origin::config,
                fmt::format("key file {} does not belong to certificate {}", key, certificate));
  return {};
}

UnixTime not_after(const X509* certificate) {
  std::tm parts{};
  if (certificate == nullptr || ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &parts) != 1) return {};
  return from_unix_seconds(timegm(&parts));
}

// DNS names of a certificate, lower case; the common name only when there are none (RFC 6125 section 6.4.4).
std::vector<std::string> names_of(X509* certificate) {
  std::vector<std::string> names;
  auto* alternatives =
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(alternatives, i);
    if (name->type != GEN_DNS) continue;
    names.push_back(to_lower({reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                              static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName))}));
  }
  GENERAL_NAMES_free(alternatives);
  char common[256];
  if (names.empty() && X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, common,
                                                 sizeof common) > 0)
    names.push_back(to_lower(common));
  return names;
}

int choose_http11(SSL*, const unsigned char** chosen, unsigned char* length, const unsigned char* offered,
                  unsigned offered_length, void*) {
  unsigned char* selected = nullptr;
  if (SSL_select_next_proto(&selected, length, kAlpn, sizeof kAlpn, offered, offered_length) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;  // RFC 7301 section 3.2
  *chosen = selected;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

struct ServerTls::Contexts {
  std::vector<ContextPointer> all;           // the first is the default
  std::map<std::string, SSL_CTX*> exact;     // "crm.example"
  std::map<std::string, SSL_CTX*> wildcard;  // "*.crm.example" under "crm.example"

  SSL_CTX* find(std::string_view sni) const {
    const std::string name = to_lower(sni.ends_with('.') ? sni.substr(0, sni.size() - 1) : sni);
    if (auto found = exact.find(name); found != exact.end()) return found->second;
    const std::size_t dot = name.find('.');
    if (dot == std::string::npos || dot == 0) return nullptr;
    auto found = wildcard.find(name.substr(dot + 1));
    return found == wildcard.end() ? nullptr : found->second;
  }
  static int on_server_name(SSL* session, int*, void* self) {
    const char* name = SSL_get_servername(session, TLSEXT_NAMETYPE_host_name);
    if (name == nullptr) return SSL_TLSEXT_ERR_NOACK;
    SSL_CTX* context = static_cast<const Contexts*>(self)->find(name);
    if (context != nullptr) SSL_set_SSL_CTX(session, context);
    return SSL_TLSEXT_ERR_OK;
  }
};

ServerTls::ServerTls(std::unique_ptr<Contexts> contexts) : contexts_(std::move(contexts)) {}
ServerTls::~ServerTls() = default;

namespace {

Result<void> require_client_certificates(SSL_CTX* context, const std::string& ca_file) {
  if (ca_file.empty()) return {};
  ERR_clear_error();
  STACK_OF(X509_NAME)* names = SSL_load_client_CA_file(ca_file.c_str());
  if (names == nullptr || SSL_CTX_load_verify_locations(context, ca_file.c_str(), nullptr) != 1)
    return fail(Origin::config,
                fmt::format("client CA file {} cannot be used: {}", ca_file, last_tls_error()));
  SSL_CTX_set_client_CA_list(context, names);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return {};
}

}  // namespace

Result<std::shared_ptr<const ServerTls>> ServerTls::load(const config::ListenerTls& settings,
                                                         const ServerTls* previous) {
  std::vector<config::ListenerTls::Certificate> wanted{{settings.certificate_file, settings.key_file}};
  wanted.insert(wanted.end(), settings.certificates.begin(), settings.certificates.end());
  std::shared_ptr<ServerTls> made(new ServerTls(std::make_unique<Contexts>()));
  Contexts& contexts = *made->contexts_;
  for (const auto& [certificate, key] : wanted) {
    ContextPointer context(SSL_CTX_new(TLS_server_method()));
    CHECK(context != nullptr, "out of memory");
    common_options(context.get());
    if (settings.min_version == "1.3") SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
    SSL_CTX_set_options(context.get(), SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);  // tickets need none
    SSL_CTX_set_session_id_context(context.get(), reinterpret_cast<const unsigned char*>("tollgate"), 8);
    SSL_CTX_set_num_tickets(context.get(), 1);
    SSL_CTX_set_alpn_select_cb(context.get(), &choose_http11, nullptr);
    SSL_CTX_set_tlsext_servername_callback(context.get(), &Contexts::on_server_name);
    SSL_CTX_set_tlsext_servername_arg(context.get(), &contexts);
    if (auto used = use_certificate(context.get(), certificate, key); !used)
      return std::unexpected(used.error());
    if (auto set = require_client_certificates(context.get(), settings.client_ca_file); !set)
      return std::unexpected(set.error());
    X509* leaf = SSL_CTX_get0_certificate(context.get());
    made->files_.push_back({certificate, not_after(leaf)});
    for (const std::string& name : names_of(leaf)) {
      if (name.starts_with("*."))
        contexts.wildcard.try_emplace(name.substr(2), context.get());
      else
        contexts.exact.try_emplace(name, context.get());
    }
    contexts.all.push_back(std::move(context));
  }
  if (previous != nullptr) {
    unsigned char keys[kTicketKeys];
    if (SSL_CTX_get_tlsext_ticket_keys(previous->contexts_->all.front().get(), keys, sizeof keys) == 1)
      SSL_CTX_set_tlsext_ticket_keys(contexts.all.front().get(), keys, sizeof keys);
    OPENSSL_cleanse(keys, sizeof keys);
  }
  return made;
}

SSL* ServerTls::new_session() const {
  SSL* session = SSL_new(contexts_->all.front().get());
  CHECK(session != nullptr, "out of memory");
  SSL_set_accept_state(session);
  return session;
}

struct ClientTls::Context {
  ContextPointer context;
  config::UpstreamTls settings;
};

ClientTls::ClientTls(std::unique_ptr<Context> context) : context_(std::move(context)) {}
ClientTls::~ClientTls() = default;

Result<std::shared_ptr<const ClientTls>> ClientTls::load(const config::UpstreamTls& settings) {
  ContextPointer context(SSL_CTX_new(TLS_client_method()));
  CHECK(context != nullptr, "out of memory");
  common_options(context.get());
  SSL_CTX_set_alpn_protos(context.get(), kAlpn, sizeof kAlpn);
  ERR_clear_error();
  if (!settings.ca_file.empty()) {
    if (SSL_CTX_load_verify_locations(context.get(), settings.ca_file.c_str(), nullptr) != 1)
      return fail(Origin::config,
                  fmt::format("CA file {} cannot be used: {}", settings.ca_file, last_tls_error()));
  } else {
    SSL_CTX_set_default_verify_paths(context.get());
  }
  SSL_CTX_set_verify(context.get(), settings.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (!settings.certificate_file.empty()) {
    const std::string& key = settings.key_file.empty() ? settings.certificate_file : settings.key_file;
    if (auto used = use_certificate(context.get(), settings.certificate_file, key); !used)
      return std::unexpected(used.error());
  }
  auto held = std::make_unique<Context>();
  held->context = std::move(context);
  held->settings = settings;
  return std::shared_ptr<const ClientTls>(new ClientTls(std::move(held)));
}

SSL* ClientTls::new_session(const std::string& host) const {
  SSL* session = SSL_new(context_->context.get());
  CHECK(session != nullptr, "out of memory");
  SSL_set_connect_state(session);
  const std::string& name = context_->settings.server_name.empty() ? host : context_->settings.server_name;
  unsigned char address[16];
  const bool numeric =
      inet_pton(AF_INET, name.c_str(), address) == 1 || inet_pton(AF_INET6, name.c_str(), address) == 1;
  X509_VERIFY_PARAM* rules = SSL_get0_param(session);
  if (numeric) {
    X509_VERIFY_PARAM_set1_ip_asc(rules, name.c_str());
  } else {
    SSL_set_tlsext_host_name(session, name.c_str());
    X509_VERIFY_PARAM_set_hostflags(rules, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    SSL_set1_host(session, name.c_str());
  }
  return session;
}

}  // namespace tollgate::net
