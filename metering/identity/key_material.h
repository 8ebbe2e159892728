// Inside of the room: making a Key from OpenSSL's objects or from secret bytes. Users of keys read key_set.h.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "metering/base/error.h"
#include "metering/identity/key_set.h"
#include "metering/identity/openssl_handles.h"

namespace tollgate::identity {

struct Key::Impl {
  std::string kid;
  KeyType type = KeyType::secret;
  std::size_t coordinate = 0;  // EC: bytes of r and of s
  openssl::Pkey pkey;          // not for secrets
  // Ready to be copied for one verification: copying costs a fraction of setting up, and looks nothing up.
  // Null where the key does not fit. EdDSA has no entry (OpenSSL 3.0 cannot copy its context): it is set up
  // each time.
  std::array<openssl::DigestContext, kAlgorithmCount> digests;
  std::array<openssl::MacContext, kAlgorithmCount> macs;
  std::uint32_t fits = 0;  // a bit for each Algorithm
};

inline std::uint32_t bit(Algorithm algorithm) {
  return std::uint32_t{1} << static_cast<unsigned>(algorithm);
}

// "RSA", "P-256", ... for messages.
std::string_view name(KeyType type);
// Bytes of the algorithm's hash; for HS* also the shortest secret. 0 for EdDSA.
std::size_t hash_bytes(Algorithm algorithm);
// The digest, fetched once a process. nullptr for EdDSA.
const EVP_MD* digest(Algorithm algorithm);
// The key type that an ES* algorithm is bound to; other algorithms: nullopt.
std::optional<KeyType> curve_of(Algorithm algorithm);

// `only`: the key's own `alg`. Errors say what is wrong with the key: type, size, algorithm that does not
// fit.
Result<Key> make_key(openssl::Pkey pkey, std::string kid, std::optional<Algorithm> only);
Result<Key> make_secret_key(std::string_view secret, std::string kid, std::optional<Algorithm> only);

// The type of a public or private key; an error for those that sign no token.
Result<KeyType> type_of(const EVP_PKEY* pkey);
// Whether a key of this type may serve the algorithm, size of secrets aside.
bool type_fits(KeyType type, Algorithm algorithm);

}  // namespace tollgate::identity
