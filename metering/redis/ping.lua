-- Keeps the session of one incarnation in one partition, takes its vote, and raises or opens the fence. The twin of
-- StoreModel::ping; the rules are in metering/quota/lease_protocol.h.
-- KEYS  h:{p}: fields <incarnation> highest number applied, x<incarnation> session expiry ms, v<incarnation> the run voted
--       for; run that may grant; t newest time seen ms; fence run waited for, fence_at ms, fence_voters; keep ms
-- ARGV  run, sender's clock ms (0: it knows none), session ttl ms, fence wait ms, fence settle ms, incarnation,
--       partition number, acked; then per peer: incarnation, expiry ms
-- Reply open 0|1, highest number applied, server's clock ms, session expiry ms; then per live session: incarnation, expiry ms
local call = redis.call
local partition, run, self = KEYS[1], ARGV[1], ARGV[6]
local kept = {}
local applied, expiry, vote = {}, {}, {}
local stored = call('HGETALL', partition)
for i = 1, #stored, 2 do
  local name, value = stored[i], stored[i + 1]
  local first = string.byte(name)
  if first < 58 then
    applied[name] = tonumber(value)
  elseif first == 120 then
    expiry[string.sub(name, 2)] = tonumber(value)
  elseif first == 118 then
    vote[string.sub(name, 2)] = value
  else
    kept[name] = value
  end
end
local clock, newest = now_ms(), tonumber(kept.t or 0)
-- Seen by nobody: there is nothing that could have been lost.
local unseen = next(applied) == nil and next(expiry) == nil and not kept.run and tonumber(ARGV[8]) == 0 and #ARGV < 9
local told, now = math.max(clock, newest), math.max(believed(clock, tonumber(ARGV[2])), newest)
local changed, removed = {}, {}
local function set(name, value)
  changed[#changed + 1] = name
  changed[#changed + 1] = value
end
local function remove(name) removed[#removed + 1] = name end
-- Who knows no clock cannot say that this one has not jumped.
if tonumber(ARGV[2]) > 0 then set('t', now) end

-- ---- sessions: those the store has forgotten, one's own, and those long over
for i = 9, #ARGV, 2 do
  local peer, till = ARGV[i], tonumber(ARGV[i + 1])
  if peer ~= self and till > now and till > (expiry[peer] or 0) then
    expiry[peer] = till
    set('x' .. peer, till)
  end
end
local session_end = math.max(expiry[self] or 0, now + tonumber(ARGV[3]))
expiry[self] = session_end
set('x' .. self, session_end)
local forgotten_after = math.max(172800000, tonumber(kept.keep or 0))
for member in pairs(applied) do expiry[member] = expiry[member] or 0 end
for member, till in pairs(expiry) do
  -- Not all at once: Lua passes at most some thousand words on.
  if till + forgotten_after <= now and #removed < 3000 then
    remove(member)
    remove('x' .. member)
    remove('v' .. member)
  end
end

-- ---- fence and vote
local fenced = kept.run ~= run
local raised_at, voters = tonumber(kept.fence_at or 0), tonumber(kept.fence_voters or 0)
if raised_at > now then  -- by a clock that was wrong
  raised_at = now
  set('fence_at', now)
end
if fenced and kept.fence ~= run then
  for member in pairs(vote) do remove('v' .. member) end
  vote = {}
  raised_at = unseen and now - tonumber(ARGV[5]) or now
  voters = call('PUBLISH', 'q:fence', ARGV[7])
  set('fence', run)
  set('fence_at', raised_at)
  set('fence_voters', voters)
end
if (applied[self] or 0) >= tonumber(ARGV[8]) then
  vote[self] = run
else
  vote[self] = nil
  remove('v' .. self)
  if fenced then
    raised_at = now
    set('fence_at', now)
  end
end

local peers, votes, missing = {}, 0, 0
for member, till in pairs(expiry) do
  if till > now then
    peers[#peers + 1] = tonumber(member)
    if vote[member] == run then votes = votes + 1 else missing = missing + 1 end
  end
end
table.sort(peers)
local agreed = missing == 0 and votes >= voters
local open = not fenced or now - raised_at >= tonumber(agreed and ARGV[5] or ARGV[4])

if #removed > 0 then call('HDEL', partition, unpack(removed)) end
if vote[self] then set('v' .. self, run) end
if open and fenced then
  set('run', run)
  call('PUBLISH', 'q:fence', ARGV[7])  -- who waits need not wait for its next ping
end
call('HSET', partition, unpack(changed))
if open and fenced then call('HDEL', partition, 'fence', 'fence_at', 'fence_voters') end

local reply = {open and 1 or 0, applied[self] or 0, told, session_end}
for _, peer in ipairs(peers) do
  reply[#reply + 1] = peer
  reply[#reply + 1] = expiry[tostring(peer)]
end
return reply
