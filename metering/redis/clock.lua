-- The only place of the lease scripts that reads a clock: the server's own, in ms since 1970.
-- This text is put in front of each of them.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
