// EDGE: one conversation with Creatio, by an account of our own: who asks, and what is asked.
//
//   POST {url without /0}/ServiceModel/AuthService.svc/Login      an account with a password; 200 and Code 0; or
//   POST {token_url}                                              a client (identity/client_credentials.h)
//   GET  {address}                                                with cookies and BPMCSRF, or the token
//
// A session is kept from one question to the next, and so is a token until shortly before it ends; one that is not taken any
// more (401, a redirect to the log-in page) is opened anew once. TLS is verified (ca_file or the system's store), no redirect is followed, no proxy of the environment is
// used. Texts of failures hold no secret.
//
// Threads: one at a time. SIGPIPE must be ignored or blocked there.
#pragma once
#include <atomic>
#include <expected>
#include <string>

#include "metering/base/time.h"
#include "metering/identity/client_credentials.h"
#include "metering/identity/creatio_users.h"
#include "proxy/net/http_transfer.h"

namespace tollgate::net {

struct CreatioAccess {
  std::string url;      // "https://crm.example/0": /odata stands below it; no slash at its end
  std::string ca_file;  // PEM bundle; "" is the system's store
  std::string user, password;
  std::string authorization;           // value of Authorization, in place of user and password
  identity::ClientCredentials client;  // in place of both, when it has a token_url
  Milliseconds timeout{10'000};        // of each request
  bool operator==(const CreatioAccess&) const = default;
};

class CreatioConversation {
 public:
  // access outlives it. reply_max: bytes; stop: breaks off what is under way.
  CreatioConversation(const CreatioAccess& access, std::size_t reply_max, const std::atomic<bool>& stop);

  void begin(Milliseconds at_most);  // all that is asked until the next begin()
  void forget();                     // the session; a token stays until it ends or is refused
  // The reply, whatever its status but 401 and 302: the account is not let in.
  std::expected<HttpReply, identity::SyncFailure> ask(const std::string& address);
  // The body of a 200.
  std::expected<std::string, identity::SyncFailure> get(const std::string& address);

 private:
  using Reply = std::expected<HttpReply, identity::SyncFailure>;
  using Entered = std::expected<void, identity::SyncFailure>;
  Entered enter();
  Entered log_in();
  Entered take_token();
  Reply send(HttpRequest request);

  const CreatioAccess& access_;
  const std::size_t reply_max_;
  const std::atomic<bool>& stop_;
  HttpTransfer transfer_;
  std::string credential_;  // line that says who asks; "": nobody has logged in
  MonotonicTime credential_until_ = MonotonicTime::max();
  MonotonicTime deadline_{};
};

}  // namespace tollgate::net
