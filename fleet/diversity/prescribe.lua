-- Replace the remedies of all bots. O(remedies).
--
-- KEYS  1 remedies  hash: bot -> rung|generation   TTL of both: ARGV 1
--       2 version   string: grows with every change
-- ARGV  1 life of the keys, s  2.. pairs: bot, remedy (5,000 pairs at most)
-- Reply the new version

local remedies, version = KEYS[1], KEYS[2]
local life_s = ARGV[1]
redis.call('DEL', remedies)
for i = 2, #ARGV, 2 do
  redis.call('HSET', remedies, ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', remedies, life_s)
local now = redis.call('INCR', version)
redis.call('EXPIRE', version, life_s)
return now
