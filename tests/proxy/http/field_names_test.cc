#include "proxy/http/field_names.h"

#include <gtest/gtest.h>

namespace tollgate::http {
namespace {

TEST(FieldRole, NamesCompareWithoutCase) {
  EXPECT_EQ(role_of("HOST"), FieldRole::host);
  EXPECT_EQ(role_of("tE"), FieldRole::hop);
  EXPECT_EQ(role_of("content-length"), FieldRole::framing);
  EXPECT_EQ(role_of("Transfer-Encoding"), FieldRole::framing);
  EXPECT_EQ(role_of("x-forwarded-FOR"), FieldRole::forwarded_for);
  EXPECT_EQ(role_of("X-HTTP-DestinationURL"), FieldRole::rewrite);
}

TEST(FieldRole, FamiliesAreCovered) {
  for (const char* name : {"Proxy", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate",
                           "proxy-x", "Keep-Alive", "Upgrade", "Trailer", "TE", "HTTP2-Settings"})
    EXPECT_EQ(role_of(name), FieldRole::hop) << name;
  for (const char* name : {"X-Forwarded-Port",
                           "X-Forwarded-Prefix",
                           "X-Forwarded-Anything-At-All",
                           "X-Real-IP",
                           "True-Client-IP",
                           "Remote-User",
                           "REMOTE_USER",
                           "X-Remote-User",
                           "X-Forwarded",
                           "X-Auth-Request-Email",
                           "X-SSL-Client-DN",
                           "SSL_CLIENT_CERT",
                           "X-MS-CLIENT-PRINCIPAL-NAME",
                           "X-Client-Cert",
                           "Fastly-Client-IP",
                           "x-envoy-external-address",
                           "Client-Cert",
                           "Client_Cert",
                           "Client-Cert-Chain",
                           "X-ARR-ClientCert",
                           "X-ARR-SSL",
                           "MS-ASPNETCORE-CLIENTCERT",
                           "MS-ASPNETCORE-WINAUTHTOKEN",
                           "X-Original-Proto",
                           "X-Amzn-Mtls-Clientcert-Leaf",
                           "X-SSL-Cert",
                           "OIDC_CLAIM_sub",
                           "oidc-claim-sub"})
    EXPECT_EQ(role_of(name), FieldRole::forwarded_by) << name;
  for (const char* name :
       {"Accept", "X-HTTP-Method", "X-HTTP-Method-Override", "Authorization", "BPMCSRF", "Hos", "Hostx", "T",
        "X-Forward", "Via", "Client-Certs", "Ms", "M", "MS-AspNet", "Oidc", "OIDC_CLAIMS", "O", "S", "X"})
    EXPECT_EQ(role_of(name), FieldRole::end_to_end) << name;
}

TEST(FieldRole, UnderscoreSpellingsOfNamesThatMatterHaveTheirRole) {
  EXPECT_EQ(role_of("X_Forwarded_For"), FieldRole::forwarded_for);
  EXPECT_EQ(role_of("Content_Length"), FieldRole::framing);
  EXPECT_EQ(role_of("TRANSFER_ENCODING"), FieldRole::framing);
  EXPECT_EQ(role_of("X-HTTP_METHOD"), FieldRole::rewrite);
  EXPECT_EQ(role_of("Content_Type"), FieldRole::rewrite);
  EXPECT_EQ(role_of("api_key"), FieldRole::end_to_end);
}

TEST(FieldRole, OnlyOidcClaimsAreVouchedForWithUnderscores) {
  EXPECT_TRUE(is_vouched_spelling("X-Real-IP"));
  EXPECT_TRUE(is_vouched_spelling("OIDC_CLAIM_sub"));
  EXPECT_FALSE(is_vouched_spelling("X_Real_IP"));
  EXPECT_FALSE(is_vouched_spelling("SSL_CLIENT_CERT"));
}

TEST(ProtectedField, EndToEndFieldsThatMatterAreProtectedAndConnectionFieldsAreNot) {
  for (const char* name :
       {"Host",          "Content-Length", "Transfer-Encoding", "Content-Type",    "Content-Anything",
        "Authorization", "Cookie",         "Set-Cookie",        "X-Forwarded-For", "Forwarded",
        "X-Request-Id",  "traceparent",    "tracestate",        "X-HTTP-Method",   "X-HTTP-Method-Override",
        "X_HTTP_Method", "Accept",         "If-Match",          "Range",           "SOAPAction",
        "BPMCSRF"})
    EXPECT_TRUE(is_protected_from_connection(name)) << name;
  for (const char* name : {"close", "keep-alive", "TE", "Upgrade", "HTTP2-Settings", "X-Anything",
                           "Proxy-Connection", "Trailer"})
    EXPECT_FALSE(is_protected_from_connection(name)) << name;
}

TEST(ForbiddenTrailer, FramingRoutingAndIdentityAreForbidden) {
  for (const char* name :
       {"Content-Length", "Host", "Authorization", "Cookie", "Set-Cookie", "Content-Type", "Content-Encoding",
        "Connection", "TE", "X-Forwarded-For", "X-Request-Id", "Cache-Control", "Max-Forwards", "Expect",
        "If-Match", "Vary", "Client-Cert", "Client-Cert-Chain"})
    EXPECT_TRUE(is_forbidden_trailer(name)) << name;
  for (const char* name : {"ETag", "Content-Digest", "Server-Timing", "grpc-status", "X-Checksum"})
    EXPECT_FALSE(is_forbidden_trailer(name)) << name;
}

}  // namespace
}  // namespace tollgate::http
