#include "metering/identity/api_keys.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>

#include "metering/base/ascii.h"
#include "metering/base/base64.h"
#include "metering/base/check.h"
#include "metering/base/moment.h"
#include "metering/identity/csv.h"
#include "metering/identity/key_set.h"
#include "metering/identity/openssl_handles.h"

namespace tollgate::identity {
namespace {

constexpr std::string_view kPlain = "sha256:", kKeyed = "hmac-sha256:";

enum Column : std::size_t { kHash, kUser, kTenant, kOrganization, kLicense, kUserType, kExpires };

SessionKey digest_of(std::string_view key, std::string_view secret) {
  SessionKey out;
  unsigned size = 0;
  const bool made = secret.empty()
                        ? EVP_Digest(key.data(), key.size(), out.data(), &size, EVP_sha256(), nullptr) == 1
                        : HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
                               openssl::bytes(key), key.size(), out.data(), &size) != nullptr;
  CHECK(made && size == out.size(), "SHA-256 can be made");
  return out;
}

// "" without a text.
Result<std::string> secret_of(std::string_view text) {
  if (text.empty()) return std::string();
  auto secret = decode_secret(text);
  if (!secret) return std::unexpected(secret.error());
  if (secret->size() < 32)
    return fail(Origin::config, "the secret of API keys needs 32 bytes or more: openssl rand -base64 32");
  return std::string(*secret);
}

std::optional<SessionKey> parse_hex(std::string_view text) {
  SessionKey out;
  if (text.size() != 2 * out.size()) return std::nullopt;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out[i] = static_cast<unsigned char>(high << 4 | low);
  }
  return out;
}

// What one row says of its key.
Result<VerifiedToken> read(const CsvTable& row) {
  VerifiedToken out;
  Principal& who = out.principal;
  who.user = row.cell(kUser);
  who.tenant = row.cell(kTenant);
  who.organization = row.cell(kOrganization);
  if (who.user.empty()) return row.wrong("no user");
  if (std::any_of(who.user.begin(), who.user.end(), [](char c) { return (c >= 0 && c < ' ') || c == 127; }))
    return row.wrong("the user holds a control character");
  if (const std::string_view type = row.cell(kUserType); !type.empty()) {
    who.user_type = parse_user_type(type);
    if (who.user_type == UserType::unknown)
      return row.wrong(fmt::format("user_type \"{}\" is neither portal nor staff", type));
  }
  if (const std::string_view license = row.cell(kLicense); !license.empty())
    who.licenses.emplace_back(license);
  out.not_before = UnixTime::min();
  out.expires_at = UnixTime::max();
  if (std::string expires(row.cell(kExpires)); !expires.empty()) {
    const auto moment = parse_moment(expires.size() == 10 ? expires + "T00:00:00Z" : expires);
    if (!moment)
      return row.wrong(fmt::format(
          "expires \"{}\" is neither a date (2027-06-30) nor a moment (2027-06-30T12:00:00Z)", expires));
    // In the year 2248; what is beyond overflows the clock's own unit.
    if (*moment < Milliseconds(std::int64_t{1} << 43)) out.expires_at = UnixTime(*moment);
  }
  return out;
}

// Another row of one key.
Result<void> merge(VerifiedToken& known, const VerifiedToken& more, const CsvTable& row) {
  Principal &a = known.principal, b = more.principal;
  if (a.user != b.user || a.tenant != b.tenant || a.organization != b.organization ||
      a.user_type != b.user_type || known.expires_at != more.expires_at)
    return row.wrong("this hash was there before, with something else than another license");
  for (std::string& license : b.licenses)
    if (std::find(a.licenses.begin(), a.licenses.end(), license) == a.licenses.end())
      a.licenses.push_back(std::move(license));
  return {};
}

}  // namespace

Result<ApiKeys> ApiKeys::parse(std::string_view csv, std::string_view secret_text,
                               const Directory* directory) {
  ApiKeys out;
  auto secret = secret_of(secret_text);
  if (!secret) return std::unexpected(secret.error());
  out.secret_ = *std::move(secret);
  auto table =
      CsvTable::open(csv, {"hash", "user", "tenant", "organization", "license", "user_type", "expires"});
  if (!table) return std::unexpected(table.error());
  std::unordered_map<SessionKey, VerifiedToken, SessionKeyHash> plain, keyed;
  while (true) {
    auto more = table->next();
    if (!more) return std::unexpected(more.error());
    if (!*more) break;
    const std::string_view text = table->cell(kHash);
    const bool is_keyed = text.starts_with(kKeyed);
    const auto hash = is_keyed                   ? parse_hex(text.substr(kKeyed.size()))
                      : text.starts_with(kPlain) ? parse_hex(text.substr(kPlain.size()))
                                                 : std::nullopt;
    if (!hash) return table->wrong("hash is not hmac-sha256: or sha256: and 64 hexadecimal digits");
    if (is_keyed && out.secret_.empty())
      return table->wrong("an hmac-sha256 hash needs identity.api_keys.secret_file");
    auto row = read(*table);
    if (!row) return std::unexpected(row.error());
    auto [known, added] = (is_keyed ? keyed : plain).try_emplace(*hash, *row);
    if (added) continue;
    if (auto merged = merge(known->second, *row, *table); !merged) return std::unexpected(merged.error());
  }
  for (auto [from, to] : {std::pair{&plain, &out.plain_}, std::pair{&keyed, &out.keyed_}})
    for (auto& [hash, token] : *from) {
      if (directory != nullptr) token.principal = directory->apply(std::move(token.principal));
      to->emplace(hash, std::make_shared<const VerifiedToken>(std::move(token)));
    }
  return out;
}

std::expected<std::shared_ptr<const VerifiedToken>, TokenRefusal> ApiKeys::find(std::string_view key,
                                                                                UnixTime now) const {
  const auto look = [&](const Keys& keys,
                        std::string_view secret) -> const std::shared_ptr<const VerifiedToken>* {
    if (keys.empty()) return nullptr;
    const auto found = keys.find(digest_of(key, secret));
    return found == keys.end() ? nullptr : &found->second;
  };
  const auto* found = look(keyed_, secret_);
  if (found == nullptr) found = look(plain_, {});
  if (found == nullptr)
    return std::unexpected(TokenRefusal{Reason::token_invalid, "The API key is not known."});
  if (!(*found)->principal.active) return std::unexpected(inactive_user());
  if (now >= (*found)->expires_at)
    return std::unexpected(TokenRefusal{Reason::token_expired, "The API key has expired."});
  return *found;
}

std::string make_api_key(std::string_view random) {
  CHECK(random.size() == 32, "256 bits");
  return "tgk_" + base64url_encode(random);
}

Result<std::string> api_key_hash(std::string_view key, std::string_view secret_text) {
  if (key.size() < kApiKeyBytesMin)
    return fail(Origin::config, fmt::format("a key of {} characters could be guessed; {} are the least",
                                            key.size(), kApiKeyBytesMin));
  auto secret = secret_of(secret_text);
  if (!secret) return secret;
  std::string out(secret->empty() ? kPlain : kKeyed);
  for (unsigned char byte : digest_of(key, *secret)) out += fmt::format("{:02x}", byte);
  return out;
}

}  // namespace tollgate::identity
