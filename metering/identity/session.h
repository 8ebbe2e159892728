// Sessions that the CRM itself opens (a log-in with forms, a token of its own): what is remembered of one,
// under what name, and how it is written into the store that all proxies share.
//
//   SessionSecret secret = *SessionSecret::from_text(file_content);
//   SessionKey key = secret.key_of(SessionKind::creatio, "crm", "9F3C...");   // of the cookie, which is kept nowhere
//   SET l:{p017}:5d0c...  "1\x1fcreatio\x1f1795003600000\x1fportal\x1fann"    // store_key(key), encode(record)
//
// The name is HMAC-SHA256(secret, kind NUL upstream NUL credential): who reads the store can neither use a
// session nor tell whether a credential that he guesses is one, and a session of one CRM is nobody's at
// another. All proxies of a portal have the same secret and call their upstreams the same.
// Pure; every member may be called from any thread.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"
#include "metering/identity/principal.h"

namespace tollgate::identity {

enum class SessionKind : std::uint8_t { creatio, cherwell };
// "creatio", "cherwell": in the settings and in the store, never change
std::string_view name(SessionKind kind);

// What a request is to a session.
enum class SessionStep : std::uint8_t {
  none,
  log_in,   // begins one, or goes on with it under new names
  log_out,  // ends it
  renews,   // its reply may bring a new name for it
};

using SessionKey = std::array<unsigned char, 32>;
struct SessionKeyHash {  // the key is a keyed hash already: nobody can aim at a bucket
  std::size_t operator()(const SessionKey& key) const {
    std::size_t out = 0;
    std::memcpy(&out, key.data(), sizeof out);
    return out;
  }
};

class SessionSecret {
 public:
  // The content of a secret file, decoded by decode_secret(): 32 bytes or more.
  static Result<SessionSecret> from_text(std::string_view text);

  // upstream: as the settings call it. 1 us
  SessionKey key_of(SessionKind kind, std::string_view upstream, std::string_view credential) const;
  bool operator==(const SessionSecret& other) const { return bytes_ == other.bytes_; }

 private:
  explicit SessionSecret(std::string_view bytes) : bytes_(bytes.begin(), bytes.end()) {}
  std::vector<char> bytes_;
};

// Whose session it is. Nothing in it is secret.
struct SessionRecord {
  SessionKind kind = SessionKind::creatio;
  std::string user;  // session_user(): never empty
  UserType user_type = UserType::unknown;
  UnixTime deadline;   // by the clock of the proxy that saw the log-in: however much it is used, it ends then
  std::string site{};  // cherwell: session_user() of the portal's site; "": none
  // Other names of the same session that end with it, at most kLinkedMax (cherwell: refresh token, token before).
  std::vector<SessionKey> linked{};
  bool operator==(const SessionRecord&) const = default;
};

inline constexpr std::size_t kLinkedMax = 4;

// "l:{p017}:" and the key in hexadecimal. NEVER CHANGE: log-ins are found again only under the same name.
std::string store_key(const SessionKey& key);
unsigned partition_of(
    const SessionKey& key);  // whose slot the store key lies in: 0 .. quota::kPartitions - 1

// What the store holds under it: a record, or that the session has ended. NEVER CHANGE without a new first
// byte. 1: kind, deadline, type, user. 2, where there is a site or another name: kind, deadline, type, site, names, user.
std::string encode(const SessionRecord& record);
inline constexpr std::string_view kEndedSession = "0";
std::optional<SessionRecord> decode_session(std::string_view text);  // nullopt: not what encode() writes

// The name of a user as it was typed into a log-in form, made one: CRMs compare names without case and
// without blanks around them, so "Ann ", "ann" and "ANN" are one user and have one quota. Lower case of
// ASCII, Latin-1, Greek and Cyrillic. nullopt: empty, longer than 256 bytes, not UTF-8, or with control
// characters.
std::optional<std::string> session_user(std::string_view typed);

}  // namespace tollgate::identity
