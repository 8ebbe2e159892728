#include "metering/quota/keys.h"

#include <fmt/format.h>

#include <array>

#include "metering/base/ascii.h"
#include "metering/base/check.h"

namespace tollgate::quota {
namespace {

constexpr std::array<std::uint16_t, 256> make_crc_table() {
  std::array<std::uint16_t, 256> table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    unsigned crc = byte << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1;
    table[byte] = static_cast<std::uint16_t>(crc & 0xFFFF);
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

constexpr bool is_plain(char c) {
  return is_alpha(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~' || c == '@' || c == '+';
}

constexpr auto kPlain = byte_table(is_plain);

// "q:{p017}:" is always 9 bytes.
constexpr std::size_t kPrefixBytes = 9;

// Its digits into a "{p000}".
void write_partition(unsigned partition, char* tag) {
  for (std::size_t at = 4; at > 1; --at, partition /= 10) tag[at] = static_cast<char>('0' + partition % 10);
}

}  // namespace

std::uint16_t crc16(std::string_view bytes) {
  unsigned crc = 0;
  for (char c : bytes)
    crc = ((crc << 8) ^ kCrcTable[((crc >> 8) ^ static_cast<unsigned char>(c)) & 0xFF]) & 0xFFFF;
  return static_cast<std::uint16_t>(crc);
}

void append_escaped(std::string& out, std::string_view name) {
  while (!name.empty()) {
    std::size_t plain = 0;
    while (plain < name.size() && kPlain[static_cast<unsigned char>(name[plain])]) ++plain;
    out.append(name.substr(0, plain));
    if (plain == name.size()) return;
    constexpr std::string_view kHex = "0123456789ABCDEF";
    const auto byte = static_cast<unsigned char>(name[plain]);
    out.push_back('%');
    out.push_back(kHex[byte >> 4]);
    out.push_back(kHex[byte & 15]);
    name.remove_prefix(plain + 1);
  }
}

std::string escape_name(std::string_view name) {
  std::string out;
  append_escaped(out, name);
  return out;
}

std::optional<std::string> unescape_name(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      if (!is_plain(text[i])) return std::nullopt;
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    int high = hex_value(text[i + 1]), low = hex_value(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  if (escape_name(out) != text) return std::nullopt;  // one name has one spelling
  return out;
}

std::string hash_tag(unsigned partition) {
  CHECK(partition < kPartitions, "256 partitions");
  std::string out = "{p000}";
  write_partition(partition, out.data());
  return out;
}

std::string subject_key(const Subject& subject) {
  std::string out;
  write_subject_key(subject, out);
  return out;
}

void write_subject_key(const Subject& subject, std::string& out) {
  out.clear();
  out.reserve(64);
  out.append("q:{p000}:");
  append_escaped(out, subject.tenant);
  if (subject.organization) append_escaped(out.append(":o:"), *subject.organization);
  if (subject.user) append_escaped(out.append(":u:"), *subject.user);
  if (!subject.organization && !subject.user) out.append(":t");
  write_partition(crc16(std::string_view(out).substr(kPrefixBytes)) % kPartitions, out.data() + 2);
}

unsigned partition_of(std::string_view subject_key) {
  CHECK(subject_key.size() > kPrefixBytes && subject_key.starts_with("q:{p"), "a key of subject_key()");
  return crc16(subject_key.substr(kPrefixBytes)) % kPartitions;
}

std::optional<ParsedSubject> parse_subject_key(std::string_view key) {
  if (key.size() <= kPrefixBytes || !key.starts_with("q:{p")) return std::nullopt;
  if (key.substr(0, kPrefixBytes) != fmt::format("q:{}:", hash_tag(partition_of(key)))) return std::nullopt;
  std::string_view rest = key.substr(kPrefixBytes);
  auto next = [&rest] {
    std::size_t colon = rest.find(':');
    std::string_view piece = rest.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon + 1);
    return piece;
  };
  ParsedSubject out;
  if (auto tenant = unescape_name(next()))
    out.tenant = *tenant;
  else
    return std::nullopt;
  if (rest.starts_with("o:")) {
    next();
    out.organization = unescape_name(next());
    if (!out.organization) return std::nullopt;
  }
  if (rest.starts_with("u:")) {
    next();
    out.user = unescape_name(next());
    if (!out.user) return std::nullopt;
  }
  // Writing it again is the proof that nothing was missed or repeated.
  Subject subject{out.tenant, out.organization, out.user};
  if (subject_key(subject) != key) return std::nullopt;
  return out;
}

}  // namespace tollgate::quota
