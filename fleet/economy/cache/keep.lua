-- Keeps an answer. What has outlived its time goes, and the oldest while there is more than may be kept: O(log kept).
--
-- KEYS  answers, ends, bytes, asking, twins   see look.lua
-- ARGV  digest
--       task      whose answer it is
--       answer    bot, a line break, result
--       keep_s    so long it is kept
--       most_bytes  of all answers of the kind
-- Reply tasks that waited for it and may go on now; of one that alone is larger than all may be, none: `each` is asked
local answers, ends, bytes, asking, twins = unpack(KEYS)
local digest, task, answer, keep_s, most_bytes = unpack(ARGV)
local MOST_GONE = 1000  -- in one step
local now = tonumber(redis.call('TIME')[1])
if #answer > tonumber(most_bytes) then return {} end

local all = redis.call('INCRBY', bytes, #answer - redis.call('HSTRLEN', answers, digest))
redis.call('HSET', answers, digest, answer)
redis.call('ZADD', ends, now + keep_s, digest)
local gone = 0
while gone < MOST_GONE do
  local oldest, ends_at = unpack(redis.call('ZRANGE', ends, 0, 0, 'WITHSCORES'))
  if tonumber(ends_at) > now and all <= tonumber(most_bytes) then break end
  all = redis.call('DECRBY', bytes, redis.call('HSTRLEN', answers, oldest))
  redis.call('HDEL', answers, oldest)
  redis.call('ZREM', ends, oldest)
  gone = gone + 1
end
for _, key in ipairs({ answers, ends, bytes }) do
  if redis.call('TTL', key) < tonumber(keep_s) then redis.call('EXPIRE', key, keep_s) end
end
if string.match(redis.call('GET', asking) or '', '^%l+ %d+ (.*)$') == task then redis.call('DEL', asking) end
local waiting = redis.call('ZRANGE', twins, 0, -1)
redis.call('DEL', twins)
return waiting
