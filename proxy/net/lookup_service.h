// EDGE: asks whose a credential is (identity/lookup.h), on ONE background thread that no worker waits for.
//
//   service.ask(source, table, key, token, now, [&](auto verdict) { loop.post(...); });
//
//   ask ──> somebody asks already? ──yes──> wait for the same answer (single flight)
//              └─no─> POST or GET, at most source->timeout ──> settled: into the table ──> all who wait are told
//                                                         └──> failed: all are told nullptr; nothing is remembered
//
// What is settled is in the table when the callers hear of it. The bounds: kAskedMax credentials asked about at a time
// (further ones fail at once), kConnectionsMax connections, kept alive between questions; a question that waits for one of
// these waits within its time-out. TLS is verified (ca_file or the system's store), no redirect is followed, replies beyond
// identity::kLookupReplyMax are failures.
//
// The thread starts with the first question. Log lines are written when a source begins to fail or to work again;
// they hold no credential and nothing of a reply.
//
// Threads: ask() from any; `done` is called on the service's thread, or at once on the caller's. The destructor breaks off
// what is under way; whoever waits then is not told.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "metering/identity/lookup_table.h"

namespace tollgate::net {

class LookupService {
 public:
  static constexpr std::size_t kAskedMax = 1'000;
  static constexpr long kConnectionsMax = 32;

  struct Counters {
    std::atomic<std::uint64_t> questions{0}, nobody{0}, failures{0};
  };
  using Log = std::function<void(bool good, const std::string& line)>;  // on the service's thread

  explicit LookupService(Log log);
  ~LookupService();
  LookupService(const LookupService&) = delete;
  LookupService& operator=(const LookupService&) = delete;

  // nullptr: no answer that settles anything.
  using Done = std::function<void(std::shared_ptr<const identity::LookupVerdict>)>;
  // key: table->key_of(lookup_identity(*source), credential).
  void ask(std::shared_ptr<const identity::LookupSource> source, std::shared_ptr<identity::LookupTable> table,
           const identity::SessionKey& key, std::string credential, UnixTime now, Done done);

  const Counters& counters() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::net
