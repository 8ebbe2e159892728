-- Charges all accounts of a call, or none.
-- KEYS  subjects (S of them), then h:{p} (P), then o:{p} (P) of their partitions
-- ARGV  S, P, then seven words per account (load_accounts)
-- Reply 1 admitted or 0 refused, then six values per account: used, override or nil, ms until the oldest
--       bucket leaves, what it gives back, ms until the units fit (0: they do; -1: never), bucket charged (-1: none)
-- A refusal writes nothing.
local subjects, partitions = tonumber(ARGV[1]), tonumber(ARGV[2])
local first_clock, last_clock = subjects + 1, subjects + partitions
local now = newest_time(first_clock, last_clock)
local accounts, failure = load_accounts(3, now)
if not accounts then return failure end

-- An account named twice must have room for the sum.
local planned, windows, admitted = {}, {}, 1
for _, account in ipairs(accounts) do
  local name = account.subject .. ' ' .. account.field
  local before = planned[name] or 0
  account.wait = fits_after(account.window, account.shape, now, account.limit - before, account.units)
  if account.wait ~= 0 then admitted = 0 end
  planned[name] = before + account.units
  windows[name] = windows[name] or account.window
  account.window = windows[name]
end

local reply = {admitted}
if admitted == 0 then
  for _, account in ipairs(accounts) do append_state(reply, account, now, account.wait, -1) end
  return reply
end

-- Everything is computed before anything is written: a record that turns out to be damaged stops it all.
for _, account in ipairs(accounts) do
  account.charged = add(account.window, floor(now / account.shape.bucket), account.units)
end
for _, account in ipairs(accounts) do account.record = encode(account.window) end
for _, account in ipairs(accounts) do
  store_window(account.subject, account.field, account.window, account.record, account.shape, now)
end
for i = first_clock, last_clock do redis.call('HSET', KEYS[i], 't', now) end
for _, account in ipairs(accounts) do append_state(reply, account, now, 0, account.charged) end
return reply
