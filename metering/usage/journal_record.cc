#include "metering/usage/journal_record.h"

#include <array>
#include <utility>

#include "metering/base/append.h"
#include "metering/base/check.h"
#include "metering/base/words.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace tollgate::usage {
namespace {

// ---- CRC-32C: reflected polynomial 0x82f63b78

consteval std::array<std::array<std::uint32_t, 256>, 8> crc_tables() {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78U : 0U);
    tables[0][i] = value;
  }
  for (std::size_t t = 1; t < 8; ++t)
    for (std::size_t i = 0; i < 256; ++i)
      tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 0xff];
  return tables;
}
constexpr auto kCrcTables = crc_tables();

// Eight bytes a step ("slicing by 8").
std::uint32_t crc_by_table(std::string_view bytes, std::uint32_t crc) {
  const auto& t = kCrcTables;
  while (bytes.size() >= 8) {
    const std::uint64_t word = load_word<std::uint64_t>(bytes.data()) ^ crc;
    crc = t[7][word & 0xff] ^ t[6][(word >> 8) & 0xff] ^ t[5][(word >> 16) & 0xff] ^
          t[4][(word >> 24) & 0xff] ^ t[3][(word >> 32) & 0xff] ^ t[2][(word >> 40) & 0xff] ^
          t[1][(word >> 48) & 0xff] ^ t[0][word >> 56];
    bytes.remove_prefix(8);
  }
  for (const char c : bytes) crc = (crc >> 8) ^ t[0][(crc ^ static_cast<unsigned char>(c)) & 0xff];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t crc_by_instruction(std::string_view bytes,
                                                                   std::uint32_t crc) {
  std::uint64_t wide = crc;
  const char* at = bytes.data();
  const char* const end = at + bytes.size();
  for (; end - at >= 32; at += 32) {
    wide = _mm_crc32_u64(wide, load_word<std::uint64_t>(at));
    wide = _mm_crc32_u64(wide, load_word<std::uint64_t>(at + 8));
    wide = _mm_crc32_u64(wide, load_word<std::uint64_t>(at + 16));
    wide = _mm_crc32_u64(wide, load_word<std::uint64_t>(at + 24));
  }
  for (; end - at >= 8; at += 8) wide = _mm_crc32_u64(wide, load_word<std::uint64_t>(at));
  crc = static_cast<std::uint32_t>(wide);
  if (end - at >= 4) {
    crc = _mm_crc32_u32(crc, load_word<std::uint32_t>(at));
    at += 4;
  }
  for (; at != end; ++at) crc = _mm_crc32_u8(crc, static_cast<unsigned char>(*at));
  return crc;
}
#endif

using CrcFunction = std::uint32_t (*)(std::string_view, std::uint32_t);

CrcFunction pick_crc() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return crc_by_instruction;
#endif
  return crc_by_table;
}

// ---- fields

constexpr std::size_t kNumberBytes = 10;  // at most

// Writes fields into room that is large enough: two entries a call, so no end is looked for.
class Fill {
 public:
  explicit Fill(char* at) : at_(at) {}
  char* end() const { return at_; }

  void number(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) *at_++ = static_cast<char>(value | 0x80);
    *at_++ = static_cast<char>(value);
  }
  void signed_number(std::int64_t value) {
    number((static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63));
  }
  void text(std::string_view text) {
    number(text.size());
    at_ = Appender::put(at_, text);
  }

 private:
  char* at_;
};

// Appends fields, looking for room each time.
class FieldWriter {
 public:
  explicit FieldWriter(std::string& out) : out_(out) {}

  FieldWriter& number(std::uint64_t value) {
    Fill fill(out_.room(kNumberBytes));
    fill.number(value);
    out_.advance_to(fill.end());
    return *this;
  }
  FieldWriter& signed_number(std::int64_t value) {
    Fill fill(out_.room(kNumberBytes));
    fill.signed_number(value);
    out_.advance_to(fill.end());
    return *this;
  }
  FieldWriter& text(std::string_view text) {
    Fill fill(out_.room(kNumberBytes + text.size()));
    fill.text(text);
    out_.advance_to(fill.end());
    return *this;
  }

 private:
  Appender out_;
};

// Reads fields one after the other. After the first that is not there everything is empty and failed() is true.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : left_(bytes) {}

  std::uint64_t number() {
    if (!left_.empty() && static_cast<unsigned char>(left_.front()) < 0x80) {  // nearly every one
      const auto byte = static_cast<unsigned char>(left_.front());
      left_.remove_prefix(1);
      return byte;
    }
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (left_.empty()) return give_up();
      const auto byte = static_cast<unsigned char>(left_.front());
      left_.remove_prefix(1);
      if (shift == 63 && byte > 1) return give_up();
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return give_up();
  }
  std::uint32_t number32() {
    const std::uint64_t value = number();
    return static_cast<std::uint32_t>(value > UINT32_MAX ? give_up() : value);
  }
  bool flag() {
    const std::uint64_t value = number();
    if (value > 1) give_up();
    return value == 1;
  }
  std::int64_t signed_number() {
    const std::uint64_t value = number();
    return static_cast<std::int64_t>((value >> 1) ^ (~(value & 1) + 1));
  }
  std::string_view text() {
    const std::uint64_t size = number();
    if (size > left_.size()) {
      give_up();
      return {};
    }
    const std::string_view text = left_.substr(0, static_cast<std::size_t>(size));
    left_.remove_prefix(text.size());
    return text;
  }
  // Number of elements of a list, each of at least `element` bytes: a count that cannot be true reserves no memory.
  std::size_t count(std::size_t element) {
    const std::uint64_t value = number();
    return static_cast<std::size_t>(value > left_.size() / element ? give_up() : value);
  }
  bool failed() const { return failed_; }

 private:
  std::uint64_t give_up() {
    failed_ = true;
    left_ = {};
    return 0;
  }
  std::string_view left_;
  bool failed_ = false;
};

std::unexpected<Error> damaged(std::string_view what) {
  return fail(Origin::self, "journal: the body of a " + std::string(what) + " entry cannot be read");
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes, std::uint32_t before) {
  static const CrcFunction crc = pick_crc();
  return ~crc(bytes, ~before);
}

std::uint32_t crc32c_by_table(std::string_view bytes, std::uint32_t before) {
  return ~crc_by_table(bytes, ~before);
}

namespace {

template <class Text>
std::size_t most_bytes(const CallBeginOf<Text>& entry) {
  std::size_t size = 5 * kNumberBytes;
  for (const Text* text : {&entry.request_id, &entry.user, &entry.tenant, &entry.organization,
                           &entry.client_address, &entry.method, &entry.path, &entry.kind})
    size += kNumberBytes + text->size();
  for (const auto& operation : entry.operations)
    size += 5 * kNumberBytes + operation.object.size() + operation.operation.size() +
            operation.section.size() + operation.product.size();
  for (const auto& charged : entry.charged)
    size += 3 * kNumberBytes + charged.subject_key.size() + charged.field.size();
  return size;
}

template <class Text>
void encode_begin(const CallBeginOf<Text>& entry, std::string& out) {
  Appender to(out);
  Fill fields(to.room(most_bytes(entry)));
  fields.number(entry.call);
  fields.signed_number(entry.time_ms);
  for (const Text* text : {&entry.request_id, &entry.user, &entry.tenant, &entry.organization,
                           &entry.client_address, &entry.method, &entry.path, &entry.kind})
    fields.text(*text);
  fields.number(entry.staff ? 1 : 0);
  fields.number(entry.operations.size());
  for (const auto& operation : entry.operations) {
    fields.text(operation.object);
    fields.text(operation.operation);
    fields.text(operation.section);
    fields.text(operation.product);
    fields.number(operation.count);
  }
  fields.number(entry.charged.size());
  for (const auto& charged : entry.charged) {
    fields.text(charged.subject_key);
    fields.text(charged.field);
    fields.number(charged.units);
  }
  to.advance_to(fields.end());
}

}  // namespace

void encode(const CallBegin& entry, std::string& out) {
  encode_begin(entry, out);
}

void encode(const CallBeginView& entry, std::string& out) {
  encode_begin(entry, out);
}

void encode(const CallEnd& entry, std::string& out) {
  std::string alone;  // as a text, so that a CallBegin can grow here too
  if (entry.alone) encode(*entry.alone, alone);
  Appender to(out);
  Fill fields(to.room((16 + entry.buckets.size()) * kNumberBytes + entry.reason.size() +
                      entry.upstream_server.size() + alone.size()));
  fields.number(entry.call);
  fields.number(std::to_underlying(entry.outcome));
  fields.text(entry.reason);
  fields.number(entry.status);
  fields.number(entry.units);
  fields.number(entry.given_back ? 1 : 0);
  fields.number(entry.degraded ? 1 : 0);
  for (const std::uint64_t value :
       {entry.bytes_in, entry.bytes_out, entry.total_us, entry.upstream_us, entry.store_us})
    fields.number(value);
  fields.text(entry.upstream_server);
  fields.number(entry.attempts);
  fields.number(entry.buckets.size());
  for (const std::int64_t bucket : entry.buckets) fields.signed_number(bucket);
  fields.text(alone);
  to.advance_to(fields.end());
}

void encode(const OpEntry& entry, std::string& out) {
  FieldWriter fields(out);
  fields.number(entry.incarnation).number(entry.partition).number(entry.seq).text(entry.subject_key);
  fields.number(entry.accounts.size());
  for (const OpEntry::Account& account : entry.accounts) {
    fields.text(account.field);
    for (const std::uint64_t value : {account.window_ms, account.bucket_ms, account.limit, account.returned})
      fields.number(value);
    fields.number(account.forget ? 1 : 0).number(account.uses.size());
    for (const auto& [bucket, units] : account.uses) fields.signed_number(bucket).signed_number(units);
  }
}

void encode(const AuditEntry& entry, std::string& out) {
  FieldWriter fields(out);
  fields.signed_number(entry.time_ms);
  for (const std::string* text : {&entry.actor, &entry.action, &entry.subject, &entry.detail, &entry.reason})
    fields.text(*text);
}

void encode(const MarkEntry& entry, std::string& out) {
  FieldWriter fields(out);
  fields.signed_number(entry.time_ms).number(entry.incarnation);
  for (const std::string* text : {&entry.what, &entry.version, &entry.boot_id, &entry.detail})
    fields.text(*text);
}

void encode(const SeatEntry& entry, std::string& out) {
  FieldWriter fields(out);
  fields.signed_number(entry.time_ms).text(entry.pool);
  fields.number(entry.named ? 1 : 0).text(entry.tenant).text(entry.user);
  fields.signed_number(entry.until_ms).number(entry.used).number(entry.goes_on ? 1 : 0);
}

Result<CallBegin> decode_call_begin(std::string_view body) {
  CallBegin entry;
  if (auto decoded = decode(body, entry); !decoded) return std::unexpected(decoded.error());
  return entry;
}

Result<CallEnd> decode_call_end(std::string_view body) {
  CallEnd entry;
  if (auto decoded = decode(body, entry); !decoded) return std::unexpected(decoded.error());
  return entry;
}

Result<void> decode(std::string_view body, CallBegin& entry) {
  Fields fields(body);
  entry.call = fields.number();
  entry.time_ms = fields.signed_number();
  for (std::string* text : {&entry.request_id, &entry.user, &entry.tenant, &entry.organization,
                            &entry.client_address, &entry.method, &entry.path, &entry.kind})
    text->assign(fields.text());
  entry.staff = fields.flag();
  entry.operations.resize(fields.count(5));
  for (CallBegin::Operation& operation : entry.operations) {
    operation.object = fields.text();
    operation.operation = fields.text();
    operation.section = fields.text();
    operation.product = fields.text();
    operation.count = fields.number32();
    if (fields.failed()) break;
  }
  entry.charged.resize(fields.count(3));
  for (CallBegin::Charged& charged : entry.charged) {
    charged.subject_key = fields.text();
    charged.field = fields.text();
    charged.units = fields.number32();
    if (fields.failed()) break;
  }
  if (fields.failed()) return damaged("call_begin");
  return {};
}

Result<void> decode(std::string_view body, CallEnd& entry) {
  Fields fields(body);
  entry.call = fields.number();
  const std::uint64_t outcome = fields.number();
  entry.reason = fields.text();
  entry.status = fields.number32();
  entry.units = fields.number32();
  entry.given_back = fields.flag();
  entry.degraded = fields.flag();
  for (std::uint64_t* value :
       {&entry.bytes_in, &entry.bytes_out, &entry.total_us, &entry.upstream_us, &entry.store_us})
    *value = fields.number();
  entry.upstream_server = fields.text();
  entry.attempts = fields.number32();
  entry.buckets.resize(fields.count(1));
  for (std::int64_t& bucket : entry.buckets) bucket = fields.signed_number();
  const std::string_view alone = fields.text();
  if (fields.failed() || outcome > std::to_underlying(CallOutcome::void_maybe)) return damaged("call_end");
  entry.outcome = static_cast<CallOutcome>(outcome);
  if (alone.empty())
    entry.alone.reset();
  else if (!decode(alone, entry.alone ? *entry.alone : entry.alone.emplace()))
    return damaged("call_end");
  return {};
}

Result<OpEntry> decode_op(std::string_view body) {
  Fields fields(body);
  OpEntry entry;
  entry.incarnation = fields.number32();
  entry.partition = fields.number32();
  entry.seq = fields.number();
  entry.subject_key = fields.text();
  entry.accounts.resize(fields.count(7));
  for (OpEntry::Account& account : entry.accounts) {
    account.field = fields.text();
    for (std::uint64_t* value : {&account.window_ms, &account.bucket_ms, &account.limit, &account.returned})
      *value = fields.number();
    account.forget = fields.flag();
    account.uses.resize(fields.count(2));
    for (auto& [bucket, units] : account.uses) {
      bucket = fields.signed_number();
      units = fields.signed_number();
    }
    if (fields.failed()) break;
  }
  if (fields.failed()) return damaged("op");
  return entry;
}

Result<AuditEntry> decode_audit(std::string_view body) {
  Fields fields(body);
  AuditEntry entry;
  entry.time_ms = fields.signed_number();
  for (std::string* text : {&entry.actor, &entry.action, &entry.subject, &entry.detail, &entry.reason})
    text->assign(fields.text());
  if (fields.failed()) return damaged("audit");
  return entry;
}

Result<MarkEntry> decode_mark(std::string_view body) {
  Fields fields(body);
  MarkEntry entry;
  entry.time_ms = fields.signed_number();
  entry.incarnation = fields.number32();
  for (std::string* text : {&entry.what, &entry.version, &entry.boot_id, &entry.detail})
    text->assign(fields.text());
  if (fields.failed()) return damaged("mark");
  return entry;
}

Result<SeatEntry> decode_seat(std::string_view body) {
  Fields fields(body);
  SeatEntry entry;
  entry.time_ms = fields.signed_number();
  entry.pool = fields.text();
  entry.named = fields.flag();
  entry.tenant = fields.text();
  entry.user = fields.text();
  entry.until_ms = fields.signed_number();
  entry.used = fields.number();
  entry.goes_on = fields.flag();
  if (fields.failed()) return damaged("seat");
  return entry;
}

Result<OpNumber> decode_op_number(std::string_view body) {
  Fields fields(body);
  OpNumber number;
  number.incarnation = fields.number32();
  number.partition = fields.number32();
  number.seq = fields.number();
  if (fields.failed()) return damaged("op");
  return number;
}

std::size_t entry_size(std::size_t body) {
  return (kEntryHeaderBytes + body + 7) & ~std::size_t{7};
}

void seal_header(EntryKind kind, std::uint64_t number, std::string_view body, char* at) {
  CHECK(!body.empty() && body.size() <= kEntryBodyMax, "an entry has a body, of at most 1 MiB");
  store_word(at, static_cast<std::uint32_t>(body.size()));
  store_word(at + 8, number);
  store_word(at + 16, std::to_underlying(kind));
  store_word(at + 18, std::uint16_t{0});
  store_word(at + 4, crc32c(body, crc32c({at + 8, kEntryHeaderBytes - 8})));
}

void seal(EntryKind kind, std::uint64_t number, std::string_view body, std::string& out) {
  std::array<char, kEntryHeaderBytes> header;
  seal_header(kind, number, body, header.data());
  const std::size_t end = out.size() + entry_size(body.size());
  out.append(header.data(), header.size()).append(body);
  out.resize(end, '\0');
}

Result<std::optional<EntryView>> parse_entry(std::string_view bytes) {
  const auto wrong = [](std::string_view what) {
    return fail(Origin::self, "journal: damaged entry: " + std::string(what));
  };
  if (bytes.empty()) return std::nullopt;
  if (bytes.size() < 4) return wrong("cut off in its length");
  const auto length = load_word<std::uint32_t>(bytes.data());
  if (length == 0) return std::nullopt;
  if (length > kEntryBodyMax)
    return wrong("length " + std::to_string(length) + " is beyond the largest entry");
  const std::size_t size = entry_size(length);
  if (size > bytes.size()) return wrong("cut off");
  const auto expected = load_word<std::uint32_t>(bytes.data() + 4);
  if (crc32c(bytes.substr(8, kEntryHeaderBytes - 8 + length)) != expected) return wrong("checksum differs");
  const auto kind = load_word<std::uint16_t>(bytes.data() + 16);
  EntryView view;
  view.number = load_word<std::uint64_t>(bytes.data() + 8);
  view.kind = static_cast<EntryKind>(kind);
  view.body = bytes.substr(kEntryHeaderBytes, length);
  view.size = size;
  return view;
}

}  // namespace tollgate::usage
