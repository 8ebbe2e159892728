// From a loaded configuration to what the workers run on: key rings, licence rules, user directory, snapshot.
// Used at start and at every reload; nothing that runs is touched before everything of the new one is in place.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "config/load/load.h"
#include "metering/base/error.h"
#include "metering/billing/absorber.h"
#include "metering/journal/journal.h"
#include "metering/redis/connection.h"
#include "proxy/flow/snapshot.h"
#include "proxy/net/creatio_conversation.h"
#include "proxy/net/key_set_fetcher.h"
#include "proxy/net/owner_fetcher.h"

namespace tollgate::cli {

struct Assembled {
  std::shared_ptr<const flow::Snapshot> snapshot;
  std::unique_ptr<net::KeySetFetcher> keys;  // keeps the snapshot's key rings fresh; must outlive its use
  // The snapshot's too; nullptr: nobody is asked. Must be stopped before the workers end, which it tells.
  std::shared_ptr<net::OwnerFetcher> owner_fetcher = nullptr;
  void stop() {
    if (owner_fetcher != nullptr) owner_fetcher->stop();
  }
};

// The licence rules named by licensing.system, with the operator's own settings applied.
Result<licence::Rulebook> load_rulebook(const config::LoadedConfig& loaded);
// Who is asked whose a token, or a session, is; nullptr: nobody.
std::shared_ptr<const identity::LookupSource> token_lookup(const config::LoadedConfig& loaded);
std::shared_ptr<const identity::LookupSource> session_lookup(const config::LoadedConfig& loaded);

// A service account of Creatio, with its secrets.
net::CreatioAccess creatio_access(const config::LoadedConfig& loaded, const config::CreatioAccess& wanted);
// Who is asked whose a record is.
struct OwnerLookup {
  std::string name{};                          // of the setting
  std::unique_ptr<net::OwnerSource> source{};  // nullptr: nobody
  Milliseconds timeout{};
};
OwnerLookup owner_lookup(const config::LoadedConfig& loaded, const licence::Rulebook& rulebook,
                         std::shared_ptr<licence::OwnerTable> owners);

using CrmUsers = identity::Directory::CrmUsers;
// The users of licensing.directory_file and of the CRM; nullptr when there are neither.
// crm: as identity.directory.sync last read them; nullptr: it did not.
Result<std::shared_ptr<const identity::Directory>> load_directory(const config::LoadedConfig& loaded,
                                                                  std::shared_ptr<const CrmUsers> crm);
// What runs now, with other users of the CRM: the next generation of the same configuration. The files are those that
// were loaded with it. Milliseconds; not on a worker.
Result<std::shared_ptr<const flow::Snapshot>> with_crm_users(const config::LoadedConfig& loaded,
                                                             const flow::Snapshot& now,
                                                             std::shared_ptr<const CrmUsers> crm);

// previous: what runs now, or nullptr. Key sets of URLs that it already fetched are taken over, so that a reload while
// the identity provider is away refuses nobody. Errors (origin config) say which setting and what to do.
Result<Assembled> assemble(const config::LoadedConfig& loaded, std::uint64_t generation,
                           const flow::Snapshot* previous, std::shared_ptr<const CrmUsers> crm,
                           net::KeySetFetcher::Log log);

// How to reach the store. embedded: URLs are an error here: the caller starts the child and passes its address.
Result<redis::ConnectionOptions> store_connection(const config::Store& store, const redis::StoreUrl& url,
                                                  const config::LoadedConfig& loaded);

using Log = std::function<void(std::string_view level, std::string_view text)>;

journal::JournalOptions journal_options(const config::Journal& settings, unsigned workers, Log log);
// The roll-ups of a journal go into usage.sqlite beside it.
billing::AbsorberOptions absorber_options(const std::string& directory, journal::Journal& journal, Log log);

// Does the server keep the promises (eviction, persistence, replicas)? What is wrong is logged with what to change; with
// store.strict it is an error, and so is a server that cannot be reached.
Result<void> check_store_settings(const config::Store& settings, const redis::ConnectionOptions& connection,
                                  const Log& log);

}  // namespace tollgate::cli
