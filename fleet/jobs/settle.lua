-- Notes that the task that follows a job was queued, and forgets what it was. O(log jobs).
--
-- KEYS  job       hash
--       due       sorted set: job id -> time
--       follower  string: the task
-- ARGV  job_id
-- Reply 1 noted, 0 it was before
local job, due, follower = unpack(KEYS)
redis.call('DEL', follower)
if redis.call('EXISTS', job) == 1 then redis.call('HSETNX', job, 'called_at', redis.call('TIME')[1]) end
return redis.call('ZREM', due, ARGV[JOB_ID])
