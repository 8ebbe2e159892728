// What is read about sessions: a log-in's body, the reply to one, Set-Cookie, what the store holds. Whatever
// comes, a name that is taken is one name for good, and a record is read in one way only.
#include <cstdint>
#include <string_view>

#include "metering/base/check.h"
#include "metering/identity/cherwell_login.h"
#include "metering/identity/creatio_login.h"
#include "metering/identity/session.h"

using namespace tollgate;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (auto user = identity::creatio_login_user(bytes)) {
    CHECK(!user->empty(), "nobody has no name");
    CHECK(identity::session_user(*user) == *user, "a name made one stays that one");
  }
  if (auto user = identity::session_user(bytes))
    CHECK(identity::session_user(*user) == *user && user->find('\x1f') == std::string::npos,
          "a name fits a record");
  (void)identity::creatio_login_reply(bytes);
  if (auto tokens = identity::read_cherwell_tokens(bytes))
    CHECK(!tokens->access_token.empty() && tokens->access_token.find(' ') == std::string::npos &&
              identity::session_user(tokens->user) == tokens->user,
          "a token can be sent, and is somebody's");
  CHECK(identity::cherwell_new_token(bytes).find(' ') == std::string::npos, "a token can be sent");
  const std::size_t half = bytes.size() / 2;
  if (auto login = identity::read_cherwell_login(bytes.substr(0, half), bytes.substr(half)))
    CHECK(login->site.empty() || identity::session_user(login->site) == login->site,
          "a site made one stays that one");
  if (auto site = identity::cherwell_site(bytes.substr(0, half), bytes.substr(half)))
    CHECK(site->empty() || identity::session_user(*site) == *site, "a site made one stays that one");
  if (auto cookie = identity::parse_set_cookie(bytes))
    CHECK(
        cookie->name.find(';') == std::string_view::npos && cookie->value.find(';') == std::string_view::npos,
        "a cookie ends at its attributes");
  if (auto record = identity::decode_session(bytes)) {
    const auto again = identity::decode_session(identity::encode(*record));
    CHECK(again == record, "what was read is written so that it is read the same");
  }
  return 0;
}
