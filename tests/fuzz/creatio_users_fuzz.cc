// What a CRM answers when it is asked who its users are, and the copy that is kept of it. Whatever comes, pages end, names
// are names, texts are bounded, and the next address stays at the CRM that was asked.
#include <cstdint>
#include <string_view>

#include "metering/base/check.h"
#include "metering/identity/creatio_users.h"
#include "metering/identity/session.h"

using namespace tollgate;
using identity::CreatioUserReader;

namespace {

// The input is several replies with a line feed between them.
void read(std::string_view replies) {
  constexpr std::string_view kRoot = "https://crm.example/0";
  CreatioUserReader reader({}, std::string(kRoot), {.page_rows = 2, .rows_max = 100});
  for (std::size_t pages = 0; !reader.next().empty(); ++pages) {
    CHECK(pages <= 110, "pages end");
    CHECK(reader.next().starts_with("https://crm.example/0/odata/Sys"), "it is the same CRM");
    CHECK(reader.next().find_first_of(std::string_view("\r\n \0", 4)) == std::string::npos,
          "an address is one word");
    const std::size_t end = std::min(replies.find('\n'), replies.size());
    if (!reader.take(replies.substr(0, end))) return;
    replies.remove_prefix(std::min(end + 1, replies.size()));
  }
  const auto users = reader.finish();
  if (!users) return;
  CHECK(!users->users.empty(), "no list is empty");
  for (const auto& [name, entry] : users->users) {
    CHECK(identity::session_user(name) == name, "a name is a name");
    CHECK(entry.organization.size() <= CreatioUserReader::kTextMax && entry.active.has_value(),
          "texts are bounded");
  }
  const auto back = identity::read_crm_users(identity::write_crm_users(users->users, kRoot), kRoot);
  CHECK(back && back->size() == users->users.size(), "the copy reads back");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  read(bytes);
  if (const auto copy = identity::read_crm_users(bytes, "x"))
    for (const auto& [name, entry] : *copy) CHECK(identity::session_user(name) == name, "a name is a name");
  return 0;
}
