// EDGE: asks Creatio which account a record belongs to, with a service account (creatio_conversation.h).
//
//   GET {url}/odata/Partnership(5f3e..)?$select=Id,PartnerId    the account goes into the table of owners; 404: nobody's
//
// Source of the address: academy.creatio.com, "OData": a record by its key, columns by $select.
//
// Threads: as OwnerSource.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "metering/licence/owners.h"
#include "proxy/net/creatio_conversation.h"
#include "proxy/net/owner_fetcher.h"

namespace tollgate::net {

class CreatioOwners final : public OwnerSource {
 public:
  using Columns =
      std::map<std::string, std::string>;  // entity -> column of the account: Partnership -> PartnerId

  CreatioOwners(CreatioAccess access, Columns columns, std::shared_ptr<licence::OwnerTable> owners);

  const std::string& url() const override { return access_.url; }
  // record: as catalogue/creatio_record.h names those with an id.
  Answer<void> look_up(const std::string& upstream, const std::string& record,
                       MonotonicTime deadline) override;
  Answer<std::string> examine(MonotonicTime deadline) override;  // reads one row of each entity

 private:
  const CreatioAccess access_;
  const Columns columns_;
  const std::shared_ptr<licence::OwnerTable> owners_;
  CreatioConversation conversation_;
};

}  // namespace tollgate::net
