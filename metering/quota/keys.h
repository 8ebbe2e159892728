// Names of accounts in the store. NEVER CHANGE: counts of the last window are found again only under the same name.
//
//   q:{p017}:acme:u:ann          key of one subject (a hash); fields are its accounts
//     |   |    |  |  +-- value, escaped
//     |   |    |  +----- u user, o organization, o:..:u:.. a user within an organization, t the whole tenant
//     |   |    +-------- tenant, escaped ("" when the token names none)
//     |   +------------- partition = crc16("acme:u:ann") mod 256: the only part Redis Cluster hashes
//     +----------------- quota
//   daily                        field: the rule's account
//   daily|customer|Case|read     field of a rule per product, object and operation (those it names, in this order)
//   #|Case|read                  observation of GET /.tollgate/usage: counted, never limited
//
// Escaped: every byte but A-Z a-z 0-9 - . _ ~ @ + becomes %XX (upper-case hex). So no name can imitate a separator, a hash
// tag or another name, and keys are printable ASCII.
// Pure; no state.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tollgate::quota {

inline constexpr unsigned kPartitions = 256;  // fixed for life

// CRC16-CCITT (XMODEM: polynomial 0x1021, initial 0, no reflection), as Redis Cluster hashes keys.
// crc16("123456789") = 0x31C3.
std::uint16_t crc16(std::string_view bytes);

// Whose account: the tenant alone, or an organization, a user, or both within it.
struct Subject {
  std::string_view tenant;
  std::optional<std::string_view> organization, user;
};

std::string subject_key(const Subject& subject);
void write_subject_key(const Subject& subject, std::string& key);  // the same in place of what is there
// The partition in a key that subject_key made, 0..255.
unsigned partition_of(std::string_view subject_key);
// "{p017}": for further keys that must live in the slot of a partition.
std::string hash_tag(unsigned partition);

// Owned parts of a key that subject_key made; nullopt for any other text.
struct ParsedSubject {
  std::string tenant;
  std::optional<std::string> organization, user;
};
std::optional<ParsedSubject> parse_subject_key(std::string_view key);

std::string escape_name(std::string_view name);
void append_escaped(std::string& out, std::string_view name);
std::optional<std::string> unescape_name(
    std::string_view text);  // nullopt when it is not what escape_name writes

inline constexpr std::string_view kObservationField = "#";

}  // namespace tollgate::quota
