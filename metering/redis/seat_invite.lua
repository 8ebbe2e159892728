-- Gives seats to members who are about to be invited, to all of them or to none. The twin of SeatModel::invite.
-- KEYS  .., ...:invites
-- ARGV  .. capacity, id of the invitation, then the members, each once
-- Reply 1 (there is no room) or 0, members that had no seat, used
local invites, capacity, id = KEYS[4], tonumber(ARGV[4]), ARGV[5] .. ','
local used, new = call('ZCARD', seats), 0
for i = 6, #ARGV do
  if not call('ZSCORE', seats, ARGV[i]) then new = new + 1 end
end
if new > 0 and used + new > capacity then return {1, 0, used} end
for i = 6, #ARGV do
  local member = ARGV[i]
  if call('ZADD', seats, 'NX', now, member) == 1 then
    call('HSET', invites, member, id)
    call('ZREM', gone, member)
  else
    local under_way = call('HGET', invites, member)
    if under_way and not string.find(under_way, id, 1, true) then call('HSET', invites, member, under_way .. id) end
  end
end
return {0, new, used + new}
