// TLS on listeners and towards upstreams, over real sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include "proxy/net/tls.h"
#include "proxy/net/transport.h"
#include "tests/proxy/net/support/certificates.h"
#include "tests/proxy/net/support/proxy_under_test.h"

namespace tollgate::net::test {
namespace {

using testing::HasSubstr;

Context client_context(const Folder& folder, const std::string& certificate = "") {
  Context context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_load_verify_locations(context.get(), folder.path("ca.pem").c_str(), nullptr);
  if (!certificate.empty()) {
    SSL_CTX_use_certificate_chain_file(context.get(), folder.path(certificate + ".pem").c_str());
    SSL_CTX_use_PrivateKey_file(context.get(), folder.path(certificate + ".key").c_str(), SSL_FILETYPE_PEM);
  }
  return context;
}

config::ListenerTls listener(const Folder& folder, const std::string& name) {
  config::ListenerTls tls;
  tls.certificate_file = folder.path(name + ".pem");
  tls.key_file = folder.path(name + ".key");
  return tls;
}

std::string name_of_peer(Peer& peer) {
  X509* certificate = SSL_get1_peer_certificate(peer.session());
  char name[256] = "";
  if (certificate != nullptr)
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof name);
  X509_free(certificate);
  return name;
}

std::string presented(Proxy& proxy, SSL_CTX* context, const std::string& sni) {
  Peer peer = proxy.connect();
  if (!peer.start_tls(context, sni)) return "handshake failed";
  return name_of_peer(peer);
}

TEST(TlsListener, RequestsPassAndSayHttps) {
  Folder folder;
  make_certificate(folder, "crm", {"DNS:crm.example"});
  Upstream upstream(echo);
  config::Settings secure = settings({upstream.url()});
  secure.listeners[0].tls = listener(folder, "crm");
  Proxy proxy(secure);
  const Context context = client_context(folder);
  Peer client = proxy.connect();
  ASSERT_TRUE(client.start_tls(context.get(), "crm.example"));
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(client.send(post("/", std::string(100'000, 'b'))));
    const Message reply = client.read_message();
    EXPECT_TRUE(reply.complete);
    EXPECT_THAT(reply.body, HasSubstr("X-Forwarded-Proto: https\r\n"));
    EXPECT_GT(reply.body.size(), 100'000U);
  }
}

// Two records come in one look at the socket, a third once the first has been handed out: what the socket said then
// is no news when the second is handed out.
TEST(TlsTransport, IsNotDrainedByALookThatIsOlderThanTheLastBytes) {
  Folder folder;
  make_certificate(folder, "crm", {"DNS:crm.example"});
  const Context server = server_context(folder, "crm"), context = client_context(folder);
  SSL_CTX_set_read_ahead(server.get(), 1);
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  Peer client(ends[0]);
  Transport transport;
  SSL* session = SSL_new(server.get());
  SSL_set_accept_state(session);
  transport.open(ends[1], session);
  std::thread handshake([&] { EXPECT_TRUE(client.start_tls(context.get(), "crm.example")); });
  EXPECT_EQ(transport.handshake().status, Io::ok);
  handshake.join();
  ASSERT_TRUE(client.send("one"));
  ASSERT_TRUE(client.send("two"));
  char room[1024];
  const IoResult one = transport.read(room, sizeof room);
  EXPECT_EQ(one.bytes, 3U);
  EXPECT_FALSE(one.drained);
  ASSERT_TRUE(client.send("three"));
  const IoResult two = transport.read(room, sizeof room);
  EXPECT_EQ(two.bytes, 3U);
  EXPECT_FALSE(two.drained) << "three is there, and its event may be spent";
  EXPECT_EQ(transport.read(room, sizeof room).bytes, 5U);
  transport.close();
}

TEST(TlsListener, CertificateIsChosenBySni) {
  Folder folder;
  make_certificate(folder, "first", {"DNS:first.example"});
  make_certificate(folder, "second", {"DNS:second.example", "DNS:*.wild.example"});
  config::Settings secure = settings({"http://127.0.0.1:1"});
  secure.listeners[0].tls = listener(folder, "first");
  secure.listeners[0].tls->certificates = {{folder.path("second.pem"), folder.path("second.key")}};
  Proxy proxy(secure);
  const Context context = client_context(folder);
  EXPECT_EQ(presented(proxy, context.get(), "first.example"), "first");
  EXPECT_EQ(presented(proxy, context.get(), "second.example"), "second");
  EXPECT_EQ(presented(proxy, context.get(), "SECOND.example"), "second");
  EXPECT_EQ(presented(proxy, context.get(), "a.wild.example"), "second");
  EXPECT_EQ(presented(proxy, context.get(), "a.b.wild.example"), "first");
  EXPECT_EQ(presented(proxy, context.get(), "wild.example"), "first");
  EXPECT_EQ(presented(proxy, context.get(), "other.example"), "first");
  EXPECT_EQ(presented(proxy, context.get(), ""), "first");
}

TEST(TlsListener, ReloadTakesNewCertificatesAndDropsNoConnection) {
  Folder folder;
  make_certificate(folder, "old", {"DNS:crm.example"});
  make_certificate(folder, "new", {"DNS:crm.example"}, 7'200);
  Upstream upstream(echo);
  config::Settings secure = settings({upstream.url()});
  secure.listeners[0].tls = listener(folder, "old");
  Proxy proxy(secure);
  const Context context = client_context(folder);
  Peer before = proxy.connect();
  ASSERT_TRUE(before.start_tls(context.get(), "crm.example"));
  const auto old_expiry = proxy.server->certificates().at(0).not_after;
  // The same file names with other content, as a renewal leaves them.
  std::filesystem::copy_file(folder.path("new.pem"), folder.path("old.pem"),
                             std::filesystem::copy_options::overwrite_existing);
  std::filesystem::copy_file(folder.path("new.key"), folder.path("old.key"),
                             std::filesystem::copy_options::overwrite_existing);
  ASSERT_TRUE(proxy.reload(secure));
  while (presented(proxy, context.get(), "crm.example") != "new") {
  }
  ASSERT_TRUE(before.send(get("/")));
  EXPECT_EQ(before.read_message().status(), 200);
  EXPECT_EQ(name_of_peer(before), "old");
  EXPECT_GT(proxy.server->certificates().at(0).not_after, old_expiry);
}

TEST(TlsListener, BrokenCertificateFileNeverReplacesAGoodOne) {
  Folder folder;
  make_certificate(folder, "crm", {"DNS:crm.example"});
  config::Settings secure = settings({"http://127.0.0.1:1"});
  secure.listeners[0].tls = listener(folder, "crm");
  Proxy proxy(secure);
  config::Settings broken = secure;
  broken.listeners[0].tls->key_file = folder.path("ca.key");
  const auto reloaded = proxy.reload(broken);
  ASSERT_FALSE(reloaded);
  EXPECT_THAT(reloaded.error().message, HasSubstr("ca.key"));
  const Context context = client_context(folder);
  EXPECT_EQ(presented(proxy, context.get(), "crm.example"), "crm");
}

TEST(TlsListener, ClientCertificateIsRequiredWhenAnAuthorityIsSet) {
  Folder folder;
  make_certificate(folder, "crm", {"DNS:crm.example"});
  make_certificate(folder, "client", {});
  Upstream upstream(echo);
  config::Settings secure = settings({upstream.url()});
  secure.listeners[0].tls = listener(folder, "crm");
  secure.listeners[0].tls->client_ca_file = folder.path("ca.pem");
  Proxy proxy(secure);
  const Context with = client_context(folder, "client");
  Peer known = proxy.connect();
  ASSERT_TRUE(known.start_tls(with.get(), "crm.example"));
  ASSERT_TRUE(known.send(get("/")));
  EXPECT_EQ(known.read_message().status(), 200);
  const Context without = client_context(folder);
  Peer unknown = proxy.connect();
  // In TLS 1.3 the client learns of the refusal with its first read.
  if (unknown.start_tls(without.get(), "crm.example")) unknown.send(get("/"));
  EXPECT_EQ(unknown.read_all(), "");
}

TEST(TlsListener, OldVersionsAreRefusedAndTheMinimumCanBeRaised) {
  Folder folder;
  make_certificate(folder, "crm", {"DNS:crm.example"});
  config::Settings secure = settings({"http://127.0.0.1:1"});
  secure.listeners[0].tls = listener(folder, "crm");
  const Context context = client_context(folder);
  SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION);
  {
    Proxy proxy(secure);
    EXPECT_EQ(presented(proxy, context.get(), ""), "crm");
  }
  secure.listeners[0].tls->min_version = "1.3";
  Proxy strict(secure);
  EXPECT_EQ(presented(strict, context.get(), ""), "handshake failed");
  SSL_CTX_set_max_proto_version(context.get(), TLS1_1_VERSION);
  EXPECT_EQ(presented(strict, context.get(), ""), "handshake failed");
}

TEST(TlsListener, HandshakeThatDoesNotComeIsGivenUp) {
  Folder folder;
  make_certificate(folder, "crm", {"DNS:crm.example"});
  config::Settings secure = settings({"http://127.0.0.1:1"});
  secure.listeners[0].tls = listener(folder, "crm");
  secure.timeouts.tls_handshake = Milliseconds(30);
  Proxy proxy(secure);
  Peer silent = proxy.connect();
  EXPECT_TRUE(silent.at_end());
  EXPECT_EQ(proxy.ask(get("/")).head, "") << "plain HTTP on a TLS port";
}

// ---- upstreams

int through(const Folder& folder, Upstream& upstream, const std::string& server_name, bool verify = true,
            const std::string& ca = "ca.pem") {
  config::Settings secure = settings({upstream.url()});
  secure.upstreams[0].tls.ca_file = ca.empty() ? "" : folder.path(ca);
  secure.upstreams[0].tls.server_name = server_name;
  secure.upstreams[0].tls.verify = verify;
  Proxy proxy(secure);
  Peer client = proxy.connect();
  int status = 0;
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(client.send(get("/")));
    status = client.read_message().status();
  }
  return status;
}

TEST(TlsUpstream, ChainAndNameAreVerified) {
  Folder folder;
  make_certificate(folder, "crm", {"DNS:crm.internal", "IP:127.0.0.1"});
  const Context context = server_context(folder, "crm");
  Upstream upstream(echo, context.get());
  EXPECT_EQ(through(folder, upstream, "crm.internal"), 200);
  EXPECT_EQ(through(folder, upstream, ""), 200) << "the address of the URL";
  EXPECT_EQ(through(folder, upstream, "other.internal"), 502);
  EXPECT_EQ(through(folder, upstream, "crm.internal", true, ""), 502)
      << "not signed by an authority of the system";
  EXPECT_EQ(through(folder, upstream, "other.internal", false), 200) << "switched off";
}

TEST(TlsUpstream, LargeBodiesPassBothWays) {
  Folder folder;
  make_certificate(folder, "crm", {"IP:127.0.0.1"});
  const Context context = server_context(folder, "crm");
  Upstream upstream(echo, context.get());
  config::Settings secure = settings({upstream.url()});
  secure.upstreams[0].tls.ca_file = folder.path("ca.pem");
  Proxy proxy(secure);
  const std::string body(3'000'000, 'z');
  const Message reply = proxy.ask(post("/", body));
  EXPECT_TRUE(reply.complete);
  EXPECT_THAT(reply.body, testing::EndsWith(body));
}

}  // namespace
}  // namespace tollgate::net::test
