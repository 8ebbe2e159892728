// EDGE: asks Cherwell who the requester of a record is, with a service account.
//
//   GET {url}/api/V1/getbusinessobject/busobid/{}/busobrecid/{}    the requester goes into the table of owners
//   POST {url}/token                                               before the first, and when the token is not taken any more
//
// Threads: as OwnerSource.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "metering/licence/owners.h"
#include "proxy/net/http_transfer.h"
#include "proxy/net/owner_fetcher.h"

namespace tollgate::net {

struct CherwellAccess {
  std::string url;      // "https://crm.example/CherwellAPI"
  std::string ca_file;  // PEM bundle; "" is the system's store
  std::string user, password, client_id, auth_mode;
};

class CherwellOwners final : public OwnerSource {
 public:
  // owner_fields: names or ids of the fields that hold a requester.
  CherwellOwners(CherwellAccess access, std::vector<std::string> owner_fields,
                 std::shared_ptr<licence::OwnerTable> owners);

  const std::string& url() const override { return access_.url; }
  Answer<void> look_up(const std::string& upstream, const std::string& record,
                       MonotonicTime deadline) override;
  Answer<std::string> examine(MonotonicTime deadline) override;  // logs in

 private:
  Answer<HttpReply> ask(std::string url, std::optional<std::string> form, MonotonicTime deadline);
  Answer<void> log_in(MonotonicTime deadline);
  Answer<HttpReply> get(const std::string& url, MonotonicTime deadline);

  const CherwellAccess access_;
  const std::vector<std::string> owner_fields_;
  const std::shared_ptr<licence::OwnerTable> owners_;
  HttpTransfer transfer_;
  std::string token_;  // "": none
};

}  // namespace tollgate::net
