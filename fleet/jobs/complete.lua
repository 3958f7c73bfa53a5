-- Notes that a job is over, once: it is sealed and all of its members have ended. O(log jobs).
-- A function inside `end_member.lua` and `seal.lua`.
--
-- KEYS  job       hash                                                            TTL: as it has
--       due       sorted set: jobs whose task that follows is to be queued        TTL: life_s
--       follower  string: that task; only looked at
--       live      sorted set: jobs that are not over                              TTL: as it has
-- ARGV  job_id  of the job
--       life_s  s
-- Reply 1 it is over now, 0 it is not, or was before
local job, due, follower, live = unpack(KEYS)
local total, ended, done_at, cancelled_at = unpack(redis.call('HMGET', job, 'total', 'ended', 'done_at', 'cancelled_at'))
if not total or done_at or tonumber(ended or 0) < tonumber(total) then return 0 end
local now = redis.call('TIME')[1]
redis.call('HSET', job, 'done_at', now)
redis.call('ZREM', live, ARGV[JOB_ID])
if not cancelled_at and redis.call('EXISTS', follower) == 1 then
  redis.call('ZADD', due, now, ARGV[JOB_ID])
  redis.call('EXPIRE', due, ARGV[LIFE_S])
end
return 1
