-- Gives the member a seat, or says until when there is none. The twin of SeatModel::take.
-- KEYS  .., ...:clients
-- ARGV  .. capacity, idle ms, member, client ('': none)
-- Reply status (0 taken, 1 held, 2 full, 3 fenced), ms left (-1: no end), used, born
local clients = KEYS[4]
local capacity, idle, member, client = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
local used, held = call('ZCARD', seats), call('ZSCORE', seats, member)
-- Notes that the client holds the seat for `idle`; 32 of a member, the latest (SeatModel kClientsMax).
local function note(before)
  if client == '' or not concurrent then return end
  local kept, count = {}, 0
  for name, till in string.gmatch(before or '', '(%x+)=(%d+);') do
    if name ~= client and tonumber(till) > now then
      count = count + 1
      kept[count] = name .. '=' .. till .. ';'
    end
  end
  if count >= 32 then table.remove(kept, 1) end
  kept[#kept + 1] = client .. '=' .. string.format('%.0f', now + idle) .. ';'
  call('HSET', clients, member, table.concat(kept))
  if call('PTTL', clients) < idle then call('PEXPIRE', clients, idle) end
end
if held then
  if not concurrent then return {1, -1, used, born} end
  local till = math.max(tonumber(held), now + idle)
  call('ZADD', seats, till, member)
  if client ~= '' then note(call('HGET', clients, member)) end
  return {1, till - now, used, born}
end
if fence > 0 then return {3, fence, used, born} end
if used >= capacity then
  local first = concurrent and call('ZRANGE', seats, 0, 0, 'WITHSCORES') or {}
  return {2, first[2] and tonumber(first[2]) - now or -1, used, born}
end
call('ZADD', seats, concurrent and now + idle or now, member)
call('ZREM', gone, member)
call('HDEL', clients, member)
note()
return {0, concurrent and idle or -1, used + 1, born}
