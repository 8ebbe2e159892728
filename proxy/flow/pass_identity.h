// Who was found to call, told to the upstream (identity.pass): as fields, or as one token that it can check.
//
//   plain   X-Tollgate-User: ann%40example.com          token   X-Tollgate-Identity: eyJhbGciOiJIUzI1NiIs...
//           X-Tollgate-Organization: Best Ltd                   {"iss":"tollgate","aud":"crm","sub":"ann@example.com",
//           X-Tollgate-User-Type: portal                         "org":"Best Ltd","user_type":"portal","iat":..,"exp":..}
//
// What is not known is left out. aud is the upstream's name in the settings, so that one upstream cannot use it at
// another. Whatever the client sent in these fields was dropped (Snapshot::edits, Snapshot::identity_headers).
#pragma once
#include <string>

#include "proxy/flow/snapshot.h"

namespace tollgate::flow {

// Adds complete field lines; none with as: none. Cost of a token: 3 us.
void append_identity(std::string& lines, const Snapshot& snapshot, const identity::Principal& principal,
                     std::string_view upstream, UnixTime now);

}  // namespace tollgate::flow
