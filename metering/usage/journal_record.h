// The entries of the journal as bytes: what happened on this proxy, in the order in which one worker saw it.
//
//   call_begin   a call was about to be charged: who, what, when        written before the charge
//   call_end     the same call: outcome, units charged, seconds, bytes  or, without a begin, a call that charged nothing
//   op           a numbered op to the store (metering/quota/lease_protocol.h), before it is sent
//   audit        an administrator changed something: who, what, why
//   seat         a user has a seat until a moment, or has left it (metering/seats/recorder.h)
//   mark         the writer started, stopped, or recovered: build, incarnation, boot, what was found
//
// A call_begin without call_end is a call that the death of the process cut off; recovery (metering/journal) writes the
// call_end it can vouch for: `interrupted` when the upstream may have received it, else void.
//
// Bytes of one entry. NEVER CHANGE: journals are read by later versions. Little endian, packed.
//
//   offset size
//     0     4   u32 length of the body; 0 here: the end of what was written
//     4     4   u32 CRC-32C (Castagnoli, RFC 3720 appendix B.4) over bytes 8 .. 20+length
//     8     8   u64 number: per stream, from 1, without gaps, across segments
//    16     2   u16 kind (Kind)
//    18     2   u16 reserved, 0
//    20         body: fields in the order of the struct; integers as varint (LEB128), signed ones zigzag, texts as varint length
//               and bytes, lists as varint count and elements. Unknown bytes after the known fields are ignored, so fields
//               can be added at the end. CallEnd::alone is a text that holds a call_begin body, "" when there is none.
//   padded with zeros to a multiple of 8 bytes. The length word is written last: an entry is there whole or not at all.
//
// Pure. decode() never reads outside `bytes`, whatever they are.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metering/base/error.h"
#include "metering/base/time.h"

namespace tollgate::usage {

inline constexpr std::size_t kEntryHeaderBytes = 20;
inline constexpr std::size_t kEntryBodyMax = 1 << 20;

enum class EntryKind : std::uint16_t { call_begin = 1, call_end = 2, op = 3, audit = 4, mark = 5, seat = 6 };

// By the processor's instruction (SSE 4.2) where it has one, else by table. `before`: the sum of the bytes before these.
std::uint32_t crc32c(std::string_view bytes, std::uint32_t before = 0);
std::uint32_t crc32c_by_table(std::string_view bytes,
                              std::uint32_t before = 0);  // the same sum, on any processor

// A call is named by (stream, call): one more than the call before on the same stream, never used twice.
template <class Text>
struct CallBeginOf {
  std::uint64_t call = 0;
  std::int64_t time_ms = 0;  // arrival, calendar clock of the proxy
  Text request_id, user, tenant, organization, client_address, method, path, kind;
  bool staff = false;
  struct Operation {
    Text object, operation, section, product;
    std::uint32_t count = 1;  // equal operations of a batch are one entry
    bool operator==(const Operation&) const = default;
  };
  std::vector<Operation> operations;  // licensed ones
  struct Charged {
    Text subject_key, field;  // quota accounts, observation accounts not included
    std::uint32_t units = 0;
    bool operator==(const Charged&) const = default;
  };
  std::vector<Charged> charged;  // asked for; call_end says what became of it
  bool operator==(const CallBeginOf&) const = default;
};
using CallBegin = CallBeginOf<std::string>;
using CallBeginView = CallBeginOf<std::string_view>;  // to write one of what lies elsewhere

enum class CallOutcome : std::uint8_t {
  done = 0,         // ended by itself: reason and status say how
  interrupted = 1,  // the process died after the upstream may have received it: billable
  void_charged =
      2,  // the process died after the charge and before the upstream received anything: not billable
  void_maybe = 3,  // as above, and it is not known whether the charge was made
};

struct CallEnd {
  std::uint64_t call = 0;  // of the call_begin; 0: this entry stands alone, `alone` says who and what
  CallOutcome outcome = CallOutcome::done;
  std::string reason;  // reason code
  std::uint32_t status = 0;
  std::uint32_t units = 0;  // billable units; 0: denied, given back, void, free
  bool given_back = false;  // charged and handed back: the upstream never received it
  bool degraded = false;
  std::uint64_t bytes_in = 0, bytes_out = 0;
  std::uint64_t total_us = 0, upstream_us = 0, store_us = 0;
  std::string upstream_server;
  std::uint32_t attempts = 0;
  std::vector<std::int64_t>
      buckets;  // of each `charged` account, in order: where the units were counted (store's clock)
  std::optional<CallBegin> alone;
  bool operator==(const CallEnd&) const = default;
};

// A numbered op; account by account what was settled. The wants are of the moment and not kept.
struct OpEntry {
  std::uint32_t incarnation = 0;
  std::uint32_t partition = 0;
  std::uint64_t seq = 0;
  std::string subject_key;
  struct Account {
    std::string field;
    std::uint64_t window_ms = 0, bucket_ms = 0, limit = 0;
    std::uint64_t returned = 0;
    bool forget = false;
    std::vector<std::pair<std::int64_t, std::int64_t>> uses;  // bucket, units
    bool operator==(const Account&) const = default;
  };
  std::vector<Account> accounts;
  bool operator==(const OpEntry&) const = default;
};

struct AuditEntry {
  std::int64_t time_ms = 0;
  std::string actor, action, subject, detail,
      reason;  // "10.0.0.9 token admin", "quota.grant", "acme/ann daily", "+200 until ..", free text
  bool operator==(const AuditEntry&) const = default;
};

struct MarkEntry {
  std::int64_t time_ms = 0;
  std::uint32_t incarnation = 0;
  std::string what;  // "start", "stop", "recovered"
  std::string version, boot_id, detail;
  bool operator==(const MarkEntry&) const = default;
};

// From `time_ms` on the user holds a seat of the pool, and goes on until `until_ms`; one that is not later than
// `time_ms`: it is over. Entries of one user, in the order of their times: a later end moves the end on, one that
// is over ends it.
struct SeatEntry {
  static constexpr std::int64_t kNoEnd = INT64_MAX;  // until_ms of a named seat
  std::int64_t time_ms = 0;                          // calendar clock of the proxy
  std::string pool;
  bool named = false;  // else concurrent
  std::string tenant, user;
  std::int64_t until_ms = 0;
  std::uint64_t used = 0;  // seats of the pool then, as the store counts them; 0: not said
  bool goes_on = false;    // says nothing of a seat that has ended before `time_ms`
  bool operator==(const SeatEntry&) const = default;
};

// Body bytes of an entry, appended to `out`.
void encode(const CallBegin& entry, std::string& out);
void encode(const CallBeginView& entry, std::string& out);
void encode(const CallEnd& entry, std::string& out);
void encode(const OpEntry& entry, std::string& out);
void encode(const AuditEntry& entry, std::string& out);
void encode(const MarkEntry& entry, std::string& out);
void encode(const SeatEntry& entry, std::string& out);
Result<CallBegin> decode_call_begin(std::string_view body);
Result<CallEnd> decode_call_end(std::string_view body);
// The same in place of what `entry` held, whose memory is used again. On failure something is in it.
Result<void> decode(std::string_view body, CallBegin& entry);
Result<void> decode(std::string_view body, CallEnd& entry);
Result<OpEntry> decode_op(std::string_view body);
Result<AuditEntry> decode_audit(std::string_view body);
Result<MarkEntry> decode_mark(std::string_view body);
Result<SeatEntry> decode_seat(std::string_view body);
// The head of an op only: for looking through many.
struct OpNumber {
  std::uint32_t incarnation = 0;
  std::uint32_t partition = 0;
  std::uint64_t seq = 0;
};
Result<OpNumber> decode_op_number(std::string_view body);

// One entry as it lies in a segment. seal() appends header, body and padding; the body has 1 .. kEntryBodyMax bytes.
// parse_entry() looks at the start of `bytes`: nullopt at the end of what was written; an error (what is wrong) when the
// entry is damaged. Kinds of later versions are handed out as they are: a reader passes over what it does not know.
struct EntryView {
  std::uint64_t number = 0;
  EntryKind kind = EntryKind::mark;
  std::string_view body;
  std::size_t size = 0;  // with header and padding: where the next one begins
};
void seal(EntryKind kind, std::uint64_t number, std::string_view body, std::string& out);
Result<std::optional<EntryView>> parse_entry(std::string_view bytes);
// For a writer that puts an entry where it belongs by itself: the kEntryHeaderBytes of it, and the bytes with padding.
void seal_header(EntryKind kind, std::uint64_t number, std::string_view body, char* at);
std::size_t entry_size(std::size_t body);

}  // namespace tollgate::usage
