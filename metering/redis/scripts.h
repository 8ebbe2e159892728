// The scripts of the ledger, as sent to Redis: record.lua (the arithmetic) in front of each of charge.lua,
// give_back.lua, read.lua and list.lua. They are part of the program; Redis keeps them only in its volatile
// script cache. Pure; the values are made once.
#pragma once
#include <string>
#include <string_view>

namespace tollgate::redis {

struct Script {
  std::string text;
  std::string sha1;  // hexadecimal, what EVALSHA names it by

  explicit Script(std::string script_text);
};

struct Scripts {
  Script charge, give_back, read, list;

  static Scripts standard();
  // For tests in virtual time: the body of now_ms(), the only place that reads a clock, is replaced by `lua`,
  // as in "return tonumber(redis.call('GET', 'clock'))".
  static Scripts with_clock(std::string_view lua);
};

}  // namespace tollgate::redis
