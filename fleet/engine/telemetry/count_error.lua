-- Counts one failed request of a tool API. O(1).
--
-- KEYS  errors   hash: bot|provider/model|type -> count                            TTL: life_s
-- ARGV  field    its name
--       life_s   life of the hash, s
-- Reply the count
local errors = unpack(KEYS)
local field, life_s = unpack(ARGV)
local count = redis.call('HINCRBY', errors, field, 1)
redis.call('EXPIRE', errors, life_s)
return count
