// Who the users are, as file and CRM list them: JSON out. Pure.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "metering/identity/directory.h"
#include "proxy/admin/service.h"

namespace tollgate::admin {

// {"file": {"users": 3}, "crm": {"users": 120, ...}}; directory may be nullptr.
std::string directory_json(const identity::Directory* directory,
                           const std::optional<Sources::UserSync>& sync);
// {"user": .., "file": {..}, "crm": {..}, "counts": {..}, "from": {"organization": "crm", ..}}; nullopt:
// neither lists him.
std::optional<std::string> directory_user_json(const identity::Directory* directory, std::string_view user);

}  // namespace tollgate::admin
