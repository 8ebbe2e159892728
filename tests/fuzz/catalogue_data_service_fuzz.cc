// Bodies of DataService queries, configuration services and COQL.
#include "tests/fuzz/catalogue_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace tollgate::catalogue;
  const HeaderField fields[] = {{"Content-Type", "application/json"}};
  for (std::string_view target :
       {"/0/DataService/json/SyncReply/SelectQuery", "/0/DataService/json/SyncReply/BatchQuery",
        "/0/rest/ReportService/GetExportToExcelKey", "/0/rest/MessagePublisherService/Publish",
        "/crm/v8/coql"})
    check_request(Request{"POST", target, fields, as_text(bytes, size)});
  return 0;
}
