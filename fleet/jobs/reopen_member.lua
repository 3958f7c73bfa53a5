-- Counts a member of a job as one that has not ended: it is about to be queued again. O(1).
--
-- KEYS  job       hash                          TTL: as it has
--       members   string: a byte per member     TTL: as it has
-- ARGV  position  of the member, from 0
-- Reply 1 reopened, 0 it had not ended, or there is no such job
local job, members = unpack(KEYS)
local position = ARGV[POSITION]
if redis.call('EXISTS', job) == 0 then return 0 end
local before = redis.call('GETRANGE', members, position, position)
if before == '' or before == '\0' then return 0 end
redis.call('SETRANGE', members, position, '\0')
redis.call('HINCRBY', job, before, -1)
redis.call('HINCRBY', job, 'ended', -1)
redis.call('HDEL', job, 'done_at')
return 1
