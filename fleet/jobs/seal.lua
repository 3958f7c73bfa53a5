-- Seals a job: it has so many members and gets no more. The first seal stands, but for a producer that learns of a cancel
-- when more are queued. O(log jobs).
--
-- KEYS  job            hash
--       due, follower, live  see complete.lua
-- ARGV  job_id
--       life_s         s
--       total          members (count)
--       is_cancelled   1: it is cancelled as well, and no task follows it
-- Reply 1 sealed, 0 there is no such job
local job, due, follower, live = unpack(KEYS)
local job_id, life_s, total, is_cancelled = unpack(ARGV)
if redis.call('EXISTS', job) == 0 then return 0 end
redis.call('HSETNX', job, 'total', total)
if is_cancelled == '1' then
  redis.call('HSETNX', job, 'cancelled_at', redis.call('TIME')[1])
  if tonumber(redis.call('HGET', job, 'total')) < tonumber(total) then redis.call('HSET', job, 'total', total) end
end
complete({ job, due, follower, live }, { job_id, life_s })
redis.call('EXPIRE', job, life_s)
return 1
