#include "metering/usage/journal_record.h"

#include <gtest/gtest.h>

#include <limits>

#include "metering/base/random.h"

namespace tollgate::usage {
namespace {

CallBegin a_begin() {
  CallBegin begin;
  begin.call = 7;
  begin.time_ms = 1'795'000'000'123;
  begin.request_id = "r-1";
  begin.user = "ann";
  begin.tenant = "acme";
  begin.organization = "sales";
  begin.client_address = "10.0.0.9";
  begin.method = "GET";
  begin.path = "/0/odata/Case";
  begin.kind = "read";
  begin.staff = true;
  begin.operations = {{"Case", "read", "cases", "portal", 3}, {"Contact", "update", "", "", 1}};
  begin.charged = {{"q:{p017}:acme:u:ann", "daily", 4}};
  return begin;
}

CallEnd an_end() {
  CallEnd end;
  end.call = 7;
  end.outcome = CallOutcome::interrupted;
  end.reason = "ok";
  end.status = 200;
  end.units = 4;
  end.given_back = true;
  end.degraded = true;
  end.bytes_in = 1;
  end.bytes_out = std::numeric_limits<std::uint64_t>::max();
  end.total_us = 3;
  end.upstream_us = 4;
  end.store_us = 5;
  end.upstream_server = "crm:80";
  end.attempts = 2;
  end.buckets = {29'916'666, -1, 0};
  return end;
}

OpEntry an_op() {
  OpEntry op;
  op.incarnation = 0xdeadbeef;
  op.partition = 255;
  op.seq = 1ULL << 40;
  op.subject_key = "q:{p255}:acme:u:ann";
  op.accounts.push_back(
      {"daily", 86'400'000, 60'000, UINT64_MAX, 12, true, {{29'916'666, 3}, {29'916'667, -2}}});
  op.accounts.push_back({});
  return op;
}

template <class Entry>
std::string body_of(const Entry& entry) {
  std::string body;
  encode(entry, body);
  return body;
}

TEST(Crc32c, IsTheOneOfTheStandardByInstructionAndByTable) {
  // RFC 3720 appendix B.4.
  const std::string zeros(32, '\0'), ones(32, '\xff');
  std::string rising(32, '\0');
  for (std::size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<char>(i);
  EXPECT_EQ(crc32c(zeros), 0x8a9136aaU);
  EXPECT_EQ(crc32c(ones), 0x62a8ab43U);
  EXPECT_EQ(crc32c(rising), 0x46dd794eU);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  Random random(1);
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(crc32c(bytes), crc32c_by_table(bytes)) << bytes.size();
    const std::size_t cut = static_cast<std::size_t>(random.below(bytes.size() + 1));
    EXPECT_EQ(crc32c(bytes),
              crc32c(std::string_view(bytes).substr(cut), crc32c(std::string_view(bytes).substr(0, cut))));
    bytes += static_cast<char>(random.next());
  }
}

TEST(JournalRecord, EveryKindReadsBackAsItWasWritten) {
  EXPECT_EQ(*decode_call_begin(body_of(a_begin())), a_begin());
  EXPECT_EQ(*decode_call_end(body_of(an_end())), an_end());
  CallEnd alone = an_end();
  alone.call = 0;
  alone.alone = a_begin();
  EXPECT_EQ(*decode_call_end(body_of(alone)), alone);
  EXPECT_EQ(*decode_op(body_of(an_op())), an_op());
  const AuditEntry audit{-5, "10.0.0.9 token admin", "quota.grant", "acme/ann daily", "+200", "fair"};
  EXPECT_EQ(*decode_audit(body_of(audit)), audit);
  const MarkEntry mark{1, 2, "start", "0.1.0", "boot", std::string("\0x", 2)};
  EXPECT_EQ(*decode_mark(body_of(mark)), mark);
  const SeatEntry seat{.time_ms = 1'763'820'000'000,
                       .pool = "self_service",
                       .named = true,
                       .tenant = "acme",
                       .user = "ann",
                       .until_ms = SeatEntry::kNoEnd,
                       .used = 300,
                       .goes_on = true};
  EXPECT_EQ(*decode_seat(body_of(seat)), seat);
  EXPECT_EQ(*decode_call_begin(body_of(CallBegin{})), CallBegin{});
}

TEST(JournalRecord, BytesOfAnEntryAreThoseOfTheLayout) {
  // length 7, checksum, number 258, kind 5, reserved, body, one byte short of 8: padded.
  std::string bytes;
  seal(EntryKind::mark, 258, "1234567", bytes);
  ASSERT_EQ(bytes.size(), 32u);
  EXPECT_EQ(bytes.substr(0, 4), std::string_view("\x07\0\0\0", 4));
  EXPECT_EQ(bytes.substr(8, 12), std::string_view("\x02\x01\0\0\0\0\0\0\x05\0\0\0", 12));
  EXPECT_EQ(bytes.substr(20), std::string_view("1234567\0\0\0\0\0", 12));
  std::uint32_t sum;
  std::memcpy(&sum, bytes.data() + 4, 4);
  EXPECT_EQ(sum, crc32c(std::string_view(bytes).substr(8, 19)));
  EXPECT_EQ(body_of(MarkEntry{-1, 300, "a", "", "", ""}), std::string("\x01\xac\x02\x01"
                                                                      "a\0\0\0",
                                                                      8));
}

TEST(JournalRecord, EveryBodyCutShortIsRefused) {
  const auto all_cuts_fail = [](const std::string& body, auto decode) {
    for (std::size_t size = 0; size < body.size(); ++size)
      EXPECT_FALSE(decode(std::string_view(body).substr(0, size))) << size << " of " << body.size();
  };
  all_cuts_fail(body_of(a_begin()), decode_call_begin);
  all_cuts_fail(body_of(an_end()), decode_call_end);
  all_cuts_fail(body_of(an_op()), decode_op);
  all_cuts_fail(body_of(AuditEntry{1, "a", "b", "c", "d", "e"}), decode_audit);
  all_cuts_fail(body_of(MarkEntry{1, 2, "a", "b", "c", "d"}), decode_mark);
  all_cuts_fail(body_of(SeatEntry{.time_ms = 1, .pool = "a", .tenant = "b", .user = "c"}), decode_seat);
}

TEST(JournalRecord, FieldsOfALaterVersionAreIgnored) {
  EXPECT_EQ(*decode_call_begin(body_of(a_begin()) + "more"), a_begin());
  EXPECT_EQ(*decode_op(body_of(an_op()) + "more"), an_op());
  EXPECT_EQ(*decode_call_end(body_of(an_end()) + "more"), an_end());
}

TEST(JournalRecord, AListThatCannotBeThatLongReservesNoMemory) {
  std::string body;
  body.append("\x01\x01\x01\x00", 4);                      // an op of partition 1, seq 1, no subject
  body.append("\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 9);  // and 2^63 accounts
  EXPECT_FALSE(decode_op(body));
}

TEST(JournalRecord, HeadOfAnOpIsReadAlone) {
  const auto number = decode_op_number(body_of(an_op()));
  ASSERT_TRUE(number);
  EXPECT_EQ(number->incarnation, 0xdeadbeef);
  EXPECT_EQ(number->partition, 255u);
  EXPECT_EQ(number->seq, 1ULL << 40);
}

TEST(ParseEntry, EndIsAZeroLengthOrNothing) {
  EXPECT_FALSE(parse_entry("")->has_value());
  EXPECT_FALSE(parse_entry(std::string(64, '\0'))->has_value());
}

TEST(ParseEntry, FindsOneEntryAfterTheOther) {
  std::string bytes;
  for (std::uint64_t number = 1; number <= 20; ++number)
    seal(EntryKind::audit, number, std::string(number, 'x'), bytes);
  std::string_view left = bytes;
  for (std::uint64_t number = 1; number <= 20; ++number) {
    const auto entry = parse_entry(left);
    ASSERT_TRUE(entry && *entry);
    EXPECT_EQ((*entry)->number, number);
    EXPECT_EQ((*entry)->body, std::string(number, 'x'));
    EXPECT_EQ((*entry)->size % 8, 0u);
    left.remove_prefix((*entry)->size);
  }
  EXPECT_TRUE(left.empty());
}

TEST(ParseEntry, EveryFlippedBitIsFoundOrInThePadding) {
  std::string bytes;
  seal(EntryKind::call_begin, 9, body_of(a_begin()), bytes);
  const std::size_t used = kEntryHeaderBytes + body_of(a_begin()).size();
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    const auto entry = parse_entry(damaged);
    if (bit / 8 >= used)
      EXPECT_TRUE(entry && *entry && (*entry)->body == body_of(a_begin()));
    else
      EXPECT_FALSE(entry) << "bit " << bit;
  }
}

TEST(ParseEntry, EveryCutIsFound) {
  std::string bytes;
  seal(EntryKind::call_end, 9, body_of(an_end()), bytes);
  for (std::size_t size = 1; size < bytes.size(); ++size)
    EXPECT_FALSE(parse_entry(std::string_view(bytes).substr(0, size))) << size;
}

}  // namespace
}  // namespace tollgate::usage
