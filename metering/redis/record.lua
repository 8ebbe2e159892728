-- The rolling window of one account: the twin of metering/quota/record.h, which explains the idea and draws the bytes.
-- Both must make the same bytes from the same history; a differential test runs them side by side.
-- This text is put in front of charge.lua, give_back.lua and read.lua.
--
-- A window is a table: bucket (ms), total, head, last, newest (bucket numbers), tail[0..19] (counts of buckets newest,
-- newest-1, ...), body (the packed closed buckets: only unpacked when something in its middle changes).
local byte, char, sub, floor, concat = string.byte, string.char, string.sub, math.floor, table.concat

local TAIL = 20
local BODY_MAX = 128
local GUARD_MAX_MS = 2000
local COUNT_MAX = 281474976710655
local HEADER = '<BBBI4I6I6I6I6'
local HEADER_BYTES = 31

-- The only place that reads a clock: the server's own, in ms since 1970.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000)
end

-- The clock never steps back: every partition remembers the newest moment it has seen.
local function newest_time(first_key, last_key)
  local now = now_ms()
  for i = first_key, last_key do
    local seen = tonumber(redis.call('HGET', KEYS[i], 't') or 0)
    if seen > now then now = seen end
  end
  return now
end

local function put_varint(n)
  if n < 128 then return char(n) end
  local low = {}
  while n >= 128 do
    low[#low + 1] = char(n % 128 + 128)
    n = floor(n / 128)
  end
  return concat(low) .. char(n)
end

-- Value at `at` and the position after it; nil where the bytes end too early.
local function get_varint(bytes, at)
  local digit = byte(bytes, at)
  if not digit then return nil, at end
  at = at + 1
  if digit < 128 then return digit, at end
  local value, scale = digit - 128, 128
  repeat
    digit = byte(bytes, at)
    if not digit or scale > 4398046511104 then return nil, at end
    at = at + 1
    value = value + (digit % 128) * scale
    scale = scale * 128
  until digit < 128
  return value, at
end

local function leaves_at(shape, number)
  return (number + 1) * shape.bucket + shape.window + shape.guard
end

local function make_shape(window, bucket)
  return {window = window, bucket = bucket, guard = bucket < GUARD_MAX_MS and bucket or GUARD_MAX_MS}
end

local function empty_window(bucket)
  local tail = {}
  for i = 0, TAIL - 1 do tail[i] = 0 end
  return {bucket = bucket, total = 0, head = 0, last = 0, newest = 0, tail = tail, body = ''}
end

-- Packed body -> lists of bucket numbers and counts, oldest first; nil when the bytes are not a body.
local function unpack_body(window)
  local numbers, counts = {}, {}
  local at, number = 1, window.head
  local size = #window.body
  while at <= size do
    local gap, count
    gap, at = get_varint(window.body, at)
    count, at = get_varint(window.body, at)
    if not gap or not count then return nil end
    number = number + gap
    numbers[#numbers + 1] = number
    counts[#counts + 1] = count
  end
  return numbers, counts
end

local function pack_body(window, numbers, counts)
  local pieces, before = {}, numbers[1]
  for i = 1, #numbers do
    pieces[i] = put_varint(numbers[i] - before) .. put_varint(counts[i])
    before = numbers[i]
  end
  window.body = concat(pieces)
  window.head = numbers[1] or 0
  window.last = before or 0
end

-- Above BODY_MAX entries the adjacent pair with the least count * distance becomes one, at the later bucket.
local function merge_cheapest_pair(window)
  local numbers, counts = unpack_body(window)
  local best, best_cost = 1, nil
  for i = 1, #numbers - 1 do
    local cost = counts[i] * (numbers[i + 1] - numbers[i])
    if not best_cost or cost < best_cost then best, best_cost = i, cost end
  end
  counts[best + 1] = math.min(counts[best + 1] + counts[best], COUNT_MAX)
  table.remove(numbers, best)
  table.remove(counts, best)
  pack_body(window, numbers, counts)
end

local function body_entries(body)
  -- Every varint ends in a byte below 128; two varints are an entry.
  local _, ends = string.gsub(body, '[%z\1-\127]', '')
  return ends / 2
end

local function append_body(window, number, count)
  if window.body == '' then
    window.head = number
    window.body = put_varint(0) .. put_varint(count)
  else
    window.body = window.body .. put_varint(number - window.last) .. put_varint(count)
  end
  window.last = number
  -- An entry has at least two bytes, so a short body needs no counting.
  if #window.body > 2 * BODY_MAX and body_entries(window.body) > BODY_MAX then merge_cheapest_pair(window) end
end

-- Makes `number` the newest bucket; what falls out of the tail goes to the body, oldest first.
local function shift_to(window, number)
  local step = number - window.newest
  local tail = window.tail
  for i = TAIL - 1, math.max(TAIL - step, 0), -1 do
    if tail[i] > 0 then append_body(window, window.newest - i, tail[i]) end
  end
  for i = TAIL - 1, 0, -1 do tail[i] = i >= step and tail[i - step] or 0 end
  window.newest = number
end

-- Counts units in bucket max(number, newest); returns that bucket.
local function add(window, number, units)
  if window.total == 0 then
    window.head, window.last, window.newest, window.body = 0, 0, number, ''
  elseif number > window.newest then
    shift_to(window, number)
  end
  local counted = math.min(units, COUNT_MAX - window.total)
  window.tail[0] = window.tail[0] + counted
  window.total = window.total + counted
  return window.newest
end

-- Drops what has left the window.
local function prune(window, shape, now)
  if window.body ~= '' and leaves_at(shape, window.head) <= now then
    local body, number = window.body, window.head
    local size, at, count = #window.body, 2, nil  -- the first gap is always 0: one byte
    while true do
      count, at = get_varint(body, at)
      window.total = window.total - count
      if at > size then
        window.body, window.head, window.last = '', 0, 0
        break
      end
      local gap, after_gap = get_varint(body, at)
      number = number + gap
      at = after_gap
      if leaves_at(shape, number) > now then
        window.body, window.head = char(0) .. sub(body, at), number
        break
      end
    end
  end
  local tail = window.tail
  for i = TAIL - 1, 0, -1 do
    if tail[i] > 0 and leaves_at(shape, window.newest - i) <= now then
      window.total = window.total - tail[i]
      tail[i] = 0
    end
  end
end

-- Calls visit(number, count) for every bucket with something in it, oldest first, until it returns true.
local function each_bucket(window, visit)
  local body, at, number = window.body, 1, window.head
  local size = #body
  while at <= size do
    local gap, count
    gap, at = get_varint(body, at)
    count, at = get_varint(body, at)
    number = number + gap
    if visit(number, count) then return end
  end
  for i = TAIL - 1, 0, -1 do
    if window.tail[i] > 0 and visit(window.newest - i, window.tail[i]) then return end
  end
end

-- Another bucket size: units move to the bucket that holds the last millisecond of their old one, never earlier.
local function rebucket(window, bucket)
  local function renumber(number) return floor(((number + 1) * window.bucket - 1) / bucket) end
  local out = empty_window(bucket)
  out.newest = renumber(window.newest)
  each_bucket(window, function(number, count)
    number = renumber(number)
    local age = out.newest - number
    out.total = math.min(out.total + count, COUNT_MAX)
    if age < TAIL then
      out.tail[age] = out.tail[age] + count
    elseif out.body ~= '' and out.last == number then
      local numbers, counts = unpack_body(out)
      counts[#counts] = counts[#counts] + count
      pack_body(out, numbers, counts)
    else
      append_body(out, number, count)
    end
  end)
  return out
end

-- Record -> window; an error reply text when the bytes are not a record (never guessed at).
local function decode(bytes, bucket)
  if not bytes then return empty_window(bucket) end
  if #bytes <= HEADER_BYTES then return nil, 'too short' end
  local window = {}
  local version, leases, slots
  version, leases, slots, window.bucket, window.total, window.head, window.last, window.newest =
    struct.unpack(HEADER, bytes)
  if version ~= 1 or leases ~= 0 or slots < 1 or slots > TAIL or window.bucket == 0 then
    return nil, 'unknown layout'
  end
  local tail, at = {}, HEADER_BYTES + 1
  for i = 0, TAIL - 1 do
    if i < slots then
      tail[i], at = get_varint(bytes, at)
      if not tail[i] then return nil, 'cut short' end
    else
      tail[i] = 0
    end
  end
  window.tail, window.body = tail, sub(bytes, at)
  if window.bucket ~= bucket then
    if not unpack_body(window) then return nil, 'cut short' end
    window = rebucket(window, bucket)
  end
  return window
end

local function encode(window)
  local tail, slots = window.tail, 1
  for i = TAIL - 1, 1, -1 do
    if tail[i] > 0 then
      slots = i + 1
      break
    end
  end
  local header =
    struct.pack(HEADER, 1, 0, slots, window.bucket, window.total, window.head, window.last, window.newest)
  local pieces = {header}
  for i = 0, slots - 1 do pieces[i + 2] = put_varint(tail[i]) end
  pieces[slots + 2] = window.body
  return concat(pieces)
end

-- Bucket and count of what leaves first; nil when nothing is counted.
local function oldest(window)
  local number, count
  each_bucket(window, function(n, c)
    number, count = n, c
    return true
  end)
  return number, count
end

-- ms until `units` more fit under `limit`: 0 now, -1 never.
local function fits_after(window, shape, now, limit, units)
  if units > limit then return -1 end
  local missing = window.total + units - limit
  if missing <= 0 then return 0 end
  local wait = -1
  each_bucket(window, function(number, count)
    missing = missing - count
    if missing <= 0 then
      wait = leaves_at(shape, number) - now
      return true
    end
  end)
  return wait
end

local function unreadable(key, field, why)
  return redis.error_reply('TOLLGATE the record of ' .. field .. ' in ' .. key .. ' cannot be read: ' .. why)
end

-- The accounts of ARGV from position `at` on, seven words each:
--   index of its subject in KEYS, index of its o:{p} in KEYS, field, limit ('-' none), window ms, bucket ms, units
-- with what the store holds of them: override (text or false), limit, window (decoded and pruned).
-- Returns nil and an error reply when one is not readable.
local function load_accounts(at, now)
  local accounts = {}
  for i = at, #ARGV, 7 do
    local subject, field = KEYS[tonumber(ARGV[i])], ARGV[i + 2]
    local account = {subject = subject, field = field, units = tonumber(ARGV[i + 6])}
    account.shape = make_shape(tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]))
    account.override = redis.call('HGET', KEYS[tonumber(ARGV[i + 1])], subject .. ' ' .. field)
    local limit = account.override or ARGV[i + 3]
    account.limit = limit == '-' and math.huge or tonumber(limit)
    if not account.limit then
      return nil, redis.error_reply('TOLLGATE the override of ' .. field .. ' in ' .. subject .. ' is not a number')
    end
    local why
    account.window, why = decode(redis.call('HGET', subject, field), account.shape.bucket)
    if not account.window then return nil, unreadable(subject, field, why) end
    prune(account.window, account.shape, now)
    accounts[#accounts + 1] = account
  end
  return accounts
end

-- Writes a window back as `record`, or removes it when it is empty, and keeps the key alive at least as long as its
-- last bucket. One key holds accounts of several windows: its time to live is only ever raised.
local function store_window(key, field, window, record, shape, now)
  if window.total == 0 then
    redis.call('HDEL', key, field)
    return
  end
  redis.call('HSET', key, field, record)
  local needed = leaves_at(shape, window.newest) - now
  if redis.call('PTTL', key) < needed then
    -- The slack spares later charges this call: an eighth of the window, at least a minute.
    redis.call('PEXPIRE', key, needed + math.max(60000, floor(shape.window / 8)))
  end
end

-- What the caller learns about an account, appended to a flat reply.
local function append_state(reply, account, now, wait, bucket_number)
  local number, count = oldest(account.window)
  local n = #reply
  reply[n + 1] = account.window.total
  reply[n + 2] = account.override
  reply[n + 3] = number and leaves_at(account.shape, number) - now or 0
  reply[n + 4] = count or 0
  reply[n + 5] = wait
  reply[n + 6] = bucket_number
end

