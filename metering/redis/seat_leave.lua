-- Some clients of the member have logged out: his seat is free when no other client holds it. The twin of SeatModel::leave.
-- KEYS  .., ...:invites, ...:clients
-- ARGV  .. member, the clients
-- Reply 1: the seat is free, 0: it is not, or there was none
local member, ended = ARGV[4], {}
for i = 5, #ARGV do ended[ARGV[i]] = true end
local kept, last = '', 0
for name, till in string.gmatch(call('HGET', KEYS[5], member) or '', '(%x+)=(%d+);') do
  if not ended[name] and tonumber(till) > now then
    kept = kept .. name .. '=' .. till .. ';'
    last = math.max(last, tonumber(till))
  end
end
if last > 0 then
  call('HSET', KEYS[5], member, kept)
  local held = call('ZSCORE', seats, member)
  -- For a lease at least: so long proxies may believe in it.
  if held then call('ZADD', seats, math.min(tonumber(held), math.max(last, now + lease)), member) end
  return {0}
end
call('ZREMRANGEBYSCORE', gone, '-inf', now - 86400000)
call('ZADD', gone, now, member)
call('HDEL', KEYS[4], member)
call('HDEL', KEYS[5], member)
return {call('ZREM', seats, member)}
