-- What became of an invitation, and who is no member any more. The twin of SeatModel::settle.
-- KEYS  .., ...:invites
-- ARGV  .. id of the invitation; then per member: m (is one), f (was refused) or r (was removed), member
-- Reply used
local invites, id = KEYS[4], ARGV[4] .. ','
for i = 5, #ARGV, 2 do
  local outcome, member = ARGV[i], ARGV[i + 1]
  if outcome == 'f' then
    local under_way = call('HGET', invites, member)
    local first, last = string.find(under_way or '', id, 1, true)
    if first then
      local rest = string.sub(under_way, 1, first - 1) .. string.sub(under_way, last + 1)
      if rest == '' then
        call('HDEL', invites, member)
        call('ZREM', seats, member)
      else
        call('HSET', invites, member, rest)
      end
    end
  else
    call('HDEL', invites, member)
    if outcome == 'r' then
      call('ZREM', seats, member)
    else
      call('ZADD', seats, 'NX', now, member)
      call('ZREM', gone, member)
    end
  end
end
return {call('ZCARD', seats)}
