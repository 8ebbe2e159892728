-- Gives the member a seat, or says until when there is none. The twin of SeatModel::take.
-- ARGV  .. capacity, idle ms, member
-- Reply status (0 taken, 1 held, 2 full, 3 fenced), ms left (-1: no end), used, born
local capacity, idle, member = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local used, held = call('ZCARD', seats), call('ZSCORE', seats, member)
if held then
  if not concurrent then return {1, -1, used, born} end
  local till = math.max(tonumber(held), now + idle)
  call('ZADD', seats, till, member)
  return {1, till - now, used, born}
end
if fence > 0 then return {3, fence, used, born} end
if used >= capacity then
  local first = concurrent and call('ZRANGE', seats, 0, 0, 'WITHSCORES') or {}
  return {2, first[2] and tonumber(first[2]) - now or -1, used, born}
end
call('ZADD', seats, concurrent and now + idle or now, member)
call('ZREM', gone, member)
return {0, concurrent and idle or -1, used + 1, born}
