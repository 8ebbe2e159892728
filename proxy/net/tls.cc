#include "proxy/net/tls.h"

#include <arpa/inet.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>
#include <ctime>
#include <fstream>
#include <iterator>
#include <map>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "proxy/net/ticket_keys.h"

namespace tollgate::net {

namespace {

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using ContextPointer = std::unique_ptr<SSL_CTX, FreeContext>;

constexpr const char* kCiphers12 = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL:!SHA1:!PSK";
constexpr unsigned char kAlpn[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

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

UnixTime unix_time(const ASN1_TIME* time) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return {};
  return from_unix_seconds(timegm(&parts));
}

UnixTime system_time() {
  return from_unix_seconds(std::time(nullptr));
}

Result<std::string> read_whole(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in && content.empty()) return fail(Origin::config, fmt::format("file {} cannot be read", file));
  return content;
}

// What is stapled to one certificate.
struct Staple {
  std::string response;  // DER
  UnixTime until;        // nextUpdate: clients refuse it from then on
};

// The response in the file, if it is a good one about this certificate.
Result<Staple> load_staple(const std::string& file, X509* leaf) {
  auto content = read_whole(file);
  if (!content) return std::unexpected(content.error());
  const auto* bytes = reinterpret_cast<const unsigned char*>(content->data());
  const std::unique_ptr<OCSP_RESPONSE, void (*)(OCSP_RESPONSE*)> response(
      d2i_OCSP_RESPONSE(nullptr, &bytes, static_cast<long>(content->size())), &OCSP_RESPONSE_free);
  ERR_clear_error();
  if (response == nullptr || OCSP_response_status(response.get()) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
    return fail(Origin::config, fmt::format("OCSP file {} is no successful OCSP response (DER)", file));
  const std::unique_ptr<OCSP_BASICRESP, void (*)(OCSP_BASICRESP*)> basic(
      OCSP_response_get1_basic(response.get()), &OCSP_BASICRESP_free);
  for (int i = 0; basic != nullptr && i < OCSP_resp_count(basic.get()); ++i) {
    OCSP_SINGLERESP* single = OCSP_resp_get0(basic.get(), i);
    ASN1_INTEGER* serial = nullptr;
    OCSP_id_get0_info(nullptr, nullptr, nullptr, &serial,
                      const_cast<OCSP_CERTID*>(OCSP_SINGLERESP_get0_id(single)));
    if (serial == nullptr || ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(leaf)) != 0) continue;
    ASN1_GENERALIZEDTIME* next = nullptr;
    OCSP_single_get0_status(single, nullptr, nullptr, nullptr, &next);
    // Without a next update it stands until it is replaced.
    return Staple{std::move(*content), next == nullptr ? UnixTime::max() : unix_time(next)};
  }
  return fail(Origin::config, fmt::format("OCSP file {} says nothing about its certificate", file));
}

int staple(SSL* session, void* self) {
  const auto* mine = static_cast<const Staple*>(self);
  if (mine->until <= system_time()) return SSL_TLSEXT_ERR_NOACK;
  auto* copy = static_cast<unsigned char*>(OPENSSL_memdup(mine->response.data(), mine->response.size()));
  if (copy == nullptr) return SSL_TLSEXT_ERR_NOACK;
  SSL_set_tlsext_status_ocsp_resp(session, copy, static_cast<long>(mine->response.size()));  // takes it
  return SSL_TLSEXT_ERR_OK;
}

// OpenSSL asks for the keys of a ticket: 1 use them, 2 use them and send a new ticket, 0 none, -1 failure.
int ticket_key(SSL* session, unsigned char name[16], unsigned char iv[EVP_MAX_IV_LENGTH],
               EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac, int sealing) {
  static const EVP_CIPHER* const kCipher =
      EVP_CIPHER_fetch(nullptr, "AES-256-CBC", nullptr);  // looked up once
  const auto* keys = static_cast<const TicketKeys*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(session)));
  const UnixTime now = system_time();
  std::optional<TicketKey> key = sealing != 0 ? keys->seal(now) : keys->open(name, now);
  if (!key) return 0;
  if (sealing != 0) {
    std::copy(key->name.begin(), key->name.end(), name);
    if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(kCipher)) != 1) return -1;
  }
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac.data(), key->mac.size()),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
  const bool ready = EVP_CipherInit_ex(cipher, kCipher, nullptr, key->cipher.data(), iv, sealing) == 1 &&
                     EVP_MAC_CTX_set_params(mac, parameters) == 1;
  OPENSSL_cleanse(&*key, sizeof *key);
  if (!ready) return -1;
  return key->current ? 1 : 2;
}

// The secrets of the files; without files the one of before, or a new one.
Result<std::vector<std::string>> ticket_secrets(const config::ListenerTls& settings,
                                                const TicketKeys* previous) {
  std::vector<std::string> secrets;
  for (const std::string& file : settings.ticket_secret_files) {
    auto secret = read_whole(file);
    if (!secret) return std::unexpected(secret.error());
    if (secret->size() < TicketKeys::kSecretMin)
      return fail(Origin::config,
                  fmt::format("ticket secret file {} has fewer than {} bytes", file, TicketKeys::kSecretMin));
    secrets.push_back(std::move(*secret));
  }
  if (!secrets.empty()) return secrets;
  if (previous != nullptr) return previous->secrets();
  secrets.emplace_back(TicketKeys::kSecretMin, '\0');
  CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(secrets[0].data()),
                   static_cast<int>(secrets[0].size())) == 1,
        "the system gives random bytes");
  return secrets;
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
  std::unique_ptr<const TicketKeys> tickets;
  std::vector<std::unique_ptr<const Staple>> staples;

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

// Whose tickets are taken: those of listeners that ask for certificates of the same authorities. A session that began
// where none is asked for, or where others are trusted, would bring in a client that nobody here has checked
// (a ticket is resumed without looking at certificates again).
Result<std::array<unsigned char, 32>> session_context(const std::string& ca_file) {
  std::string text = "tollgate";
  if (!ca_file.empty()) {
    auto authorities = read_whole(ca_file);
    if (!authorities) return std::unexpected(authorities.error());
    text += *authorities;
  }
  std::array<unsigned char, 32> out{};
  unsigned size = 0;
  CHECK(EVP_Digest(text.data(), text.size(), out.data(), &size, EVP_sha256(), nullptr) == 1 &&
            size == out.size(),
        "SHA-256 can be made");
  return out;
}

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
  std::vector<config::ListenerTls::Certificate> wanted{
      {settings.certificate_file, settings.key_file, settings.ocsp_file}};
  wanted.insert(wanted.end(), settings.certificates.begin(), settings.certificates.end());
  std::shared_ptr<ServerTls> made(new ServerTls(std::make_unique<Contexts>()));
  Contexts& contexts = *made->contexts_;
  auto secrets = ticket_secrets(settings, previous == nullptr ? nullptr : previous->contexts_->tickets.get());
  if (!secrets) return std::unexpected(secrets.error());
  auto session_names = session_context(settings.client_ca_file);
  if (!session_names) return std::unexpected(session_names.error());
  contexts.tickets = std::make_unique<const TicketKeys>(std::move(*secrets), settings.ticket_rotation);
  for (const auto& [certificate, key, ocsp] : wanted) {
    ContextPointer context(SSL_CTX_new(TLS_server_method()));
    CHECK(context != nullptr, "out of memory");
    common_options(context.get());
    if (settings.min_version == "1.3") SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
    SSL_CTX_set_options(context.get(), SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);  // tickets need none
    const auto& names = *session_names;
    SSL_CTX_set_session_id_context(context.get(), names.data(), static_cast<unsigned>(names.size()));
    SSL_CTX_set_num_tickets(context.get(), 1);
    SSL_CTX_set_timeout(context.get(), std::chrono::duration_cast<Seconds>(settings.ticket_rotation).count());
    SSL_CTX_set_app_data(context.get(), const_cast<TicketKeys*>(contexts.tickets.get()));
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context.get(), &ticket_key);
    SSL_CTX_set_alpn_select_cb(context.get(), &choose_http11, nullptr);
    SSL_CTX_set_tlsext_servername_callback(context.get(), &Contexts::on_server_name);
    SSL_CTX_set_tlsext_servername_arg(context.get(), &contexts);
    if (auto used = use_certificate(context.get(), certificate, key); !used)
      return std::unexpected(used.error());
    if (auto set = require_client_certificates(context.get(), settings.client_ca_file); !set)
      return std::unexpected(set.error());
    X509* leaf = SSL_CTX_get0_certificate(context.get());
    made->files_.push_back({certificate, unix_time(X509_get0_notAfter(leaf))});
    if (!ocsp.empty()) {
      auto loaded = load_staple(ocsp, leaf);
      if (!loaded) return std::unexpected(loaded.error());
      if (loaded->until != UnixTime::max()) made->files_.push_back({ocsp, loaded->until});
      contexts.staples.push_back(std::make_unique<const Staple>(std::move(*loaded)));
      SSL_CTX_set_tlsext_status_cb(context.get(), &staple);
      SSL_CTX_set_tlsext_status_arg(context.get(), const_cast<Staple*>(contexts.staples.back().get()));
    }
    for (const std::string& name : names_of(leaf)) {
      if (name.starts_with("*."))
        contexts.wildcard.try_emplace(name.substr(2), context.get());
      else
        contexts.exact.try_emplace(name, context.get());
    }
    contexts.all.push_back(std::move(context));
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
