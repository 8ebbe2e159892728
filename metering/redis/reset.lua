-- Forgets what was counted in accounts of one subject and tells all proxies. Leases stay charged until they are settled;
-- overrides stay.
-- KEYS  subject, h:{p}, o:{p}
-- ARGV  fields
-- Reply 1
local subject = KEYS[1]
local records = {}
for i, field in ipairs(ARGV) do
  local record, why = decode(call('HGET', subject, field), nil)
  if not record then return unreadable(subject, field, 'record', why) end
  start_at(record, 0)
  records[i] = encode(record) or false
end
for i, field in ipairs(ARGV) do
  if records[i] then
    call('HSET', subject, field, records[i])
  else
    call('HDEL', subject, field)
  end
  call('PUBLISH', 'q:policy', subject .. ' ' .. field)
end
return 1
