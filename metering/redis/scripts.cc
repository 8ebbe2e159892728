#include "metering/redis/scripts.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

#include "embedded_account.h"
#include "embedded_accounts.h"
#include "embedded_charge.h"
#include "embedded_clock.h"
#include "embedded_give_back.h"
#include "embedded_list.h"
#include "embedded_op.h"
#include "embedded_ping.h"
#include "embedded_read.h"
#include "embedded_record.h"
#include "embedded_replay.h"
#include "embedded_reset.h"
#include "embedded_set_override.h"
#include "embedded_states.h"
#include "metering/base/check.h"

namespace tollgate::redis {
namespace {

constexpr std::string_view kClockHead = "local function now_ms()\n";
constexpr std::string_view kClockTail = "\nend\n";

std::string sha1_hex(std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned length = 0;
  int done = EVP_Digest(text.data(), text.size(), digest.data(), &length, EVP_sha1(), nullptr);
  CHECK(done == 1, "SHA-1");
  std::string out;
  for (unsigned i = 0; i < length; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

Scripts assemble(std::string_view clock, std::string_view record) {
  auto charges = [&](std::string_view body) { return Script(fmt::format("{}{}", record, body)); };
  auto leases = [&](std::string_view body) {
    return Script(fmt::format("{}{}{}", clock, embedded::k_account, body));
  };
  return {.op = leases(embedded::k_op),
          .replay = leases(embedded::k_replay),
          .ping = Script(fmt::format("{}{}", clock, embedded::k_ping)),
          .states = leases(embedded::k_states),
          .accounts = leases(embedded::k_accounts),
          .set_override = leases(embedded::k_set_override),
          .reset = leases(embedded::k_reset),
          .charge = charges(embedded::k_charge),
          .give_back = charges(embedded::k_give_back),
          .read = charges(embedded::k_read),
          .list = charges(embedded::k_list)};
}

std::string replace_clock(std::string_view text, std::string_view lua) {
  std::string out(text);
  const std::size_t head = out.find(kClockHead);
  CHECK(head != std::string::npos, "no now_ms()");
  const std::size_t begin = head + kClockHead.size();
  out.replace(begin, out.find(kClockTail, begin) - begin, lua);
  return out;
}

}  // namespace

Script::Script(std::string script_text) : text(std::move(script_text)), sha1(sha1_hex(text)) {}

Scripts Scripts::standard() {
  return assemble(embedded::k_clock, embedded::k_record);
}

Scripts Scripts::with_clock(std::string_view lua) {
  return assemble(replace_clock(embedded::k_clock, lua), replace_clock(embedded::k_record, lua));
}

}  // namespace tollgate::redis
