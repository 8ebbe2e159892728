// Keys that verify tokens: an immutable KeySet made from a JWKS, from PEM text or from a shared secret, and
// KeyRing, the place where the set of one issuer is swapped while workers verify.
//
//   auto keys =
//   KeySet::from_jwks(R"({"keys":[{"kty":"EC","crv":"P-256","kid":"2026-11","x":"...","y":"..."}]})"); if
//   (!keys) log(keys.error().message); for (const Key& key : keys->keys())
//     if (key.fits(Algorithm::es256) && key.verify(Algorithm::es256, "<header>.<payload>", raw_signature))
//     ...
//
// Which key serves which algorithm is settled when the key is made, from its type alone, so no token can talk
// a public key into being an HMAC secret (RFC 8725 section 3.1):
//   RSA                RS256..512 and PS256..512   2048..8192 bits (RFC 7518 sections 3.3, 3.5)
//   EC P-256/384/521   ES256 / ES384 / ES512       the point must be on the curve (RFC 7518 section 3.4)
//   OKP Ed25519/Ed448  EdDSA                       (RFC 8037)
//   oct                HS256/384/512               at least as long as the hash: 32/48/64 bytes (RFC 7518
//   section 3.2)
// A key's own `alg` narrows this further. All digests are fetched and all contexts keyed when the set is
// made.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"

namespace tollgate::identity {

// JWS algorithms (RFC 7518 section 3.1, RFC 8037 section 3.1). There is no `none`.
enum class Algorithm : std::uint8_t {
  hs256,
  hs384,
  hs512,
  rs256,
  rs384,
  rs512,
  ps256,
  ps384,
  ps512,
  es256,
  es384,
  es512,
  eddsa,
  kCount
};
inline constexpr std::size_t kAlgorithmCount = static_cast<std::size_t>(Algorithm::kCount);

std::optional<Algorithm> parse_algorithm(std::string_view name);  // case-sensitive: "HS256", "EdDSA"
std::string_view name(Algorithm algorithm);

enum class KeyType : std::uint8_t { rsa, ec_p256, ec_p384, ec_p521, ed25519, ed448, secret };

// One key, immutable and cheap to copy. All members are thread-safe.
class Key {
 public:
  struct Impl;
  explicit Key(std::shared_ptr<const Impl> impl);

  const std::string& kid() const;  // "" when the key has none
  KeyType type() const;
  bool fits(Algorithm algorithm) const;
  // True when `signature` (raw bytes: r||s for ES*, RFC 7518 section 3.4) is this key's over `signing_input`.
  // False for everything else: wrong length, DER form, algorithm that does not fit.
  // Cost: 1.3 us HS256, 29 us RS256, 84 us ES256, 150 us EdDSA.
  bool verify(Algorithm algorithm, std::string_view signing_input, std::string_view signature) const;

 private:
  std::shared_ptr<const Impl> impl_;
};

class KeySet {
 public:
  static constexpr std::size_t kMaxKeys = 64;  // further ones are left out with a note: a token without
                                               // kid is tried against every key that fits
  static constexpr std::size_t kMaxText = 1024 * 1024;  // bytes of a JWKS or PEM text

  // {"keys":[...]} or one bare JWK (RFC 7517). Keys that cannot serve here (unknown kty or curve, use other
  // than sig, key_ops without verify, too weak, malformed) are left out with a note (RFC 7517 section 5).
  // Text that is not a key set, and a set without one usable key, are errors. Keys may share a kid: all of
  // them are tried.
  static Result<KeySet> from_jwks(std::string_view text);
  // "-----BEGIN PUBLIC KEY-----" and "-----BEGIN CERTIFICATE-----" blocks, one or more. The keys have no kid.
  // A certificate is only a wrapper of its key: dates and signatures are not looked at. A private key is an
  // error.
  static Result<KeySet> from_pem(std::string_view text);
  // What a jwks_file may hold: PEM when the text starts with "-----BEGIN ", else a JWKS.
  static Result<KeySet> from_text(std::string_view text);
  // The content of a secret_file, decoded by decode_secret(). An error when the secret is too short for one
  // of the named algorithms ("HS512": 64 bytes), or below 32 bytes.
  static Result<KeySet> from_secret(std::string_view text, std::span<const std::string> algorithms = {});

  std::span<const Key> keys() const { return keys_; }
  // For the log: one sentence for each key that was left out. Never key material.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  // Takes the key, or a note that starts with `label` ("key 2 (kid 2026-11)") and says why not.
  void add(Result<Key> key, std::string_view label);
  std::vector<Key> keys_;
  std::vector<std::string> notes_;
};

// The bytes of a secret file: "base64:" and standard or url-safe base64 (padding optional, white space around
// it ignored) gives the decoded bytes; any other text is the secret itself without ONE trailing LF or CRLF,
// which editors and `echo` add. A secret that ends in a line break has to be written as base64.
Result<std::string> decode_secret(std::string_view text);

// The current keys of one issuer. Shared by the workers (load, request_refresh) and the edge that keeps the
// set fresh (store, take_refresh_request). All members are thread-safe; none of them does I/O.
class KeyRing {
 public:
  KeyRing() = default;
  explicit KeyRing(KeySet keys) { store(std::make_shared<const KeySet>(std::move(keys))); }

  std::shared_ptr<const KeySet> load() const;  // nullptr until the first store
  void store(std::shared_ptr<const KeySet> keys);
  // Grows by one with every store: tokens that were verified under an older version must be verified again.
  std::uint64_t version() const { return version_.load(std::memory_order_acquire); }

  // A token named a key that the set lacks. Never blocks on I/O; storms collapse into one pending request.
  // When to fetch (single flight, minimum interval) is the edge's business.
  void request_refresh();
  bool refresh_requested() const { return refresh_requested_.load(std::memory_order_acquire); }
  bool take_refresh_request() { return refresh_requested_.exchange(false, std::memory_order_acq_rel); }
  // Called on the requesting worker's thread for the first pending request; must return at once and must not
  // call the ring. An empty function removes it; after that returns, no call is running.
  void set_refresh_listener(std::function<void()> listener);

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const KeySet> keys_;  // guarded by mutex_
  std::function<void()> listener_;      // guarded by listener_mutex_
  std::mutex listener_mutex_;
  std::atomic<std::uint64_t> version_{0};
  std::atomic<bool> refresh_requested_{false};
};

}  // namespace tollgate::identity
