// Bodies of JSON batches: OData, Zoho composite and invitations to a portal, Cherwell.
#include "tests/fuzz/catalogue_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace tollgate::catalogue;
  const HeaderField fields[] = {{"Content-Type", "application/json"}};
  for (std::string_view target :
       {"/0/odata/$batch", "/crm/v8/__composite_requests", "/crm/v8/Contacts/actions/portal_invite",
        "/cherwellapi/api/V1/savebusinessobjectbatch"})
    check_request(Request{"POST", target, fields, as_text(bytes, size)});
  return 0;
}
