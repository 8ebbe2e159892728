// The Date field: IMF-fixdate (RFC 9110 section 5.6.7).
#pragma once
#include <string>

#include "metering/base/time.h"

namespace tollgate::http {

// "Sun, 06 Nov 1994 08:49:37 GMT": always 29 bytes, rounded down to the second. Years 0 to 9999 (CHECKed).
// Format once a second, not once a reply.
std::string format_date(UnixTime time);

}  // namespace tollgate::http
