-- The only place of the lease scripts that reads a clock: the server's own, in ms since 1970.
-- This text is put in front of each of them.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
-- What time it is, as far as that is known: where the server's clock and the sender's estimate of it (0: it knows none)
-- are further apart than the guard, one of them has jumped, and the earlier one frees nothing too early.
local function believed(clock, sender)
  if sender == 0 or math.abs(clock - sender) <= 2000 then return clock end
  return math.min(clock, sender)
end
-- Nothing is lent while clocks disagree: the sender's and the server's, or the server's and what it said before.
local function clock_off(clock, newest, sender)
  return math.abs(clock - sender) > 2000 or newest - clock > 2000
end
