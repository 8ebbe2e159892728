-- Applies one numbered op of one incarnation to the accounts of one subject: settles what was used, takes back what is
-- returned, lends new tokens. The twin of StoreModel::apply (metering/quota/store_model.h), where the rules are.
-- KEYS  subject, h:{p}, o:{p}
-- ARGV  run, sender's clock ms, session ttl ms, lease max, incarnation, seq; then per account:
--       field, limit ('-' none), window ms, bucket ms, returned, forget 0|1, need, want, n, n times: bucket, units
-- Reply status (0 applied, 3 duplicate, 4 gap), flags (1 fenced + 2 clocks disagree), highest number applied, server's clock ms,
--       session expiry ms; then, but for a gap, per account the nine of append_state
-- Everything is computed before anything is written: a record that cannot be read stops it all.
local subject, partition = KEYS[1], KEYS[2]
local ttl, lease_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local incarnation, seq = tonumber(ARGV[5]), tonumber(ARGV[6])

local known = call('HMGET', partition, ARGV[5], 'x' .. ARGV[5], 'run', 't', 'keep')
local clock, hwm, expiry = now_ms(), tonumber(known[1] or 0), tonumber(known[2] or 0)
local newest = tonumber(known[4] or 0)
local told, now = max(clock, newest), max(believed(clock, tonumber(ARGV[2])), newest)
local flags = known[3] == ARGV[1] and 0 or 1
if clock_off(clock, newest, tonumber(ARGV[2])) then flags = flags + 2 end
if seq > hwm + 1 then return {4, flags, hwm, told, expiry} end
local duplicate = seq <= hwm
if not duplicate then expiry = max(expiry, now + ttl) end

-- ---- what is asked
local accounts, fields, names, at = {}, {}, {}, 7
while ARGV[at] do
  local n = #accounts + 1
  accounts[n], fields[n], names[n] = at, ARGV[at], subject .. ' ' .. ARGV[at]
  at = at + 9 + 2 * tonumber(ARGV[at + 8])
end
local stored, overrides = {}, {}
if #fields > 0 then
  stored = call('HMGET', subject, unpack(fields))
  overrides = call('HMGET', KEYS[3], unpack(names))
end

-- ---- settle: also behind the fence
for i, first in ipairs(accounts) do
  local shape = make_shape(tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3]))
  local account = {
    shape = shape, granted = 0, fits_at = 0, over = false, freed = false,
    need = tonumber(ARGV[first + 6]), want = tonumber(ARGV[first + 7]),
    limit = effective_limit(overrides[i], ARGV[first + 1], now)
  }
  if not account.limit then return unreadable(subject, fields[i], 'override', overrides[i]) end
  local record, why = decode(stored[i], shape.bucket)
  if not record then return unreadable(subject, fields[i], 'record', why) end
  prune(record, shape, now, partition)
  account.record = record
  accounts[i] = account
  if not duplicate then
    local _, mine = lent(record, incarnation)
    local admitted, live = 0, 0
    for use = first + 9, first + 7 + 2 * tonumber(ARGV[first + 8]), 2 do
      local number, units = tonumber(ARGV[use]), tonumber(ARGV[use + 1])
      if units < 0 then
        account.freed = remove_units(record, shape, now, number, -units) or account.freed
      else
        admitted = admitted + units
        if leaves_at(shape, number) > now then live = live + units end
        count_units(record, shape, now, number, units)
      end
    end
    account.over = ARGV[first + 1] ~= '-' and live > mine
    local left = mine - admitted - tonumber(ARGV[first + 4])
    if ARGV[first + 5] == '1' or left < 0 then left = 0 end
    set_lease(record, incarnation, left, expiry)
  end
end

local function reply_with(status)
  local reply = {status, flags, hwm, told, expiry}
  for _, account in ipairs(accounts) do
    append_state(reply, account.record, account.shape, account.limit, incarnation, account.granted, account.fits_at,
      account.over)
  end
  return reply
end
if duplicate then return reply_with(3) end

-- ---- lend: all needs of the op or none, then what is wanted beyond
-- When `need` would fit if all others gave everything back; 0 where only that is missing.
local function fits_at(account, mine)
  local missing = account.record.total + mine + account.need - account.limit
  if account.need > account.limit then return -1 end
  if mine + account.need > account.limit or missing <= 0 then return 0 end
  local moment = -1
  each_bucket(account.record, function(number, count)
    missing = missing - count
    if missing <= 0 then moment = max(leaves_at(account.shape, number), now) end
    return missing <= 0
  end)
  return moment
end

if flags == 0 then
  local refused = false
  for i, account in ipairs(accounts) do
    local sum, mine, place = lent(account.record, incarnation)
    local avail = account.limit == math.huge and COUNT_MAX or max(account.limit - account.record.total - sum, 0)
    if not place and #account.record.leases == LEASES_MAX then avail = 0 end
    account.avail, account.mine, account.others = avail, mine, #account.record.leases - (place and 1 or 0)
    if account.need > avail then
      refused = true
      account.fits_at = fits_at(account, mine)
      if account.fits_at == 0 then recall(account.record, subject, fields[i], partition, incarnation, now) end
    end
  end
  for _, account in ipairs(accounts) do
    if not refused and (account.need > 0 or account.want > 0) then
      local avail, shares = account.avail, 1 + account.others
      local granted = max(account.need, min(account.want, max(floor(avail / min(shares, 12)), 1)))
      if account.want > account.need then
        granted = max(granted, min(lease_max, floor(avail / (8 * shares))) - account.mine)
      end
      account.granted = min(granted, avail)
      set_lease(account.record, incarnation, account.mine + account.granted, expiry)
    end
  end
end

-- ---- write
local kept, gone = {}, {}
local needed, slack, keep = 0, 0, tonumber(known[5] or 0)
local keep_before = keep
for i, account in ipairs(accounts) do
  local record, shape = account.record, account.shape
  local bytes = encode(record)
  if bytes then
    kept[#kept + 1] = fields[i]
    kept[#kept + 1] = bytes
    local _, mine = lent(record, incarnation)
    local time, spare = time_needed(record, shape, now, mine > 0 and expiry, ttl)
    needed, slack = max(needed, time), max(slack, spare)
  elseif stored[i] then
    gone[#gone + 1] = fields[i]
  end
  if account.freed and account.limit ~= math.huge then tell_room(subject, fields[i]) end
  local counted = shape.window + shape.guard
  if counted > max(172800000, keep) then keep = counted end
end
if #kept > 0 then call('HSET', subject, unpack(kept)) end
if #gone > 0 then call('HDEL', subject, unpack(gone)) end
keep_alive(subject, needed, slack)
call('HSET', partition, ARGV[5], ARGV[6], 'x' .. ARGV[5], expiry, 't', now)
if keep > keep_before then call('HSET', partition, 'keep', keep) end
hwm = seq
return reply_with(0)
