#include "metering/redis/scripts.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

#include "embedded_charge.h"
#include "embedded_give_back.h"
#include "embedded_list.h"
#include "embedded_read.h"
#include "embedded_record.h"
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

Scripts with_record(std::string_view record) {
  auto join = [&](std::string_view body) { return Script(fmt::format("{}{}", record, body)); };
  return {.charge = join(embedded::k_charge),
          .give_back = join(embedded::k_give_back),
          .read = join(embedded::k_read),
          .list = join(embedded::k_list)};
}

}  // namespace

Script::Script(std::string script_text) : text(std::move(script_text)), sha1(sha1_hex(text)) {}

Scripts Scripts::standard() {
  return with_record(embedded::k_record);
}

Scripts Scripts::with_clock(std::string_view lua) {
  std::string record(embedded::k_record);
  std::size_t head = record.find(kClockHead);
  CHECK(head != std::string::npos, "record.lua has no now_ms()");
  std::size_t begin = head + kClockHead.size();
  record.replace(begin, record.find(kClockTail, begin) - begin, lua);
  return with_record(record);
}

}  // namespace tollgate::redis
