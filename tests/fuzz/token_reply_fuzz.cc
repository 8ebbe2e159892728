// What a token endpoint answers a client of its own account (RFC 6749 sections 5.1 and 5.2). Whatever comes: a token stays
// inside its field, no text of the server's but a known error is repeated, and a token is used no longer than it lives.
#include <cstdint>
#include <string_view>

#include "metering/base/check.h"
#include "metering/identity/client_credentials.h"

using namespace tollgate;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  for (const int status : {200, 400}) {
    const auto token = identity::read_access_token(status, body);
    if (!token) {
      CHECK(!token.error().empty() && token.error().size() < 100, "a clause that says why");
      continue;
    }
    CHECK(status == 200 && !token->text.empty(), "a token comes with 200");
    for (const char c : token->text) CHECK(c > ' ' && c < 0x7F && c != ',', "a token stays inside its field");
    const Milliseconds use = identity::use_of_token(token->lifetime);
    CHECK(use > Milliseconds(0) && (token->lifetime == Milliseconds(0) || use < token->lifetime),
          "a token is not used beyond its end");
  }
  return 0;
}
