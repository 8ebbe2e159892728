// EDGE: asks the CRM who its users are (identity/creatio_users.h), with a service account, again and again,
// on ONE background thread that no worker waits for.
//
//   GET  {url}/odata/SysAdminUnit?..., {url}/odata/SysLicUser?... page after page, in one conversation
//                                                                 (creatio_conversation.h)
//
//   DirectorySync sync(source, take, log);
//   sync.start(2s);          // waits so long for the first answer
//
// Rules:
//   - all or nothing: a sync that fails anywhere changes nothing; the next one is kRetry (or `interval`, if
//     that is shorter) after it
//   - a session or token is kept from one sync to the next
//   - bounds: `timeout` for each request, kSyncMax for all of one sync, kReplyMax bytes a reply, rows and
//     pages as CreatioLimits have them
//   - log: one line when users come for the first time, change in number or come again after a failure, one
//     when it begins to fail or fails for another reason; none holds a secret
//
// Threads: construct, start, stop and destroy on one thread; sync_now() and status() from any. take, log and
// the answers of sync_now() are called on the sync's own thread.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "metering/base/time.h"
#include "metering/identity/creatio_users.h"
#include "proxy/net/creatio_conversation.h"

namespace tollgate::net {

struct DirectorySource : CreatioAccess {
  Milliseconds interval{300'000};
  identity::CreatioNames names;
  identity::CreatioLimits limits;
  bool operator==(const DirectorySource&) const = default;
};

// Asks for the first page of users and of licences, for `tollgate doctor`: "120 rows of SysAdminUnit, 80 rows
// of SysLicUser". Blocks for at most three times source.timeout. SIGPIPE must be ignored or blocked.
std::expected<std::string, identity::SyncFailure> try_directory(const DirectorySource& source);

class DirectorySync {
 public:
  static constexpr Milliseconds kRetry{30'000};
  static constexpr Milliseconds kSyncMax{600'000};
  static constexpr std::size_t kReplyMax = 64 * 1024 * 1024;

  using Users = std::shared_ptr<const identity::Directory::CrmUsers>;
  // False: not now; asked again in a moment. Called with each good sync, whether or not anything has changed.
  using Take = std::function<bool(const Users& users)>;
  using Log = std::function<void(bool good, const std::string& line)>;
  using Done = std::function<void(std::expected<void, identity::SyncFailure>)>;

  struct Status {
    std::size_t users = 0, licenses = 0, left_out = 0;  // of the last good sync
    UnixTime last_success{}, last_failure{};            // 0: none
    std::uint64_t successes = 0;
    std::array<std::uint64_t, identity::SyncFailure::kKinds> failures{};
    std::string failure;  // why the last one failed; "" when it did not
  };

  DirectorySync(DirectorySource source, Take take, Log log);
  ~DirectorySync();  // stops
  DirectorySync(const DirectorySync&) = delete;
  DirectorySync& operator=(const DirectorySync&) = delete;

  void start(Milliseconds first_wait);
  // The next sync begins now, or when the one under way has ended. done: once, with its outcome; when stopped
  // before, with a failure.
  void sync_now(Done done);
  Status status() const;
  const DirectorySource& source() const;
  void stop();  // breaks off what is under way; may be called twice

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::net
