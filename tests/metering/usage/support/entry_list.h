// A journal in memory for tests: entries in lists, with the faults a disk can have.
#pragma once
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "metering/usage/entry_source.h"

namespace tollgate::usage {

class EntryList final : public EntrySource {
 public:
  explicit EntryList(std::uint32_t incarnation = 0x00c0ffee) : incarnation_(incarnation) {}

  template <class Entry>
  std::uint64_t add(const std::string& stream, EntryKind kind, const Entry& entry) {
    std::string body;
    encode(entry, body);
    return add_bytes(stream, kind, std::move(body));
  }
  std::uint64_t add(const std::string& stream, const CallBegin& begin) {
    return add(stream, EntryKind::call_begin, begin);
  }
  std::uint64_t add(const std::string& stream, const CallEnd& end) {
    return add(stream, EntryKind::call_end, end);
  }
  std::uint64_t add(const std::string& stream, const OpEntry& op) { return add(stream, EntryKind::op, op); }
  std::uint64_t add_bytes(const std::string& stream, EntryKind kind, std::string body) {
    Stream& to = streams_[stream];
    to.entries.push_back({kind, std::move(body)});
    return to.entries.size();
  }

  // Entries below this number are no longer kept.
  void forget_below(const std::string& stream, std::uint64_t number) { streams_[stream].first = number; }
  // Reading stops there with an error, until mend().
  void damage(const std::string& stream, std::uint64_t number) { streams_[stream].damaged.insert(number); }
  void mend() {
    for (auto& [name, stream] : streams_) stream.damaged.clear();
  }
  // As an older copy of the journal: only what is up to `number`.
  void cut(const std::string& stream, std::uint64_t number) { streams_[stream].entries.resize(number); }
  void replace(const std::string& stream, std::uint64_t number, EntryKind kind, std::string body) {
    streams_[stream].entries[number - 1] = {kind, std::move(body)};
  }
  mutable std::uint64_t visited = 0;

  Result<std::uint32_t> incarnation() const override { return incarnation_; }
  Result<std::vector<StreamInfo>> streams() const override {
    std::vector<StreamInfo> all;
    for (const auto& [name, stream] : streams_)
      all.push_back({name, stream.first, stream.entries.size(), 1, 0});
    return all;
  }
  Result<void> read(const std::string& name, std::uint64_t after,
                    const std::function<bool(const Position&, const EntryView&)>& visit) const override {
    const Stream& stream = streams_.at(name);
    for (std::uint64_t number = std::max(after + 1, stream.first); number <= stream.entries.size();
         ++number) {
      if (stream.damaged.contains(number))
        return fail(Origin::self, name + "-0000000001.log, offset 4711: checksum differs");
      ++visited;
      const auto& [kind, body] = stream.entries[number - 1];
      if (!visit({name, number}, {number, kind, body, 0})) return {};
    }
    return {};
  }

 private:
  struct Stream {
    std::vector<std::pair<EntryKind, std::string>> entries;
    std::uint64_t first = 1;
    std::set<std::uint64_t> damaged;
  };
  std::uint32_t incarnation_;
  std::map<std::string, Stream> streams_;
};

}  // namespace tollgate::usage
