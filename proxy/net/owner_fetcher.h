// EDGE: asks Cherwell whose a record is, with a service account, on ONE background thread.
//
//   GET {url}/api/V1/getbusinessobject/busobid/{}/busobrecid/{}    the requester goes into the table of owners
//   POST {url}/token                                               before the first, and when the token is not taken any more
//
// Rules:
//   - calls that ask for one record while it is asked for wait for the one answer
//   - a record that is not there, or shows no requester, is remembered as nobody's, as long as an owner is
//   - without an answer (time-out, refused, broken) nothing is learned, and nobody waits for a look-up for kPause
//   - who has waited for `timeout` is let go on before his own look-up; one that is under way ends after it
// So a call waits for twice `timeout` at most, and a CRM that is down costs a call in kPause that time.
//
// Threads: construct, stop and destroy on one thread; find() from any.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metering/base/time.h"
#include "metering/licence/owners.h"
#include "proxy/flow/owner_lookup.h"

namespace tollgate::net {

struct OwnerSource {
  std::string url;      // "https://crm.example/CherwellAPI"
  std::string ca_file;  // PEM bundle; "" is the system's store
  std::string user, password, client_id, auth_mode;
  Milliseconds timeout{500};
  std::vector<std::string> owner_fields;
  std::shared_ptr<licence::OwnerTable> owners;
};

class OwnerFetcher final : public flow::OwnerLookup {
 public:
  static constexpr Milliseconds kPause{1'000};
  static constexpr std::size_t kWaitingMax = 10'000;  // records asked for at a time; more are not looked up

  // log: on the fetching thread; one line a pause at most, without secrets.
  OwnerFetcher(OwnerSource source, std::function<void(const std::string& line)> log);
  ~OwnerFetcher() override;  // stops
  void find(const std::string& upstream, const std::string& record, std::function<void()> done) override;
  // Breaks off what is under way; who waits is let go on. May be called twice.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tollgate::net
