-- Drops kept answers. O(digests x log kept).
--
-- KEYS  answers, ends, bytes   see look.lua
-- ARGV  digests*
-- Reply those that were there (count)
local answers, ends, bytes = unpack(KEYS)
local dropped = 0
for i = DIGESTS + 1, #ARGV do
  local size = redis.call('HSTRLEN', answers, ARGV[i])
  if redis.call('HDEL', answers, ARGV[i]) == 1 then
    redis.call('ZREM', ends, ARGV[i])
    redis.call('DECRBY', bytes, size)
    dropped = dropped + 1
  end
end
return dropped
