#include "metering/redis/scripts.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

#include "embedded_account.h"
#include "embedded_accounts.h"
#include "embedded_clock.h"
#include "embedded_op.h"
#include "embedded_ping.h"
#include "embedded_replay.h"
#include "embedded_reset.h"
#include "embedded_seat_invite.h"
#include "embedded_seat_leave.h"
#include "embedded_seat_list.h"
#include "embedded_seat_release.h"
#include "embedded_seat_renew.h"
#include "embedded_seat_settle.h"
#include "embedded_seat_take.h"
#include "embedded_seats.h"
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

Scripts assemble(std::string_view clock) {
  auto accounts = [&](std::string_view body) {
    return Script(fmt::format("{}{}{}", clock, embedded::k_account, body));
  };
  auto seats = [&](std::string_view body) {
    return Script(fmt::format("{}{}{}", clock, embedded::k_seats, body));
  };
  return {.op = accounts(embedded::k_op),
          .replay = accounts(embedded::k_replay),
          .ping = Script(fmt::format("{}{}", clock, embedded::k_ping)),
          .states = accounts(embedded::k_states),
          .accounts = accounts(embedded::k_accounts),
          .set_override = accounts(embedded::k_set_override),
          .reset = accounts(embedded::k_reset),
          .seat_take = seats(embedded::k_seat_take),
          .seat_renew = seats(embedded::k_seat_renew),
          .seat_release = seats(embedded::k_seat_release),
          .seat_leave = seats(embedded::k_seat_leave),
          .seat_list = seats(embedded::k_seat_list),
          .seat_invite = seats(embedded::k_seat_invite),
          .seat_settle = seats(embedded::k_seat_settle)};
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
  return assemble(embedded::k_clock);
}

Scripts Scripts::with_clock(std::string_view lua) {
  return assemble(replace_clock(embedded::k_clock, lua));
}

}  // namespace tollgate::redis
