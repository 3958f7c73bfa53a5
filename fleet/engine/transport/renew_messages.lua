-- Renews the leases of messages that a worker still holds.
--
-- KEYS[1] zset  unacked index: tag -> time of the last lease renewal (Redis time, seconds)
-- ARGV[1..] tags held
--
-- Reply: the tags that are no longer in the index: their lease ran out and somebody else may have them.
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local lost = {}
for i = 1, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'XX', now, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
