// The scripts, as sent to Redis. They are part of the program; Redis keeps them only in its volatile script cache.
// Pure; the values are made once.
//
//   clock.lua + account.lua (the record)  in front of op.lua, replay.lua, states.lua, accounts.lua, set_override.lua
//                                         and reset.lua
//   clock.lua alone                       in front of ping.lua
//   clock.lua + seats.lua                 in front of seat_take.lua, seat_renew.lua, seat_release.lua, seat_list.lua,
//                                         seat_invite.lua and seat_settle.lua
//
// What they do is written in metering/quota/store_model.h, their twin in memory; script_messages.h speaks to them. For the
// scripts of seats that is metering/seats/model.h and redis_seats.h.
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
  Script seat_take, seat_renew, seat_release, seat_leave, seat_list, seat_invite, seat_settle;

  static Scripts standard();
  // For tests in virtual time: the body of now_ms(), the only function that reads a clock, is replaced by `lua`,
  // as in "return tonumber(redis.call('GET', 'clock'))".
  static Scripts with_clock(std::string_view lua);
};

}  // namespace tollgate::redis
