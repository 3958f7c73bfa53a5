-- Replace the remedies of all bots. O(remedies).
--
-- KEYS  remedies  hash: bot -> rung|generation                      TTL of both: life_s
--       version   string: grows with every change
-- ARGV  life_s    life of the keys, s
--       pairs     bot, remedy: 5,000 pairs at most
-- Reply the new version
local remedies, version = unpack(KEYS)
local life_s = ARGV[LIFE_S]
redis.call('DEL', remedies)
for i = PAIRS + 1, #ARGV, 2 do
  redis.call('HSET', remedies, ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', remedies, life_s)
local now = redis.call('INCR', version)
redis.call('EXPIRE', version, life_s)
return now
