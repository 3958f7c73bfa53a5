-- Counts one failed request of a tool API. O(1).
--
-- KEYS  errors   hash: bot|provider/model|type -> count                            TTL: life_s
--       totals   hash: counter -> count                                            no TTL
-- ARGV  field    its name in errors
--       counter  its name in totals: of the whole pool
--       life_s   life of errors, s
-- Reply the count
local errors, totals = unpack(KEYS)
local field, counter, life_s = unpack(ARGV)
redis.call('HINCRBY', totals, counter, 1)
local count = redis.call('HINCRBY', errors, field, 1)
redis.call('EXPIRE', errors, life_s)
return count
