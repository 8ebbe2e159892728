-- What accounts look like now. Writes nothing.
-- KEYS and ARGV as in charge.lua; reply as in charge.lua, its first value 1.
local subjects, partitions = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = newest_time(subjects + 1, subjects + partitions)
local accounts, failure = load_accounts(3, now)
if not accounts then return failure end
local reply = {1}
for _, account in ipairs(accounts) do append_state(reply, account, now, 0, -1) end
return reply
