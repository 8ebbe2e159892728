// Members that a request adds to a portal or takes from it (Kind::seat), and what its reply says became of them.
// Zoho CRM alone has such requests (github zoho/crm-oas v8.0/portal_invite.json and portal_users.json; "Change User's Status"
// and "Delete User from the Portal" in the vendor's API guide v8):
//
//   POST /{module}/{record}/actions/portal_invite?user_type_id=..&type=invite|reinvite            adds the record
//   POST /{module}/actions/portal_invite  {"portal_invite":[{"data":[{"id","user_type_id"}]}]}     adds them all, as a job
//   PUT  /settings/portals/{portal}/user_type/{type}/users/{record}/actions/change_status?active=  true adds, false removes
//   DELETE /settings/portals/{portal}/user_type/{type}/users?personality_ids=a,b                   removes them
//
// A member is the record behind the user (the vendor's personality id), whatever module it is of. A reinvite counts as an
// addition: of whom the store of seats knows nothing, or it changes nothing.
// Pure.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tollgate::catalogue {

struct PortalChange {
  enum class Way : std::uint8_t { add, remove } way = Way::add;
  std::vector<std::string> members;  // each once: decimal ids without leading zeros
  std::vector<std::string>
      user_types;  // add: ids of the user types that they are to be of; "" among them: not said
};

// What became of one member, as the reply says.
enum class PortalOutcome : std::uint8_t {
  done,     // is a member now; removed: is none any more
  refused,  // surely nothing has changed
  unknown,  // the CRM failed, or its reply cannot be read, or says nothing of this member
};

// One outcome a member, in their order. body: the whole body, decoded; "" when it was not read.
//   4xx: refused. 2xx: by the reply's entries, "status" success or error, which name a record ("id", "personality_id") or
//   stand for all. An addition that was only scheduled ("SCHEDULED") is done: what the job refuses later is not seen here.
//   A scheduled removal is unknown. All else is unknown.
std::vector<PortalOutcome> read_portal_reply(const PortalChange& change, int status, std::string_view body);

}  // namespace tollgate::catalogue
