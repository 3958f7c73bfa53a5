-- Let some parked tasks open now: what they waited for is there. O(tasks x log parked).
--
-- KEYS  parked, openings, order   see park.lua
--       bell     stream, one entry
-- ARGV  queue    its name
--       every_s  time between two openings, s: no herd
--       ids      of tasks; those that are not parked here are passed over
-- Reply tasks that open (count)
local parked, openings, order, bell = unpack(KEYS)
local queue, every_s = unpack(ARGV)
local seconds, microseconds = unpack(redis.call('TIME'))
local now, opened = seconds + microseconds / 1000000, 0
for i = IDS + 1, #ARGV do
  if redis.call('HEXISTS', parked, ARGV[i]) == 1 and redis.call('ZSCORE', order, ARGV[i]) then
    redis.call('ZADD', order, 'LT', now + opened * every_s, ARGV[i])
    opened = opened + 1
  end
end
if opened > 0 then
  local _, next_at = unpack(redis.call('ZRANGE', order, 0, 0, 'WITHSCORES'))
  redis.call('ZADD', openings, 'LT', next_at, queue)
  redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1)
end
return opened
