-- Lets a stretch of what is parked beside a queue open early: the reason has gone why it waits. O(most x log parked).
--
-- KEYS  parked, openings, order   see park.lua
--       bell     stream, one entry
-- ARGV  queue    its name
--       about    only what waits because of this `provider/model/key`, pool or setting ('': of anything)
--       causes   only for one of these causes, with blanks between ('': for any)
--       looked_at  messages that were looked at before (count)
--       most     messages to look at (count)
--       opened   messages that open early already (count)
--       most_opened  messages that may open early in all (count; 0: all)
--       every_s  time between two openings, s: no herd
-- Reply {messages looked at so far (-1: that was all, or enough open), messages that open early so far}
--
-- Who looks goes by rank, the next to open first: what opens early moves to the front and shifts nothing behind it. What
-- opens meanwhile moves others up, so that a stretch may be left out: those open at their own time.
local parked, openings, order, bell = unpack(KEYS)
local queue, about, causes, looked_at, most, opened, most_opened, every_s = unpack(ARGV)
local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds + microseconds / 1000000
local was_opened = opened + 0
opened = was_opened
most_opened = most_opened == '0' and math.huge or most_opened + 0
causes = ' ' .. causes .. ' '

local function is_meant(entry)
  local is_known, wait = pcall(cjson.decode, string.match(entry, '^[^\n]*\n([^\n]*)\n') or '')
  if not is_known or type(wait) ~= 'table' or type(wait.cause) ~= 'string' then return false end
  return (about == '' or wait.about == about) and (causes == '  ' or string.find(causes, ' ' .. wait.cause .. ' ', 1, true))
end

local ids = redis.call('ZRANGE', order, looked_at, looked_at + most - 1)
local entries = #ids > 0 and redis.call('HMGET', parked, unpack(ids)) or {}
for i, id in ipairs(ids) do
  if opened < most_opened and entries[i] and is_meant(entries[i]) then
    redis.call('ZADD', order, 'LT', now + opened * every_s, id)
    opened = opened + 1
  end
end
if opened > was_opened then
  local _, next_at = unpack(redis.call('ZRANGE', order, 0, 0, 'WITHSCORES'))
  redis.call('ZADD', openings, 'LT', next_at, queue)
  redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1)
end
return { (#ids < most + 0 or opened >= most_opened) and -1 or looked_at + #ids, opened }
