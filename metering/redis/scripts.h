// The scripts, as sent to Redis. They are part of the program; Redis keeps them only in its volatile script cache.
// Pure; the values are made once.
//
//   leases   clock.lua + account.lua (the record) in front of op.lua, replay.lua, states.lua, accounts.lua,
//            set_override.lua and reset.lua; clock.lua alone in front of ping.lua. script_messages.h speaks to them.
//   charges  record.lua in front of charge.lua, give_back.lua, read.lua and list.lua (redis_ledger.h). They know no
//            leases and refuse a record that holds any.
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
  Script op, replay, ping;     // the lease protocol
  Script states, accounts;     // reads
  Script set_override, reset;  // changes by administrators
  Script charge, give_back, read, list;

  static Scripts standard();
  // For tests in virtual time: the body of now_ms(), the only function that reads a clock, is replaced by `lua`,
  // as in "return tonumber(redis.call('GET', 'clock'))".
  static Scripts with_clock(std::string_view lua);
};

}  // namespace tollgate::redis
