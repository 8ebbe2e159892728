// Replies about members of a portal. Whatever comes: one outcome a member, and nobody is taken for removed or refused whom the
// reply, read by its status alone, does not speak of.
#include <cstdint>
#include <string_view>

#include "metering/base/check.h"
#include "metering/catalogue/portal_change.h"

using namespace tollgate::catalogue;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  for (auto way : {PortalChange::Way::add, PortalChange::Way::remove}) {
    const PortalChange change{.way = way, .members = {"1", "22", "333"}, .user_types = {}};
    for (int status : {0, 200, 302, 404, 503}) {
      const auto outcomes = read_portal_reply(change, status, body);
      CHECK(outcomes.size() == 3, "one a member");
      for (std::size_t i = 0; i < outcomes.size(); ++i) {
        if (status == 404) CHECK(outcomes[i] == PortalOutcome::refused, "4xx changes nothing");
        if (status != 200 && status != 404) CHECK(outcomes[i] == PortalOutcome::unknown, "nothing is known");
        if (way == PortalChange::Way::remove && outcomes[i] == PortalOutcome::done)
          CHECK(body.find(change.members[i]) != body.npos || body.find('\\') != body.npos,
                "who is removed is named");
      }
    }
  }
  return 0;
}
