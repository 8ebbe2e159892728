-- A journalled op as a fact: counted, never refused, lends nothing. The twin of StoreModel::replay.
-- KEYS  subject, h:{p}, o:{p}
-- ARGV  run, sender's clock ms, session ttl ms, session expiry ms, incarnation, seq, base 0|1; then per account:
--       field, window ms, bucket ms, outstanding, n, n times: bucket, units
-- Reply as op.lua, without states
local subject, partition = KEYS[1], KEYS[2]
local ttl, session_end = tonumber(ARGV[3]), tonumber(ARGV[4])
local incarnation, seq = tonumber(ARGV[5]), tonumber(ARGV[6])

local known = call('HMGET', partition, ARGV[5], 'x' .. ARGV[5], 'run', 't', 'keep', 'fence')
local clock, hwm, expiry = now_ms(), tonumber(known[1] or 0), tonumber(known[2] or 0)
local newest = tonumber(known[4] or 0)
local told, now = max(clock, newest), max(believed(clock, tonumber(ARGV[2])), newest)
local flags = known[3] == ARGV[1] and 0 or 1
if clock_off(clock, newest, tonumber(ARGV[2])) then flags = flags + 2 end
if seq <= hwm then return {3, flags, hwm, told, expiry} end
if seq > hwm + 1 and ARGV[7] ~= '1' then return {4, flags, hwm, told, expiry} end

local fields, records, freed = {}, {}, {}
local needed, slack, keep, at = 0, 0, tonumber(known[5] or 0), 8
local keep_before = keep
while ARGV[at] do
  local field = ARGV[at]
  local shape = make_shape(tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]))
  local outstanding, uses = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local record, why = decode(call('HGET', subject, field), shape.bucket)
  if not record then return unreadable(subject, field, 'record', why) end
  prune(record, shape, now, partition)
  local gone = false
  for use = at + 5, at + 3 + 2 * uses, 2 do
    local number, units = tonumber(ARGV[use]), tonumber(ARGV[use + 1])
    if units < 0 then
      gone = remove_units(record, shape, now, number, -units) or gone
    else
      count_units(record, shape, now, number, units)
    end
  end
  if not set_lease(record, incarnation, outstanding, session_end) then
    count_units(record, shape, now, floor(now / shape.bucket), outstanding)
  end
  local time, spare = time_needed(record, shape, now, outstanding > 0 and session_end, ttl)
  needed, slack = max(needed, time), max(slack, spare)
  local counted = shape.window + shape.guard
  if counted > max(172800000, keep) then keep = counted end
  fields[#fields + 1], records[#records + 1] = field, encode(record) or false
  freed[#freed + 1] = gone
  at = at + 5 + 2 * uses
end

for i, field in ipairs(fields) do
  if records[i] then
    call('HSET', subject, field, records[i])
  else
    call('HDEL', subject, field)
  end
  if freed[i] then tell_room(subject, field) end
end
keep_alive(subject, needed, slack)
-- Alive now, so not to be forgotten; but its session is what it was.
expiry = max(expiry, session_end, now)
call('HSET', partition, ARGV[5], ARGV[6], 'x' .. ARGV[5], expiry, 't', now)
if keep > keep_before then call('HSET', partition, 'keep', keep) end
if flags % 2 == 1 and known[6] == ARGV[1] then call('HSET', partition, 'fence_at', now) end
return {0, flags, seq, told, expiry}
