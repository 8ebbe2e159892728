-- Takes units of an admitted charge out of the buckets in which they were counted: never more than is there.
-- KEYS  subjects (S of them), then h:{p} (P) of their partitions
-- ARGV  S, P, then six words per account: index of its subject in KEYS, field, window ms, bucket ms,
--       bucket number, units
-- Reply units taken, per account
local subjects, partitions = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = newest_time(subjects + 1, subjects + partitions)

-- From the tail slot of exactly that number, else from the first body entry at or after it: merging moves units
-- only there.
local function remove(window, shape, number, units)
  if leaves_at(shape, number) <= now then return 0 end
  local slot = window.newest - number
  if window.total == 0 or slot < 0 then return 0 end
  if slot < TAIL then
    local taken = math.min(units, window.tail[slot])
    window.tail[slot] = window.tail[slot] - taken
    window.total = window.total - taken
    return taken
  end
  local numbers, counts = unpack_body(window)
  for i = 1, #numbers do
    if numbers[i] >= number then
      local taken = math.min(units, counts[i])
      counts[i] = counts[i] - taken
      if counts[i] == 0 then
        table.remove(numbers, i)
        table.remove(counts, i)
      end
      pack_body(window, numbers, counts)
      window.total = window.total - taken
      return taken
    end
  end
  return 0
end

local reply = {}
for i = 3, #ARGV, 6 do
  local key, field = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  local shape = make_shape(tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]))
  local window, why = decode(redis.call('HGET', key, field), shape.bucket)
  if not window then return unreadable(key, field, why) end
  prune(window, shape, now)
  local taken = remove(window, shape, tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]))
  if taken > 0 then store_window(key, field, window, encode(window), shape, now) end
  reply[#reply + 1] = taken
end
return reply
