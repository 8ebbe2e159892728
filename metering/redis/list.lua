-- The accounts of one subject whose field starts with a prefix and that hold anything. Writes nothing.
-- KEYS  the subject, h:{p} of its partition
-- ARGV  prefix, window ms, bucket ms
-- Reply flat: field, units in the window, field, units, ... in the order of the fields
local prefix, shape = ARGV[1], make_shape(tonumber(ARGV[2]), tonumber(ARGV[3]))
local now = newest_time(2, 2)
local stored = redis.call('HGETALL', KEYS[1])
local used, fields = {}, {}
for i = 1, #stored, 2 do
  local field = stored[i]
  if sub(field, 1, #prefix) == prefix then
    local window, why = decode(stored[i + 1], shape.bucket)
    if not window then return unreadable(KEYS[1], field, why) end
    prune(window, shape, now)
    if window.total > 0 then
      fields[#fields + 1] = field
      used[field] = window.total
    end
  end
end
table.sort(fields)
local reply = {}
for _, field in ipairs(fields) do
  reply[#reply + 1] = field
  reply[#reply + 1] = used[field]
end
return reply
