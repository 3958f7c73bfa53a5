-- Renews the leases of messages that a worker still holds. O(tags).
--
-- KEYS  index  sorted set: tag -> time of the last lease renewal (Redis time, s)   no TTL: it lives with its entries
-- ARGV  tags   held
-- Reply the tags that are no longer in the index: their lease ran out and somebody else may have them
local index = KEYS[INDEX]
local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds .. '.' .. string.format('%06d', microseconds)
local lost = {}
for _, tag in ipairs(ARGV) do
  if redis.call('ZSCORE', index, tag) then
    redis.call('ZADD', index, 'XX', now, tag)
  else
    lost[#lost + 1] = tag
  end
end
return lost
