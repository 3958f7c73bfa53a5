-- Add one answer's fingerprint to the window of its class. O(1).
--
-- KEYS  1 answers  list: packed fingerprints, the newest first   TTL of both: ARGV 4
--       2 counts   hash: pool|kind -> answers ever recorded
-- ARGV  1 packed fingerprint  2 field of the class in counts  3 fingerprints kept  4 life of the keys, s
--       5 classes kept at most: answers of further ones are not recorded
-- Reply number of this answer in its class, 0 when it was not recorded

local answers, counts = KEYS[1], KEYS[2]
local packed, class, kept, life_s, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])

if redis.call('HEXISTS', counts, class) == 0 and redis.call('HLEN', counts) >= most then
  return 0
end
redis.call('LPUSH', answers, packed)
redis.call('LTRIM', answers, 0, kept - 1)
redis.call('EXPIRE', answers, life_s)
redis.call('EXPIRE', counts, life_s)
return redis.call('HINCRBY', counts, class, 1)
