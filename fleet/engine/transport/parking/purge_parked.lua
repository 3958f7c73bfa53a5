-- Throws away some of what is parked beside a queue, the next to open first. O(most x log parked).
--
-- KEYS  parked, openings, order   see park.lua
-- ARGV  queue  its name
--       most   messages to throw away (count)
-- Reply number of messages thrown away
local parked, openings, order = unpack(KEYS)
local queue, most = unpack(ARGV)
local ids = redis.call('ZRANGE', order, 0, most - 1)
if #ids > 0 then
  redis.call('HDEL', parked, unpack(ids))
  redis.call('ZREM', order, unpack(ids))
end
if redis.call('EXISTS', order) == 0 then redis.call('ZREM', openings, queue) end
return #ids
