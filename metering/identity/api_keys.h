// Keys that callers send instead of a token (identity.api_keys), known by their hashes alone: who reads the
// file can call as nobody.
//
//   hash,user,organization,license,user_type,expires
//   hmac-sha256:9c1f...,billing@acme.example,Acme,Creatio customer portal,portal,2027-06-30
//   sha256:77aa...,robot,,,staff,
//
//   const std::string key = make_api_key(random_32_bytes);      // "tgk_..." goes to the caller and is kept nowhere
//   api_key_hash(key, secret)                                   // "hmac-sha256:9c1f...": goes into the file
//
// CSV as csv.h reads it, columns in any order: `hash` and a user are required; `tenant` is known too. A hash
// is `hmac-sha256:` (keyed with identity.api_keys.secret_file) or `sha256:` and 64 hexadecimal digits.
// Several rows of one hash add licences; rows that contradict each other are errors. `expires` is a date (its
// first moment, UTC) or a moment as RFC 3339 writes it.
//
// A key is found by the hash of what was sent, in a table of hashes: what the look-up takes tells nothing
// about the keys that are there. Keys are random, 256 bits: a slow hash would protect nothing more.
// Immutable; any thread may read.
#pragma once
#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "metering/base/error.h"
#include "metering/identity/directory.h"
#include "metering/identity/principal.h"
#include "metering/identity/session.h"

namespace tollgate::identity {

inline constexpr std::string_view kApiKeyColumns = "hash,user,tenant,organization,license,user_type,expires";
inline constexpr std::size_t kApiKeyBytesMin = 20;  // shorter ones are not hashed: they could be guessed

class ApiKeys {
 public:
  // secret_text: content of the secret file, as decode_secret() reads it, 32 bytes or more; "" when there is
  // none: then a keyed hash is an error. directory: what it knows of a key's user wins, as with tokens; may
  // be nullptr.
  static Result<ApiKeys> parse(std::string_view csv, std::string_view secret_text,
                               const Directory* directory);

  // Whose key it is. Refused: unknown or of a user who is not active (token_invalid), expired
  // (token_expired). 1 us for each kind of hash that the file has; allocates nothing when it is found.
  std::expected<std::shared_ptr<const VerifiedToken>, TokenRefusal> find(std::string_view key,
                                                                         UnixTime now) const;
  std::size_t size() const { return plain_.size() + keyed_.size(); }

 private:
  using Keys = std::unordered_map<SessionKey, std::shared_ptr<const VerifiedToken>, SessionKeyHash>;
  std::string secret_;  // decoded
  Keys plain_, keyed_;
};

// A new key from 32 random bytes: "tgk_" and 43 characters, which need no quoting anywhere.
std::string make_api_key(std::string_view random);
// As it stands in the file; keyed when there is a secret. Errors: a key that is too short, a secret that is.
Result<std::string> api_key_hash(std::string_view key, std::string_view secret_text);

}  // namespace tollgate::identity
