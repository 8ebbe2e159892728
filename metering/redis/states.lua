-- What accounts of one subject look like now. Writes nothing.
-- KEYS  subject, h:{p}, o:{p}
-- ARGV  per account: field, limit ('-' none), window ms, bucket ms
-- Reply per account the nine of append_state, as somebody sees it who holds nothing
local subject, partition = KEYS[1], KEYS[2]
local now = max(now_ms(), tonumber(call('HGET', partition, 't') or 0))
local reply = {}
for at = 1, #ARGV, 4 do
  local field, shape = ARGV[at], make_shape(tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]))
  local override = call('HGET', KEYS[3], subject .. ' ' .. field)
  local limit = effective_limit(override, ARGV[at + 1], now)
  if not limit then return unreadable(subject, field, 'override', override) end
  local record, why = decode(call('HGET', subject, field), shape.bucket)
  if not record then return unreadable(subject, field, 'record', why) end
  prune(record, shape, now, partition)
  append_state(reply, record, shape, limit, 0, 0, 0, false)
end
return reply
