// What a reply about one record says of its owner.
#include "metering/base/check.h"
#include "metering/base/guid.h"
#include "metering/catalogue/creatio_record.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace tollgate;
  const std::string_view body{reinterpret_cast<const char*>(bytes), size};
  const auto owner = catalogue::read_creatio_owner(body, "PartnerId");
  CHECK(!owner || owner->empty() || read_guid(*owner) == *owner, "an owner is an id in its one spelling");
  return 0;
}
