#include "metering/identity/session.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <charconv>

#include "metering/base/ascii.h"
#include "metering/base/check.h"
#include "metering/identity/directory.h"
#include "metering/identity/key_set.h"

namespace tollgate::identity {
namespace {

constexpr char kSeparator = '\x1f';  // in no user name: session_user() refuses control characters
constexpr std::size_t kUserBytesMax = 256;
constexpr unsigned kPartitions = 256;  // quota::kPartitions, fixed for life

std::string_view type_name(UserType type) {
  switch (type) {
    case UserType::portal:
      return "portal";
    case UserType::staff:
      return "staff";
    case UserType::unknown:
      break;
  }
  return "";
}

void append_hex(std::string& out, const SessionKey& key) {
  constexpr std::string_view kHex = "0123456789abcdef";
  for (unsigned char byte : key) {
    out.push_back(kHex[byte >> 4]);
    out.push_back(kHex[byte & 15]);
  }
}

// As append_hex() writes them one behind the other. False: not so, or too many.
bool read_keys(std::string_view text, std::vector<SessionKey>& keys) {
  constexpr std::size_t kDigits = 2 * std::tuple_size_v<SessionKey>;
  if (text.size() % kDigits != 0 || text.size() / kDigits > kLinkedMax) return false;
  for (char c : text)
    if (hex_value(c) < 0 || (c >= 'A' && c <= 'F')) return false;
  for (; !text.empty(); text.remove_prefix(kDigits)) {
    SessionKey& key = keys.emplace_back();
    for (std::size_t i = 0; i < key.size(); ++i)
      key[i] = static_cast<unsigned char>(hex_value(text[2 * i]) * 16 + hex_value(text[2 * i + 1]));
  }
  return true;
}

// One code point of well-formed UTF-8 from `at` on, which moves behind it; nullopt: ill-formed (RFC 3629
// section 4).
std::optional<char32_t> next_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  if (first < 0x80) return static_cast<char32_t>(text[at++]);
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() - at < length) return std::nullopt;
  char32_t code = first & (0xFFU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0U) != 0x80) return std::nullopt;
    code = code << 6 | (byte(at + i) & 0x3FU);
  }
  constexpr char32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kLeast[length] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return std::nullopt;
  at += length;
  return code;
}

char32_t fold(char32_t code) {
  if (code >= 'A' && code <= 'Z') return code + 32;
  if (code >= 0xC0 && code <= 0xDE && code != 0xD7) return code + 32;     // Latin-1
  if (code >= 0x391 && code <= 0x3A9 && code != 0x3A2) return code + 32;  // Greek
  if (code >= 0x410 && code <= 0x42F) return code + 32;                   // Cyrillic
  if (code >= 0x400 && code <= 0x40F) return code + 80;
  return code;
}

void append_utf8(std::string& out, char32_t code) {
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out.push_back(static_cast<char>(0xC0 | code >> 6));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else if (code < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | code >> 12));
    out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | code >> 18));
    out.push_back(static_cast<char>(0x80 | (code >> 12 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

}  // namespace

std::string_view name(SessionKind kind) {
  switch (kind) {
    case SessionKind::creatio:
      break;
    case SessionKind::cherwell:
      return "cherwell";
  }
  return "creatio";
}

Result<SessionSecret> SessionSecret::from_text(std::string_view text) {
  auto bytes = decode_secret(text);
  if (!bytes) return std::unexpected(bytes.error());
  if (bytes->size() < 32)
    return fail(Origin::config, "the secret of sessions needs 32 bytes or more: openssl rand -base64 32");
  return SessionSecret(*bytes);
}

SessionKey SessionSecret::key_of(SessionKind kind, std::string_view upstream,
                                 std::string_view credential) const {
  std::string text(name(kind));
  text.append(1, '\0').append(upstream).append(1, '\0').append(credential);
  SessionKey key;
  unsigned size = 0;
  const unsigned char* made =
      HMAC(EVP_sha256(), bytes_.data(), static_cast<int>(bytes_.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(), key.data(), &size);
  CHECK(made != nullptr && size == key.size(), "HMAC-SHA256 can be made");
  return key;
}

unsigned partition_of(const SessionKey& key) {
  return key.front() % kPartitions;
}

std::string store_key(const SessionKey& key) {
  const unsigned partition = partition_of(key);
  std::string out = "l:{p";
  for (unsigned digit : {partition / 100, partition / 10 % 10, partition % 10})
    out.push_back(static_cast<char>('0' + digit));
  out += "}:";
  append_hex(out, key);
  return out;
}

std::string encode(const SessionRecord& record) {
  const bool plain = record.site.empty() && record.linked.empty();
  std::string out = plain ? "1" : "2";
  const auto append = [&](std::string_view part) { out.append(1, kSeparator).append(part); };
  append(name(record.kind));
  append(std::to_string(record.deadline.time_since_epoch() / Milliseconds(1)));
  append(type_name(record.user_type));
  if (!plain) {
    append(record.site);
    append("");
    for (const SessionKey& key : record.linked) append_hex(out, key);
  }
  append(record.user);
  return out;
}

std::optional<SessionRecord> decode_session(std::string_view text) {
  const bool plain = text.starts_with('1');
  const std::size_t count = plain ? 5 : 7;
  std::array<std::string_view, 7> parts;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t end = i + 1 < count ? text.find(kSeparator) : text.size();
    if (end == std::string_view::npos) return std::nullopt;
    parts[i] = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  const auto& [version, kind, deadline, type, site, linked, last] = parts;
  const std::string_view user = plain ? site : last;
  SessionRecord record;
  if (version != (plain ? "1" : "2")) return std::nullopt;
  if (kind == name(SessionKind::cherwell))
    record.kind = SessionKind::cherwell;
  else if (kind != name(SessionKind::creatio))
    return std::nullopt;
  const auto milliseconds = parse_decimal(deadline);
  // In the year 2248; what is beyond overflows the clock's own unit.
  if (!milliseconds || *milliseconds > std::uint64_t{1} << 43) return std::nullopt;
  record.deadline = UnixTime(Milliseconds(*milliseconds));
  record.user_type = parse_user_type(type);
  if (type_name(record.user_type) != type) return std::nullopt;
  if (session_user(user) != user) return std::nullopt;
  record.user = user;
  if (plain) return record;
  if (!site.empty() && session_user(site) != site) return std::nullopt;
  record.site = site;
  if (!read_keys(linked, record.linked) || (record.site.empty() && record.linked.empty()))
    return std::nullopt;
  return record;
}

std::optional<std::string> session_user(std::string_view typed) {
  typed = trim(typed);
  if (typed.empty() || typed.size() > kUserBytesMax) return std::nullopt;
  std::string out;
  for (std::size_t at = 0; at < typed.size();) {
    const auto code = next_code_point(typed, at);
    if (!code || *code < 0x20 || (*code >= 0x7F && *code < 0xA0)) return std::nullopt;
    append_utf8(out, fold(*code));
  }
  return out;
}

}  // namespace tollgate::identity
