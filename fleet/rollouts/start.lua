-- Start a rollout in a pool, unless one runs there. O(1).
--
-- KEYS  running  hash: pool -> JSON of the rollout that runs there     TTL: life_s
-- ARGV  pool     its name
--       rollout  JSON
--       life_s   life of the key, s
-- Reply JSON of the one that runs there already; '': this one runs now
local running = KEYS[RUNNING]
local found = redis.call('HGET', running, ARGV[POOL])
if found then return found end
redis.call('HSET', running, ARGV[POOL], ARGV[ROLLOUT])
redis.call('EXPIRE', running, ARGV[LIFE_S])
return ''
