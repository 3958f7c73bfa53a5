-- Notes up to when a schedule's times are dealt with, never back. O(1).
--
-- KEYS  done      string: Unix seconds                                TTL: life_s, as the next
--       schedule  hash: its last submission, what went wrong, whether it is paused
-- ARGV  at        Unix seconds
--       life_s    of both keys, s
--       skipped   times that were left out (count)
--       fields    pairs field, value for the hash: what was submitted
-- Reply 1 noted;  0 an equal or a later time was: another beat came first
local done, schedule = unpack(KEYS)
local at, life_s, skipped = unpack(ARGV)
if tonumber(redis.call('GET', done) or 0) >= tonumber(at) then return 0 end
redis.call('SET', done, at, 'EX', life_s)
redis.call('HINCRBY', schedule, 'skipped', skipped)
if #ARGV >= FIELDS + 1 then redis.call('HSET', schedule, unpack(ARGV, FIELDS + 1)) end
redis.call('EXPIRE', schedule, life_s)
return 1
