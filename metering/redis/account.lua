-- What is kept of one account: the twin of AccountRecord in metering/quota/record.h, which explains the idea and draws
-- the bytes. Both must make the same bytes from the same history; a differential test runs them side by side.
-- This text is put, after clock.lua, in front of every script that reads records.
--
-- A record is a table: bucket (ms), total, head, last, newest (bucket numbers), slots and tail[0..slots-1] (counts of
-- buckets newest, newest-1, ...), body (the closed buckets, packed: only unpacked when something in its middle changes),
-- leases (list of {incarnation, outstanding, expiry}, ascending).
-- A shape is a table: window, bucket, guard (ms).
local byte, char, sub, floor, min, max = string.byte, string.char, string.sub, math.floor, math.min, math.max
local concat, pack, unpack_bytes, call = table.concat, struct.pack, struct.unpack, redis.call

local TAIL = 20
local BODY_MAX = 128
local LEASES_MAX = 255
local COUNT_MAX = 281474976710655
local LIMIT_MAX = 9007199254740992
local HEADER = '<BBBI4I6I6I6I6'

local function put_varint(n)
  if n < 128 then return char(n) end
  local low = ''
  while n >= 128 do
    low = low .. char(n % 128 + 128)
    n = floor(n / 128)
  end
  return low .. char(n)
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

local function make_shape(window, bucket)
  return {window = window, bucket = bucket, guard = min(bucket, 2000)}
end

-- First moment at which the units of a bucket no longer count.
local function leaves_at(shape, number)
  return (number + 1) * shape.bucket + shape.window + shape.guard
end

-- No units, as at the first use: buckets begin at `newest`.
local function start_at(record, newest)
  record.total, record.head, record.last, record.newest = 0, 0, 0, newest
  record.slots, record.tail, record.body = 1, {[0] = 0}, ''
end

-- Packed body -> lists of bucket numbers and counts, oldest first; nil when the bytes are not a body.
local function unpack_body(record)
  local numbers, counts, n = {}, {}, 0
  local body, at, number = record.body, 1, record.head
  local size = #body
  while at <= size do
    local gap, count
    gap, at = get_varint(body, at)
    count, at = get_varint(body, at)
    if not gap or not count then return nil end
    number = number + gap
    n = n + 1
    numbers[n], counts[n] = number, count
  end
  return numbers, counts
end

local function pack_body(record, numbers, counts)
  local pieces, before = {}, numbers[1]
  for i = 1, #numbers do
    pieces[i] = put_varint(numbers[i] - before) .. put_varint(counts[i])
    before = numbers[i]
  end
  record.body, record.head, record.last = concat(pieces), numbers[1] or 0, before or 0
end

-- The cheapest adjacent pair of a body in which every number is one byte, as most are: where the earlier entry begins,
-- where the later one ends, gap and count of the earlier, gap and count of the later.
local function cheapest_of_bytes(body)
  local bytes, least, best = {byte(body, 1, #body)}, math.huge, 3
  for i = 3, #bytes, 2 do
    local cost = bytes[i - 1] * bytes[i]
    if cost < least then least, best = cost, i end
  end
  return best - 2, best + 2, bytes[best - 2], bytes[best - 1], bytes[best], bytes[best + 1]
end

-- The same of any body.
local function cheapest_of_varints(body)
  local size, at, least = #body, 1, math.huge
  local from, gap, count                            -- of the entry before
  local b_from, b_to, b_gap, b_count, b_step, b_more  -- the best
  while at <= size do
    local start, step, more = at, nil, nil
    step, at = get_varint(body, at)
    more, at = get_varint(body, at)
    if from and count * step < least then
      least, b_from, b_to, b_gap, b_count, b_step, b_more = count * step, from, at, gap, count, step, more
    end
    from, gap, count = start, step, more
  end
  return b_from, b_to, b_gap, b_count, b_step, b_more
end

-- A body of too many entries: the adjacent pair with the least count * distance becomes one entry, at the later bucket;
-- the oldest pair wins a tie. One pass over the bytes, then one splice: at the cap every closed bucket comes here.
local function limit_body(record)
  local body = record.body
  -- An entry has at least two bytes, so a short body needs no counting. Every varint ends in a byte below 128.
  if #body <= 2 * BODY_MAX then return end
  local _, ends = string.gsub(body, '[%z\1-\127]', '')
  if ends <= 2 * BODY_MAX then return end
  local from, to, gap, count, step, more = (ends == #body and cheapest_of_bytes or cheapest_of_varints)(body)
  if from == 1 then
    -- The oldest entry's gap is 0, and stays so: the head moves instead.
    record.head = record.head + step
    step = 0
  end
  record.body = sub(body, 1, from - 1) .. put_varint(gap + step) .. put_varint(min(count + more, COUNT_MAX)) ..
    sub(body, to)
end

local function append_body(record, number, count)
  if record.body == '' then
    record.head = number
    record.body = char(0) .. put_varint(count)
  else
    record.body = record.body .. put_varint(number - record.last) .. put_varint(count)
  end
  record.last = number
  limit_body(record)
end

local function count_in_body(record, number, units)
  if record.body == '' or number > record.last then return append_body(record, number, units) end
  local numbers, counts = unpack_body(record)
  local i = 1
  while numbers[i] < number do i = i + 1 end
  if numbers[i] == number then
    counts[i] = counts[i] + units
  else
    table.insert(numbers, i, number)
    table.insert(counts, i, units)
  end
  pack_body(record, numbers, counts)
  limit_body(record)
end

-- Makes `number` the newest bucket; what falls out of the tail goes to the body, oldest first.
local function shift_to(record, number)
  local step, tail, slots = number - record.newest, record.tail, record.slots
  for i = slots - 1, max(TAIL - step, 0), -1 do
    if tail[i] > 0 then append_body(record, record.newest - i, tail[i]) end
  end
  local shifted = {[0] = 0}
  record.slots = 1
  if step < TAIL then
    record.slots = min(slots + step, TAIL)
    for i = 1, record.slots - 1 do shifted[i] = i < step and 0 or tail[i - step] end
  end
  record.tail, record.newest = shifted, number
end

-- Counts units in exactly that bucket; one that has left counts nothing.
local function count_units(record, shape, now, number, units)
  units = min(units, COUNT_MAX - record.total)
  if units <= 0 or leaves_at(shape, number) <= now then return end
  if record.total == 0 then
    start_at(record, number)
  elseif number > record.newest then
    shift_to(record, number)
  end
  local slot, tail = record.newest - number, record.tail
  if slot >= TAIL then
    count_in_body(record, number, units)
  else
    for i = record.slots, slot do tail[i] = 0 end
    if slot >= record.slots then record.slots = slot + 1 end
    tail[slot] = tail[slot] + units
  end
  record.total = record.total + units
end

-- Takes units out of the tail slot of exactly that number, else of the first body entry at or after it (merging moves
-- units only there). Never more than is there. Whether any were.
local function remove_units(record, shape, now, number, units)
  local slot = record.newest - number
  if record.total == 0 or slot < 0 or leaves_at(shape, number) <= now then return false end
  local taken = 0
  if slot < TAIL then
    taken = min(units, record.tail[slot] or 0)
    if taken > 0 then record.tail[slot] = record.tail[slot] - taken end
  else
    local numbers, counts = unpack_body(record)
    for i = 1, #numbers do
      if numbers[i] >= number then
        taken = min(units, counts[i])
        counts[i] = counts[i] - taken
        if counts[i] == 0 then
          table.remove(numbers, i)
          table.remove(counts, i)
        end
        pack_body(record, numbers, counts)
        break
      end
    end
  end
  record.total = record.total - taken
  return taken > 0
end

-- Calls visit(number, count) for every bucket with something in it, oldest first, until it returns true.
local function each_bucket(record, visit)
  local body, at, number = record.body, 1, record.head
  local size = #body
  while at <= size do
    local gap, count
    gap, at = get_varint(body, at)
    count, at = get_varint(body, at)
    number = number + gap
    if visit(number, count) then return end
  end
  for i = record.slots - 1, 0, -1 do
    local count = record.tail[i]
    if count > 0 and visit(record.newest - i, count) then return end
  end
end

-- Another bucket size: units move to the bucket that holds the last millisecond of their old one, never earlier.
local function rebucket(record, bucket)
  local function renumber(number) return floor(((number + 1) * record.bucket - 1) / bucket) end
  local out = {bucket = bucket, leases = record.leases}
  start_at(out, record.total > 0 and renumber(record.newest) or 0)
  each_bucket(record, function(number, count)
    number = renumber(number)
    local age, tail = out.newest - number, out.tail
    out.total = min(out.total + count, COUNT_MAX)
    if age < TAIL then
      for i = out.slots, age do tail[i] = 0 end
      out.slots = max(out.slots, age + 1)
      tail[age] = tail[age] + count
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

-- Bytes (false: none) -> record in the bucket size asked for (nil: its own); nil and why when they are not one.
local function decode(bytes, bucket)
  if not bytes then
    local record = {bucket = bucket, leases = {}}
    start_at(record, 0)
    return record
  end
  if #bytes < 32 then return nil, 'too short' end
  local record, leases, tail = {}, {}, {}
  local version, lease_count, slots
  version, lease_count, slots, record.bucket, record.total, record.head, record.last, record.newest =
    unpack_bytes(HEADER, bytes)
  if version ~= 1 or slots < 1 or slots > TAIL or record.bucket == 0 then return nil, 'unknown layout' end
  local at = 32
  if #bytes < at + 16 * lease_count then return nil, 'cut short' end
  for i = 1, lease_count do
    local incarnation, outstanding, expiry
    incarnation, outstanding, expiry, at = unpack_bytes('<I4I6I6', bytes, at)
    leases[i] = {incarnation, outstanding, expiry}
  end
  for i = 0, slots - 1 do
    local count = byte(bytes, at)
    if count and count < 128 then
      at = at + 1
    else
      count, at = get_varint(bytes, at)
      if not count then return nil, 'cut short' end
    end
    tail[i] = count
  end
  record.leases, record.slots, record.tail, record.body = leases, slots, tail, sub(bytes, at)
  if bucket and record.bucket ~= bucket then
    if not unpack_body(record) then return nil, 'cut short' end
    record = rebucket(record, bucket)
  end
  return record
end

-- nil when there is nothing to keep.
local function encode(record)
  local leases, tail, slots = record.leases, record.tail, record.slots
  if record.total == 0 then
    if #leases == 0 then return nil end
    start_at(record, 0)
    tail, slots = record.tail, 1
  end
  local small = true
  while slots > 1 and tail[slots - 1] == 0 do slots = slots - 1 end
  for i = 0, slots - 1 do
    if tail[i] >= 128 then small = false end
  end
  local pieces = {
    pack(HEADER, 1, #leases, slots, record.bucket, record.total, record.head, record.last, record.newest)
  }
  for i = 1, #leases do pieces[i + 1] = pack('<I4I6I6', leases[i][1], leases[i][2], leases[i][3]) end
  local n = #leases + 1
  if small then
    pieces[n + 1] = char(unpack(tail, 0, slots - 1))
    n = n + 1
  else
    for i = 0, slots - 1 do pieces[n + 1 + i] = put_varint(tail[i]) end
    n = n + slots
  end
  pieces[n + 1] = record.body
  return concat(pieces)
end

local function session_expiry(partition, incarnation)
  return tonumber(call('HGET', partition, 'x' .. incarnation) or 0)
end

-- Drops what has left the window, and leases whose tokens cannot have been used within it.
local function prune(record, shape, now, partition)
  if record.body ~= '' and leaves_at(shape, record.head) <= now then
    local body, number = record.body, record.head
    local size, at, count = #body, 2, nil  -- the first gap is always 0: one byte
    while true do
      count, at = get_varint(body, at)
      record.total = max(record.total - count, 0)
      if at > size then
        record.body, record.head, record.last = '', 0, 0
        break
      end
      local gap, after_gap = get_varint(body, at)
      number = number + gap
      at = after_gap
      if leaves_at(shape, number) > now then
        record.body, record.head = char(0) .. sub(body, at), number
        break
      end
    end
  end
  local tail = record.tail
  for i = record.slots - 1, 0, -1 do
    local count = tail[i]
    if count > 0 then
      if leaves_at(shape, record.newest - i) > now then break end
      record.total = max(record.total - count, 0)
      tail[i] = 0
    end
  end
  local leases, kept = record.leases, shape.window + shape.guard
  for i = #leases, 1, -1 do
    local lease = leases[i]
    if lease[3] + kept <= now then
      lease[3] = max(lease[3], session_expiry(partition, lease[1]))
      if lease[3] + kept <= now then table.remove(leases, i) end
    end
  end
end

-- Tokens lent to all, tokens lent to this incarnation, and its place in the list (nil: none).
local function lent(record, incarnation)
  local sum, mine, place = 0, 0, nil
  for i, lease in ipairs(record.leases) do
    sum = sum + lease[2]
    if lease[1] == incarnation then mine, place = lease[2], i end
  end
  return sum, mine, place
end

-- False when there is no place for one more.
local function set_lease(record, incarnation, outstanding, expiry)
  local leases = record.leases
  for i = 1, #leases do
    if leases[i][1] == incarnation then
      if outstanding == 0 then
        table.remove(leases, i)
      else
        leases[i][2], leases[i][3] = outstanding, expiry
      end
      return true
    end
  end
  if outstanding == 0 then return true end
  if #leases == LEASES_MAX then return false end
  local place = 1
  while leases[place] and leases[place][1] < incarnation do place = place + 1 end
  table.insert(leases, place, {incarnation, outstanding, expiry})
  return true
end

-- Limit as text ('-' none) with the override of the account (false: none); nil when that is not one.
local function effective_limit(override, limit, now)
  limit = limit == '-' and math.huge or tonumber(limit)
  if not override then return limit end
  local base, grants = string.match(override, '^([^;]+)(.*)$')
  if base == '*' then
    limit = math.huge
  elseif base ~= '-' then
    limit = base and string.match(base, '^%d+$') and tonumber(base)
  elseif grants == '' then
    return nil
  end
  if not limit or string.gsub(grants, ';%+%d+@%d+', '') ~= '' then return nil end
  if limit == math.huge then return limit end
  for extra, till in string.gmatch(grants, ';%+(%d+)@(%d+)') do
    if tonumber(till) > now then limit = min(limit + tonumber(extra), LIMIT_MAX) end
  end
  return limit
end

-- Tells the holders of leases, but for `but`, that tokens are missing; those whose session is over cannot help.
local function recall(record, subject, field, partition, but, now)
  for _, lease in ipairs(record.leases) do
    if lease[1] ~= but and (lease[3] > now or session_expiry(partition, lease[1]) > now) then
      call('PUBLISH', 'q:recall:' .. lease[1], subject .. ' ' .. field)
    end
  end
end

-- Tells all that units left before their time: a refusal that is remembered may not hold any more.
local function tell_room(subject, field)
  call('PUBLISH', 'q:room', subject .. ' ' .. field)
end

-- Keeps the key of a subject alive: past its last bucket, and past a window after the last use of a lease that is touched
-- once more before its time is up. Only ever raised: one key holds accounts of several windows.
local function keep_alive(subject, needed, slack)
  if needed > 0 and call('PTTL', subject) < needed then call('PEXPIRE', subject, floor(needed + slack)) end
end

local function time_needed(record, shape, now, leased_until, ttl)
  local needed = 0
  if record.total > 0 then needed = leaves_at(shape, record.newest) - now end
  if leased_until then
    needed = max(needed, leased_until - now + max(ttl, shape.window) + shape.window + shape.guard)
  end
  return needed, max(2 * ttl, shape.window / 2)
end

-- What the caller learns about an account, nine integers: outstanding, granted, used, lent to others, limit (-1 none), when
-- the oldest bucket leaves (0 none), what it gives back, when `need` fits (-1 never), over.
local function append_state(reply, record, shape, limit, incarnation, granted, fits_at, over)
  local sum, mine = lent(record, incarnation)
  local n = #reply
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = mine, granted, record.total, sum - mine
  reply[n + 5] = limit == math.huge and -1 or limit
  reply[n + 6], reply[n + 7] = 0, 0
  if record.body ~= '' then
    reply[n + 6], reply[n + 7] = leaves_at(shape, record.head), (get_varint(record.body, 2))
  elseif record.total > 0 then
    for i = record.slots - 1, 0, -1 do
      if record.tail[i] > 0 then
        reply[n + 6], reply[n + 7] = leaves_at(shape, record.newest - i), record.tail[i]
        break
      end
    end
  end
  reply[n + 8], reply[n + 9] = fits_at, over and 1 or 0
end

local function unreadable(subject, field, what, why)
  return redis.error_reply('TOLLGATE the ' .. what .. ' of ' .. field .. ' in ' .. subject .. ' cannot be read: ' .. why)
end
