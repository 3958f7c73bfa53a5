-- Let a task wait for a batch, once: who was sent here and died, or whose reply was lost, comes again. O(log gathering).
--
-- KEYS  batched    hash: what it asks, its request, and later its job and its answer      TTL life_s
--       gathering  sorted set: task id -> Unix time by which it is needed                 TTL gather_s
--       limits     hash: provider/model/key -> Unix time since which tasks gather there   TTL gather_s
-- ARGV  id         of the task
--       limit      provider/model/key
--       by_at      Unix time by which it is needed
--       asked      JSON: whose it is, and who asks
--       body       of its request, JSON
--       life_s     of what is known of it, s
--       gather_s   of the rest, s
-- Reply 1 it waits now;  0 it did before, or is in a job
local batched, gathering, limits = unpack(KEYS)
local id, limit, by_at, asked, body, life_s, gather_s = unpack(ARGV)
if redis.call('EXISTS', batched) == 1 then return 0 end
local now = redis.call('TIME')[1]
redis.call('HSET', batched, 'asked', asked, 'body', body)
redis.call('EXPIRE', batched, life_s)
redis.call('ZADD', gathering, by_at, id)
redis.call('HSETNX', limits, limit, now)
for _, key in ipairs({ gathering, limits }) do
  if redis.call('TTL', key) < gather_s / 2 then redis.call('EXPIRE', key, gather_s) end
end
return 1
