-- What every command on seats does first; in front of each seat_*.lua, behind clock.lua. The twin of SeatModel::begin; the
-- rules are in metering/seats/model.h.
-- KEYS  seats, ...:gone, ...:about (metering/seats/pool.h)
-- ARGV  kind: n or c, run id of this server, lease ms; then what the script's own head says
local call = redis.call
local seats, gone, about = KEYS[1], KEYS[2], KEYS[3]
local concurrent, run, lease = ARGV[1] == 'c', ARGV[2], tonumber(ARGV[3])
local now = now_ms()
local stored = call('HMGET', about, 'born', 'run', 'fence', 'fence_at')
local born = tonumber(stored[1] or now)
if not stored[1] then call('HSET', about, 'born', now) end
local fence = 0
if concurrent then
  call('ZREMRANGEBYSCORE', seats, '-inf', now)
  if stored[2] ~= run then
    local at = tonumber(stored[4] or 0)
    if stored[3] ~= run or at > now then
      at = now
      call('HSET', about, 'fence', run, 'fence_at', at)
    end
    fence = math.max(0, at + lease - now)
    if fence == 0 then
      call('HSET', about, 'run', run)
      call('HDEL', about, 'fence', 'fence_at')
    end
  end
end
