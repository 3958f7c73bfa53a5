-- Seals a job: it has so many members and gets no more. The first seal stands. O(log jobs).
--
-- KEYS  job            hash
--       due, follower  see complete.lua
-- ARGV  job_id
--       life_s         s
--       total          members (count)
--       is_cancelled   1: it is cancelled as well, and no task follows it
-- Reply 1 sealed, 0 there is no such job
local job, due, follower = unpack(KEYS)
local job_id, life_s, total, is_cancelled = unpack(ARGV)
if redis.call('EXISTS', job) == 0 then return 0 end
redis.call('HSETNX', job, 'total', total)
if is_cancelled == '1' then redis.call('HSETNX', job, 'cancelled_at', redis.call('TIME')[1]) end
complete({ job, due, follower }, { job_id, life_s })
redis.call('EXPIRE', job, life_s)
return 1
