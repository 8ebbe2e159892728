// Bodies of a multipart $batch; the boundary is "b".
#include "tests/fuzz/catalogue_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace tollgate::catalogue;
  const HeaderField fields[] = {{"Content-Type", "multipart/mixed; boundary=b"}};
  for (std::string_view target : {"/0/odata/$batch", "/0/ServiceModel/EntityDataService.svc/$batch"})
    check_request(Request{"POST", target, fields, as_text(bytes, size)});
  return 0;
}
