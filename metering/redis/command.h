// Commands in RESP form: arrays of bulk strings. Inside this room only.
//   std::string out; CommandWriter command(out, 3); command.word("SET"); command.word("k");
//   command.number(7);
#pragma once
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

namespace tollgate::redis {

class CommandWriter {
 public:
  CommandWriter(std::string& out, std::size_t words) : out_(out) { prefix('*', words); }

  void word(std::string_view text) {
    prefix('$', text.size());
    out_.append(text).append("\r\n", 2);
  }
  void number(std::int64_t value) {
    char digits[24];
    auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
    (void)error;  // 24 bytes hold every 64-bit number
    word(std::string_view(digits, static_cast<std::size_t>(end - digits)));
  }

 private:
  void prefix(char kind, std::size_t value) {
    char digits[24];
    digits[0] = kind;
    auto [end, error] = std::to_chars(digits + 1, digits + sizeof digits - 2, value);
    (void)error;
    *end++ = '\r';
    *end++ = '\n';
    out_.append(digits, static_cast<std::size_t>(end - digits));
  }
  std::string& out_;
};

}  // namespace tollgate::redis
