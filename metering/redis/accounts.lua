-- The accounts of one subject whose field starts with a prefix and in which anything is counted. Writes nothing.
-- KEYS  subject, h:{p}, o:{p}
-- ARGV  prefix, window ms, bucket ms
-- Reply field, used, lent; field, used, lent; ... in the order of the fields
local subject, partition, prefix = KEYS[1], KEYS[2], ARGV[1]
local shape = make_shape(tonumber(ARGV[2]), tonumber(ARGV[3]))
local now = max(now_ms(), tonumber(call('HGET', partition, 't') or 0))
local stored = call('HGETALL', subject)
local fields, records = {}, {}
for i = 1, #stored, 2 do
  local field = stored[i]
  if sub(field, 1, #prefix) == prefix then
    local record, why = decode(stored[i + 1], shape.bucket)
    if not record then return unreadable(subject, field, 'record', why) end
    prune(record, shape, now, partition)
    if record.total > 0 then
      fields[#fields + 1] = field
      records[field] = record
    end
  end
end
table.sort(fields)
local reply = {}
for _, field in ipairs(fields) do
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3] = field, records[field].total, (lent(records[field], 0))
end
return reply
