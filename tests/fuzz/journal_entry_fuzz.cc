// Journal entries: any bytes are read to an end or an error without a step outside them; what is read as an entry seals to the
// same bytes again, and what a body decodes to encodes and decodes to the same.
//
// The first byte says how the rest is taken: as a segment's entries as they lie; as bodies of one kind, sealed here (a
// checksum that fits is nothing a fuzzer finds by itself).
#include <cstdint>
#include <string>
#include <string_view>

#include "metering/base/check.h"
#include "metering/usage/journal_record.h"

namespace {

using namespace tollgate;
using namespace tollgate::usage;

template <class Entry>
void round_trip(const Result<Entry>& entry, Result<Entry> (*decode)(std::string_view)) {
  if (!entry) return;
  std::string body;
  encode(*entry, body);
  const auto again = decode(body);
  CHECK(again && *again == *entry, "an entry changes when it is written and read");
}

void look_into(EntryKind kind, std::string_view body) {
  switch (kind) {
    case EntryKind::call_begin:
      return round_trip(decode_call_begin(body), decode_call_begin);
    case EntryKind::call_end:
      return round_trip(decode_call_end(body), decode_call_end);
    case EntryKind::op: {
      const auto op = decode_op(body);
      const auto number = decode_op_number(body);
      CHECK(!op || (number && number->incarnation == op->incarnation && number->partition == op->partition &&
                    number->seq == op->seq),
            "the head of an op reads otherwise alone");
      return round_trip(op, decode_op);
    }
    case EntryKind::audit:
      return round_trip(decode_audit(body), decode_audit);
    case EntryKind::mark:
      return round_trip(decode_mark(body), decode_mark);
    case EntryKind::seat:
      return round_trip(decode_seat(body), decode_seat);
  }
}

void walk(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto entry = parse_entry(bytes);
    if (!entry || !*entry) return;
    const EntryView& view = **entry;
    CHECK(
        view.size <= bytes.size() && view.size % 8 == 0 && view.body.size() + kEntryHeaderBytes <= view.size,
        "an entry reaches outside the bytes");
    std::string sealed;
    seal(view.kind, view.number, view.body, sealed);
    const auto again = parse_entry(sealed);
    CHECK(sealed.size() == view.size && again && *again && (*again)->body == view.body,
          "an entry seals otherwise");
    look_into(view.kind, view.body);
    bytes.remove_prefix(view.size);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const unsigned how = data[0] % 6;
  if (how == 0) {
    walk(bytes);
  } else {
    if (!bytes.empty()) {
      std::string sealed;
      seal(static_cast<EntryKind>(how), 1, bytes, sealed);
      walk(sealed);
    }
    look_into(static_cast<EntryKind>(how), bytes);
  }
  CHECK(crc32c(bytes) == crc32c_by_table(bytes), "the two ways to a checksum differ");
  return 0;
}
