-- Who holds seats. The twin of SeatModel::list.
-- ARGV  .. offset, count, member ('': nobody)
-- Reply now, used, time of the member's seat (-1: none); then per seat: member, time
local offset, count = tonumber(ARGV[4]), tonumber(ARGV[5])
local reply = {now, call('ZCARD', seats), tonumber(call('ZSCORE', seats, ARGV[6]) or -1)}
if count > 0 then
  local page = call('ZRANGE', seats, offset, offset + count - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    reply[#reply + 1] = page[i]
    reply[#reply + 1] = tonumber(page[i + 1])
  end
end
return reply
