// The keys below `identity`.
#include "config/key_groups.h"

namespace tollgate::config {
namespace {

Fields describe_claims(JwtIssuer::Claims& claims) {
  return {
      {"user", Text{&claims.user, Format::any, {}, false}, "Claim that names the user."},
      {"tenant", Text{&claims.tenant}, "Claim that names the tenant."},
      {"organization", Text{&claims.organization}, "Claim that names the organization."},
      {"user_type", Text{&claims.user_type}, "Claim that says `portal` or `staff`."},
      {"licenses", Text{&claims.licenses}, "Claim with the list of the user's licence names."},
      {"site", Text{&claims.site}, "Cherwell: claim that names the portal's site."},
      {"customer", Text{&claims.customer},
       "Cherwell: claim with the user's own record, as requester fields hold it."},
      {"account", Text{&claims.account},
       "Creatio: claim with the id of the Account that the user's organization is."},
      {"security_right", Text{&claims.security_right},
       "Cherwell: claim that says whether the user may see records of others."},
      {"consume_license", Text{&claims.consume_license},
       "Cherwell: claim that says whether the user may take a concurrent licence."},
  };
}

Fields describe_issuer(JwtIssuer& jwt) {
  return {
      {"issuer", Text{&jwt.issuer}, "Required value of the `iss` claim. Empty accepts any."},
      {"audience", TextList{&jwt.audience, Format::any, {}, 0, 100, true},
       "One of these must be in the `aud` claim. Empty accepts any."},
      {"algorithms", TextList{&jwt.algorithms, Format::any, algorithm_names(), 1, 20, true},
       "Signature algorithms that are accepted.", true},
      {"secret_file", Text{&jwt.secret_file, Format::input_file},
       "File with the shared secret of HS256, HS384, HS512. Exactly one of `secret_file`, `jwks_file`, "
       "`jwks_url`."},
      {"jwks_file", Text{&jwt.jwks_file, Format::input_file}, "File with the issuer's key set (RFC 7517)."},
      {"jwks_url", Text{&jwt.jwks_url, Format::web_url}, "Address the key set is fetched from."},
      {"jwks_ca_file", Text{&jwt.jwks_ca_file, Format::input_file},
       "Authorities to trust for `jwks_url`. Default: the system's store."},
      {"jwks_refresh", Span{&jwt.jwks_refresh, 1s, 31 * kDay}, "Age at which a key set is fetched again."},
      {"jwks_min_interval", Span{&jwt.jwks_min_interval, 100ms, kDay},
       "A key set is never fetched more often than this, whatever tokens arrive."},
      {"leeway", Span{&jwt.leeway, 0ms, 1h}, "Clock difference forgiven for `exp`, `nbf` and `iat`."},
      {"require_expiry", Flag{&jwt.require_expiry}, "Refuse tokens without `exp`."},
      {"claims", Group{describe_claims(jwt.claims)}, "Names of the claims that say who is calling."},
  };
}

Fields describe_source(Identity::Source& source) {
  return {
      {"header", Text{&source.header, Format::header_name},
       "`authorization` (Bearer scheme), or any other header that holds the bare token."},
      {"cookie", Text{&source.cookie, Format::cookie_name}, "Cookie that holds the token."},
  };
}

// With the keys that the way of asking adds.
Fields describe_lookup(Lookup& lookup, std::string_view url, Fields more) {
  Fields fields{
      {"url", Text{&lookup.url, Format::web_url}, url},
      {"ca_file", Text{&lookup.ca_file, Format::input_file},
       "Authorities to trust for `url`. Default: the system's store."},
      {"timeout", Span{&lookup.timeout, 10ms, 1min},
       "Longest wait for an answer; without one the call is 503 `identity_unavailable`."},
      {"max_age", Span{&lookup.max_age, 0ms, kDay},
       "How long an answer that names somebody is believed, and not beyond `exp`."},
      {"negative_age", Span{&lookup.negative_age, 0ms, 1h},
       "How long an answer that names nobody is believed."},
  };
  fields.insert(fields.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  return fields;
}

Fields describe_introspection(Introspection& i) {
  return describe_lookup(
      i.lookup, "The authorization server's introspection endpoint.",
      {{"client_id", Text{&i.client_id}, "Tollgate's own name there."},
       {"client_secret_file", Text{&i.client_secret_file, Format::input_file},
        "File with the secret to that name."},
       {"client_auth", Text{&i.client_auth, Format::any, {"basic", "form"}},
        "How name and secret are sent: in `Authorization: Basic`, or as `client_id` and `client_secret` of "
        "the form."},
       {"audience", TextList{&i.audience, Format::any, {}, 0, 100, true},
        "One of these must be in the `aud` of the answer. Empty accepts any."},
       {"claims", Group{describe_claims(i.claims)}, "Names of the members that say who is calling."}});
}

Fields describe_current_user(CurrentUser& c) {
  return describe_lookup(
      c.lookup,
      "The CRM's own address of the current user, asked with the caller's token (`Authorization: "
      "Zoho-oauthtoken`): for Zoho "
      "`https://www.zohoapis.com/crm/v8/users?type=CurrentUser`.",
      {{"at", Text{&c.at}, "JSON pointer to the object that speaks of the user."},
       {"claims", Group{describe_claims(c.claims)}, "Names of its members that say who is calling."}});
}

Fields describe_session_lookup(SessionLookup& s) {
  return describe_lookup(
      s.lookup, "An address of the CRM that says as JSON whose session it is.",
      {{"authorization_file", Text{&s.authorization_file, Format::input_file},
        "File with the `Authorization` of a service account (`Basic ...`, `Bearer ...`): it asks, and the "
        "session stands in the "
        "form as `session`. Default: the session's cookie is sent to `url`, and nothing else."},
       {"at", Text{&s.at}, "JSON pointer to the object that speaks of the user. Default: the whole answer."},
       {"claims", Group{describe_claims(s.claims)}, "Names of its members that say who is calling."}});
}

Fields describe_sessions(Sessions& sessions) {
  return {
      {"kinds", TextList{&sessions.kinds, Format::any, session_names(), 0, 10, true},
       "Whose log-ins are watched: `creatio`, the log-in with forms (`AuthService.svc/Login`), and "
       "`cherwell`, "
       "the tokens of its REST API (`/CherwellAPI/token`). The session that the CRM opens is then the "
       "user's, on "
       "every proxy of this store, until he logs out."},
      {"secret_file", Text{&sessions.secret_file, Format::input_file},
       "File of 32 bytes or more, the same on all proxies: sessions are stored under hashes keyed with it."},
      {"cookies", TextList{&sessions.cookies, Format::cookie_name, {}, 1, 10, true},
       "`creatio`: cookies that are the session; the first of them that a request has counts."},
      {"idle", Span{&sessions.idle, 1s, 31 * kDay},
       "A session that is not used for so long is forgotten. The CRM's own time-out holds as well."},
      {"max_age", Span{&sessions.max_age, 1s, 366 * kDay},
       "After this a session is forgotten however much it is used."},
      {"recheck", Span{&sessions.recheck, 100ms, 1h},
       "How often the store is asked again about a session in use: one that ended at another proxy may serve "
       "for so long."},
      {"entries", Number{&sessions.entries, 1'000, 100'000'000},
       "Sessions that this proxy remembers; of others the store is asked again. Changes with a restart."},
      {"lookup", Group{describe_session_lookup(sessions.lookup)},
       "Sessions whose log-in was not seen here (single sign-on): the CRM is asked once whose each is."},
  };
}

Fields describe_api_keys(ApiKeys& keys) {
  return {
      {"file", Text{&keys.file, Format::input_file},
       "CSV with the columns hash, user, tenant, organization, license, user_type, expires; rows are made by "
       "`tollgate key create`. Read again at a reload."},
      {"header", Text{&keys.header, Format::header_name, {}, false}, "Field that holds the key."},
      {"secret_file", Text{&keys.secret_file, Format::input_file},
       "File of 32 bytes or more that hashes are keyed with, so that the file of keys alone tells nothing "
       "about a key."},
      {"forward", Flag{&keys.forward}, "Pass the key on to the upstream."},
  };
}

Fields describe_pass(IdentityPass& pass) {
  return {
      {"as", choice(&pass.as, {"none", "plain", "token"}),
       "`plain`: a field each for what is known of the caller; `token`: one field with a JSON Web Token that "
       "Tollgate signs. For an upstream that takes connections from Tollgate only, or checks the token."},
      {"user_field", Text{&pass.user_field, Format::header_name, {}, false},
       "Field of the user's name. Bytes beyond printable ASCII, and `%`, are percent-encoded."},
      {"tenant_field", Text{&pass.tenant_field, Format::header_name, {}, false}, "Field of the tenant."},
      {"organization_field", Text{&pass.organization_field, Format::header_name, {}, false},
       "Field of the organization."},
      {"user_type_field", Text{&pass.user_type_field, Format::header_name, {}, false},
       "Field that says `portal` or `staff`."},
      {"token_field", Text{&pass.token_field, Format::header_name, {}, false}, "Field of the signed token."},
      {"secret_file", Text{&pass.secret_file, Format::input_file},
       "File with the secret (HS256, 32 bytes or more) that the token is signed with."},
      {"lifetime", Span{&pass.lifetime, 1s, kDay}, "How long the token is valid."},
  };
}

Fields describe_directory_sync(DirectorySync& sync) {
  DirectorySync::Users& users = sync.users;
  DirectorySync::Licenses& licenses = sync.licenses;
  Fields fields = describe_creatio_access(
      sync, "Service account that logs in with forms, and may read users and licences.",
      "Longest wait for each reply.");
  Fields own{
      {"system", Text{&sync.system, Format::any, {"creatio"}}, "Whose API is asked."},
      {"interval", Span{&sync.interval, 1s, kDay},
       "How often all users are read. After a failure again within 30 s."},
      {"page_rows", Number{&sync.page_rows, 1, 20'000},
       "Rows asked for at a time; Creatio gives 20000 at most."},
      {"max_rows", Number{&sync.max_rows, 1, 10'000'000},
       "Users and licences together; a sync that finds more fails."},
      {"users",
       Group{{{"entity", Text{&users.entity, Format::object_name, {}, false}, "Entity of the users."},
              {"filter", Text{&users.filter}, "`$filter` that leaves the users of it. Empty: all rows are."},
              {"id", Text{&users.id, Format::column_path, {}, false}, "Column of the key."},
              {"name", Text{&users.name, Format::column_path, {}, false}, "Column of the log-in name."},
              {"active", Text{&users.active, Format::column_path, {}, false},
               "Column that says whether he may log in."},
              {"type", Text{&users.type, Format::column_path, {}, false},
               "Column that is 0 for staff and 1 for portal users."},
              {"organization", Text{&users.organization, Format::column_path},
               "Column of the organization, through look-ups. Empty: is left to tokens."},
              {"account", Text{&users.account, Format::column_path},
               "Column of the organization's id, through look-ups. Empty: is left to tokens."}}},
       "Where users stand, for installations whose names differ."},
      {"licenses",
       Group{{{"entity", Text{&licenses.entity, Format::column_path},
               "Entity that says who has which licence. Empty: licences are left to tokens."},
              {"user", Text{&licenses.user, Format::column_path, {}, false},
               "Column with the key of the user."},
              {"name", Text{&licenses.name, Format::column_path, {}, false},
               "Column of the licence's name, through a look-up."},
              {"active", Text{&licenses.active, Format::column_path, {}, false},
               "Column that says whether it holds."}}},
       "Where licences stand, for installations whose names differ."},
  };
  fields.insert(fields.end(), std::make_move_iterator(own.begin()), std::make_move_iterator(own.end()));
  return fields;
}

}  // namespace

Fields describe_creatio_access(CreatioAccess& access, std::string_view user, std::string_view timeout) {
  return {
      {"url", Text{&access.url, Format::web_url},
       "Address of the CRM below which `/odata` stands: `https://crm.example/0`, without a number where "
       "addresses have none. Default: nobody is asked."},
      {"ca_file", Text{&access.ca_file, Format::input_file},
       "Authorities to trust for `url` and `oauth.token_url`. Default: the system's store."},
      {"user", Text{&access.user}, user},
      {"password_file", Text{&access.password_file, Format::input_file}, "File with its password."},
      {"authorization_file", Text{&access.authorization_file, Format::input_file},
       "File with the value of `Authorization` (`Bearer ...`), in place of `user` and `password_file`."},
      {"oauth",
       Group{{{"token_url", Text{&access.oauth.token_url, Format::web_url},
               "Token endpoint; Creatio's Identity Service has it at `/connect/token`."},
              {"client_id", Text{&access.oauth.client_id}, "Tollgate's own name there."},
              {"client_secret_file", Text{&access.oauth.client_secret_file, Format::input_file},
               "File with the secret to that name."},
              {"scope", Text{&access.oauth.scope},
               "Scopes to ask for, with blanks between them. Default: what the server gives."}}},
       "OAuth 2.0 client credentials, in place of `user` and `password_file`."},
      {"timeout", Span{&access.timeout, 10ms, 10min}, timeout},
  };
}

Fields describe_identity(Identity& identity) {
  return {
      {"jwt", items(&identity.jwt, describe_issuer), "Issuers of JSON Web Tokens that are trusted."},
      {"api_keys", Group{describe_api_keys(identity.api_keys)}, "Keys that callers send instead of a token."},
      {"client_certificate",
       Group{{{"user",
               choice(&identity.certificate_user,
                      {"none", "subject_cn", "san_uri", "san_dns", "san_email", "sha256", "spki_sha256"}),
               "Which part of the certificate names the caller: the subject's common name, a URI, host name "
               "or mail "
               "address of the alternative names, or the SHA-256 fingerprint of the certificate or of its "
               "public key. "
               "The column `certificate` of `licensing.directory_file` says whose it is; a name that is not "
               "listed there "
               "is itself the user, a fingerprint nobody."}}},
       "Callers known by their certificates, on listeners with `tls.client_ca_file`."},
      {"introspection", Group{describe_introspection(identity.introspection)},
       "Tokens that are no JSON Web Tokens: whose each is is asked of the authorization server (RFC 7662)."},
      {"current_user", Group{describe_current_user(identity.current_user)},
       "Tokens that are no JSON Web Tokens: whose each is is asked of the CRM, as Zoho has it."},
      {"lookup_entries", Number{&identity.lookup_entries, 1'000, 100'000'000},
       "Answers that this proxy remembers. Changes with a restart."},
      {"directory",
       Group{{{"sync", Group{describe_directory_sync(identity.directory_sync)},
               "Users and their licences, read from the CRM. See identity.md."}}},
       "Who the users are, beside `licensing.directory_file`, which wins over it."},
      {"sessions", Group{describe_sessions(identity.sessions)},
       "Sessions of the CRM's own log-in, beside tokens or instead of them."},
      {"sources", items(&identity.sources, describe_source),
       "Where the token is looked for, in order; each entry has `header` or `cookie`. Default: "
       "`Authorization`."},
      {"max_token_bytes", Size{&identity.max_token_bytes, 256, 256 * kKiB},
       "Longer tokens are refused unread."},
      {"token_cache_entries", Number{&identity.token_cache_entries, 0, 16'777'216},
       "Verified tokens remembered, per worker. 0 verifies every call anew."},
      {"forward_token", Flag{&identity.forward_token}, "Pass the token on to the upstream."},
      {"pass", Group{describe_pass(identity.pass)},
       "What the upstream is told of the caller. Fields of these names in clients' requests never reach it."},
  };
}

}  // namespace tollgate::config
