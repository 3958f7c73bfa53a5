-- Add one answer's fingerprint to the window of its class. O(1).
--
-- KEYS  answers  list: packed fingerprints, the newest first        TTL of both: life_s
--       counts   hash: pool|kind -> answers ever recorded
-- ARGV  packed   the fingerprint
--       field    of its class in counts
--       kept     fingerprints kept (count)
--       life_s   life of the keys, s
--       most     classes kept at most (count): answers of further ones are not recorded
-- Reply number of this answer in its class, 0 when it was not recorded
local answers, counts = unpack(KEYS)
local packed, field, kept, life_s, most = unpack(ARGV)

if redis.call('HEXISTS', counts, field) == 0 and redis.call('HLEN', counts) >= tonumber(most) then
  return 0
end
redis.call('LPUSH', answers, packed)
redis.call('LTRIM', answers, 0, kept - 1)
redis.call('EXPIRE', answers, life_s)
redis.call('EXPIRE', counts, life_s)
return redis.call('HINCRBY', counts, field, 1)
