-- Sets or takes away the limit kept for one account, tells all proxies, and recalls what is lent where it may be more than
-- the new limit has room for. The text is written by LimitOverride::format (metering/quota/store_model.h).
-- KEYS  subject, h:{p}, o:{p}
-- ARGV  field, override ('' takes it away)
-- Reply 1
local subject, partition, field, override = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local now = max(now_ms(), tonumber(call('HGET', partition, 't') or 0))
if override ~= '' and not effective_limit(override, '0', now) then
  return unreadable(subject, field, 'override', override)
end
-- The window's length is not known here, so nothing is pruned: a recall too many does no harm. Neither is the rule's limit.
local record, why = decode(call('HGET', subject, field), nil)
if not record then return unreadable(subject, field, 'record', why) end
if override == '' then
  call('HDEL', KEYS[3], subject .. ' ' .. field)
else
  call('HSET', KEYS[3], subject .. ' ' .. field, override)
end
call('PUBLISH', 'q:policy', subject .. ' ' .. field)
local limit = 0
if override ~= '' and sub(override, 1, 1) ~= '-' then limit = effective_limit(override, '0', now) end
if record.total + lent(record, 0) > limit then recall(record, subject, field, partition, 0, now) end
return 1
