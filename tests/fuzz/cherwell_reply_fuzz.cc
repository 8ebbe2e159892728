// What is read in replies of the Cherwell REST API about whose records are. Whatever comes, a record that is named has an
// object and an id, and as many names as are asked for at most.
#include <cstdint>
#include <string_view>

#include "metering/base/check.h"
#include "metering/catalogue/cherwell_reply.h"

using namespace tollgate;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string fields[] = {"CustomerRecID"};
  const auto owners = catalogue::read_cherwell_owners(bytes, fields, 3);
  CHECK(owners.size() <= 4, "no more than asked for, beside the reply itself");
  const auto named = [](const std::vector<std::string>& names) {
    CHECK(names.size() == 1 || names.size() == 3, "one id, or two and both");
    for (const std::string& name : names) {
      CHECK(name.find('/') != std::string::npos && name.front() != '/', "a record has an object");
      for (char c : name) CHECK(c < 'A' || c > 'Z', "names compare in lower case");
    }
  };
  for (const auto& seen : owners) named(seen.records);
  if (const auto names = catalogue::read_cherwell_created(bytes, "6dd5"); !names.empty()) named(names);
  return 0;
}
