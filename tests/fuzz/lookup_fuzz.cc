// What others answer when they are asked whose a credential is, and the credential on its way into the question. Whatever
// comes: nobody gets a user without a name, no verdict outlives its time, and a credential stays inside its field.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "metering/base/check.h"
#include "metering/identity/lookup.h"

using namespace tollgate;
using identity::LookupSource;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const UnixTime now = from_unix_seconds(1'795'000'000);
  for (int kind = 0; kind < 3; ++kind) {
    LookupSource source;
    source.active = kind == 0;
    source.at = kind == 1 ? "/users/0" : "";
    source.place = kind == 0 ? LookupSource::Place::form : LookupSource::Place::header;
    source.field = kind == 0 ? "token" : "Cookie";
    source.unauthorized_is_nobody = kind != 0;
    source.rules.require_expiry = false;
    source.rules.user_claim = kind == 1 ? "email" : "sub";
    for (int status : {200, 401}) {
      const auto verdict = identity::read_lookup(source, status, bytes, now);
      if (!verdict) continue;
      CHECK(verdict->until <= now + source.max_age, "a verdict ends");
      if (verdict->user == nullptr) continue;
      CHECK(status == 200 && !verdict->user->principal.user.empty(), "a user has a name");
      CHECK(verdict->until > now && verdict->user->expires_at == verdict->until, "the user ends with it");
    }
    const auto request = identity::lookup_request(source, bytes);
    if (!request) continue;
    CHECK(request->body.find_first_of("\r\n \"<") == std::string::npos, "a form has no such characters");
    CHECK(std::count(request->body.begin(), request->body.end(), '&') == 0, "one parameter stays one");
    for (const std::string& line : request->headers)
      CHECK(line.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos, "a line stays one");
  }
  return 0;
}
