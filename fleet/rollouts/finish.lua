-- End the rollout of a pool, whoever is first. O(1).
--
-- KEYS  running  hash: pool -> JSON of the rollout that runs there
--       past     list (JSON): those that are over, newest first        TTL: life_s
-- ARGV  pool     its name
--       id       of the rollout
--       now      JSON as it is over
--       most     that are kept
--       life_s   life of the key, s
-- Reply 1 it is over; 0 it was already, or another one runs
local running, past = unpack(KEYS)
local found = redis.call('HGET', running, ARGV[POOL])
if not found or cjson.decode(found).id ~= ARGV[ID] then return 0 end
redis.call('HDEL', running, ARGV[POOL])
redis.call('LPUSH', past, ARGV[NOW])
redis.call('LTRIM', past, 0, ARGV[MOST] - 1)
redis.call('EXPIRE', past, ARGV[LIFE_S])
return 1
