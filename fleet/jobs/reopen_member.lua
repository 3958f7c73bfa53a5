-- Counts a member of a job as one that has not ended: it is about to be queued again. O(log jobs).
--
-- KEYS  job       hash                                                        TTL: as it has
--       members   string: a byte per member                                   TTL: as it has
--       live      sorted set: jobs that are not over                          TTL: life_s
--       lost      sorted set: task id -> since when it is in no queue; that is over
-- ARGV  job_id
--       position  of the member, from 0
--       task_id   its task id
--       life_s    s
-- Reply 1 reopened, 0 it had not ended, or there is no such job
local job, members, live, lost = unpack(KEYS)
local job_id, position, task_id, life_s = unpack(ARGV)
redis.call('ZREM', lost, task_id)
if redis.call('EXISTS', job) == 0 then return 0 end
local before = redis.call('GETRANGE', members, position, position)
if before == '' or before == '\0' then return 0 end
redis.call('SETRANGE', members, position, '\0')
redis.call('HINCRBY', job, before, -1)
redis.call('HINCRBY', job, 'ended', -1)
redis.call('HDEL', job, 'done_at')
redis.call('ZADD', live, 'NX', redis.call('HGET', job, 'made'), job_id)
redis.call('EXPIRE', live, life_s)
return 1
