#include "metering/identity/key_set.h"

#include <fmt/format.h>
#include <openssl/pem.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/base64.h"
#include "metering/base/check.h"
#include "metering/identity/key_material.h"

namespace tollgate::identity {
namespace {

constexpr std::string_view kPemStart = "-----BEGIN ";
constexpr std::size_t kSecretBytesMax = 64 * 1024;

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

std::string_view without_space_around(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// One PEM block as OpenSSL read it.
struct Block {
  std::string type;
  std::string der;
};

std::optional<Block> next_block(BIO* bio) {
  char* type = nullptr;
  char* header = nullptr;
  unsigned char* der = nullptr;
  long length = 0;
  if (PEM_read_bio(bio, &type, &header, &der, &length) != 1) return std::nullopt;
  Block block{type, std::string(reinterpret_cast<char*>(der), static_cast<std::size_t>(length))};
  OPENSSL_free(type);
  OPENSSL_free(header);
  OPENSSL_free(der);
  return block;
}

openssl::Pkey public_key(const Block& block) {
  const unsigned char* at = openssl::bytes(block.der);
  auto length = static_cast<long>(block.der.size());
  if (block.type == PEM_STRING_PUBLIC) return openssl::Pkey(d2i_PUBKEY(nullptr, &at, length));
  if (block.type == PEM_STRING_RSA_PUBLIC)
    return openssl::Pkey(d2i_PublicKey(EVP_PKEY_RSA, nullptr, &at, length));
  openssl::Certificate certificate(d2i_X509(nullptr, &at, length));
  return openssl::Pkey(certificate ? X509_get_pubkey(certificate.get()) : nullptr);
}

bool holds_public_key(std::string_view type) {
  return type == PEM_STRING_PUBLIC || type == PEM_STRING_RSA_PUBLIC || type == PEM_STRING_X509 ||
         type == PEM_STRING_X509_TRUSTED;
}

}  // namespace

void KeySet::add(Result<Key> key, std::string_view label) {
  if (!key) {
    notes_.push_back(fmt::format("{} is left out: {}", label, key.error().message));
  } else if (keys_.size() == kMaxKeys) {
    notes_.push_back(fmt::format("{} is left out: a set holds at most {} keys", label, kMaxKeys));
  } else {
    keys_.push_back(*std::move(key));
  }
}

Result<KeySet> KeySet::from_pem(std::string_view text) {
  openssl::ErrorScope errors;
  if (text.size() > kMaxText)
    return fail(Origin::config, fmt::format("the key file is larger than {} bytes", kMaxText));
  openssl::Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  if (!bio) return fail(Origin::self, "out of memory");
  KeySet out;
  std::size_t number = 0;
  while (auto block = next_block(bio.get())) {
    std::string label = fmt::format("PEM block {}", ++number);
    if (std::string_view(block->type).ends_with("PRIVATE KEY"))
      return fail(
          Origin::config,
          fmt::format("{} is a private key: the proxy verifies tokens and needs only the public key", label));
    if (!holds_public_key(block->type)) {
      out.add(fail(Origin::config, fmt::format("is a {}, not a public key or certificate", block->type)),
              label);
      continue;
    }
    openssl::Pkey pkey = public_key(*block);
    if (!pkey) return fail(Origin::config, fmt::format("{} ({}) cannot be read", label, block->type));
    out.add(make_key(std::move(pkey), "", std::nullopt), label);
  }
  // Reading stops both at the end and at a broken block: only "no further start line" is the end.
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
    return fail(Origin::config, fmt::format("PEM block {} is damaged", number + 1));
  if (out.keys_.empty())
    return fail(Origin::config,
                fmt::format("the key file has no public key that can verify tokens{}{}",
                            out.notes_.empty() ? "" : ": ", out.notes_.empty() ? "" : out.notes_.front()));
  return out;
}

Result<KeySet> KeySet::from_text(std::string_view text) {
  std::string_view content = without_space_around(text);
  if (content.empty()) return fail(Origin::config, "the key file is empty");
  return content.starts_with(kPemStart) ? from_pem(text) : from_jwks(text);
}

Result<KeySet> KeySet::from_secret(std::string_view text, std::span<const std::string> algorithms) {
  auto secret = decode_secret(text);
  if (!secret) return std::unexpected(secret.error());
  for (const std::string& listed : algorithms) {
    auto algorithm = parse_algorithm(listed);
    if (!algorithm || !type_fits(KeyType::secret, *algorithm))
      continue;  // the configuration's check names it
    if (secret->size() < hash_bytes(*algorithm))
      return fail(Origin::config,
                  fmt::format("the secret has {} bytes, but {} needs at least {} (RFC 7518 section 3.2)",
                              secret->size(), listed, hash_bytes(*algorithm)));
  }
  auto key = make_secret_key(*secret, "", std::nullopt);
  if (!key) return std::unexpected(key.error());
  KeySet out;
  out.add(*std::move(key), "the secret");
  return out;
}

Result<std::string> decode_secret(std::string_view text) {
  if (text.size() > kSecretBytesMax)
    return fail(Origin::config, fmt::format("the secret is larger than {} bytes", kSecretBytesMax));
  if (starts_with_ignore_case(text, "base64:")) {
    std::string standard(without_space_around(text.substr(7)));
    while (standard.ends_with('=')) standard.pop_back();
    std::replace(standard.begin(), standard.end(), '+', '-');
    std::replace(standard.begin(), standard.end(), '/', '_');
    auto bytes = base64url_decode(standard);
    if (!bytes) return fail(Origin::config, "the secret starts with base64: but what follows is not base64");
    return *std::move(bytes);
  }
  if (text.ends_with('\n')) text.remove_suffix(text.ends_with("\r\n") ? 2 : 1);
  return std::string(text);
}

std::shared_ptr<const KeySet> KeyRing::load() const {
  std::lock_guard lock(mutex_);
  return keys_;
}

void KeyRing::store(std::shared_ptr<const KeySet> keys) {
  CHECK(keys != nullptr, "a ring never goes back to having no keys");
  {
    std::lock_guard lock(mutex_);
    keys_.swap(keys);
  }
  // After the swap: whoever sees the new version also sees the new keys.
  version_.fetch_add(1, std::memory_order_acq_rel);
}

void KeyRing::request_refresh() {
  if (refresh_requested_.exchange(true, std::memory_order_acq_rel)) return;
  std::lock_guard lock(listener_mutex_);
  if (listener_) listener_();
}

void KeyRing::set_refresh_listener(std::function<void()> listener) {
  std::lock_guard lock(listener_mutex_);
  listener_ = std::move(listener);
}

}  // namespace tollgate::identity
