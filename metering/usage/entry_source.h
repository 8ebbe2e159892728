// Where journal entries are read from: a journal directory (metering/journal), or a list in a test.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "metering/base/error.h"
#include "metering/usage/journal_record.h"

namespace tollgate::usage {

class EntrySource {
 public:
  struct Position {
    std::string stream;  // "0", "1", ..., "control": one writer each
    std::uint64_t number =
        0;  // of the entry, from 1 in each stream; without gaps but where something may be lost
  };
  struct StreamInfo {
    std::string name;
    std::uint64_t first = 0, last = 0;  // entry numbers kept
    std::uint64_t segments = 0, bytes = 0;
  };
  virtual ~EntrySource() = default;
  virtual Result<std::uint32_t> incarnation() const = 0;  // of the journal; its name across machines
  virtual Result<std::vector<StreamInfo>> streams() const = 0;
  // Entries of one stream with number > after, in order, until visit says false. Views live during the visit. An error
  // names where and what; entries before it have been visited.
  virtual Result<void> read(const std::string& stream, std::uint64_t after,
                            const std::function<bool(const Position&, const EntryView&)>& visit) const = 0;
};

}  // namespace tollgate::usage
