-- Keeps seats for those who are active. The twin of SeatModel::renew.
-- ARGV  .. then per member: member, ms from now that the seat is wanted for
-- Reply used, born, fence ms; then per member: ms left (0: not the member's any more, -1: no end)
local reply = {0, born, fence}
for i = 4, #ARGV, 2 do
  local member, wanted = ARGV[i], tonumber(ARGV[i + 1])
  local held = tonumber(call('ZSCORE', seats, member) or nil)
  if not held and (not concurrent or (fence > 0 and wanted > 0)) and not call('ZSCORE', gone, member) then
    held = concurrent and 0 or now
    if not concurrent then call('ZADD', seats, now, member) end
  end
  if not held then
    reply[#reply + 1] = 0
  elseif concurrent then
    local till = math.max(held, now + wanted)
    call('ZADD', seats, till, member)
    reply[#reply + 1] = till - now
  else
    reply[#reply + 1] = -1
  end
end
reply[1] = call('ZCARD', seats)
return reply
