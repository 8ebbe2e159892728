// Tables that operators write: the directory of users and the file of API keys. Whatever comes is read or refused with
// a line number, and nobody without a name comes out of it.
#include <cstdint>
#include <string_view>

#include "metering/base/check.h"
#include "metering/identity/api_keys.h"
#include "metering/identity/directory.h"

using namespace tollgate;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto directory = identity::Directory::parse(bytes);
  if (!directory) CHECK(directory.error().message.starts_with("line "), "a mistake has a place");
  if (directory) CHECK(directory->find("") == nullptr, "nobody has no name");
  const auto keys =
      identity::ApiKeys::parse(bytes, "0123456789abcdef0123456789abcdef", directory ? &*directory : nullptr);
  if (!keys) {
    CHECK(keys.error().message.starts_with("line "), "a mistake has a place");
    return 0;
  }
  // The hash of this very key is in the corpus.
  if (const auto found = keys->find("another-key-of-long-standing", UnixTime::min()))
    CHECK(!(*found)->principal.user.empty(), "nobody has no name");
  CHECK(!keys->find(bytes, UnixTime::min()), "a file of hashes is no key");
  return 0;
}
