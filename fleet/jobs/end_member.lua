-- Counts a member of a job that has ended, once. O(1). One that ended before, and otherwise, was queued again: its
-- newer end counts instead.
-- A function inside the scripts that store results, so that both are one step.
--
-- KEYS  job       hash                                                         TTL of all: life_s
--       members   string: a byte per member
--       order     stream: `m` position
--       due, follower, live   see complete.lua
-- ARGV  job_id
--       position  of the member, from 0
--       ended_as  one byte: o ok, d degraded, f failed, c cancelled
--       life_s    s
-- Reply 1 counted;  0 it was counted so before, or there is no such job
local job, members, order, due, follower, live = unpack(KEYS)
local job_id, position, ended_as, life_s = unpack(ARGV)
local made, total = unpack(redis.call('HMGET', job, 'made', 'total'))
if not made then return 0 end
local before = redis.call('GETRANGE', members, position, position)
if before == ended_as then return 0 end
redis.call('SETRANGE', members, position, ended_as)
redis.call('XADD', order, '*', 'm', position)
redis.call('HINCRBY', job, ended_as, 1)
if before ~= '' and before ~= '\0' then
  redis.call('HINCRBY', job, before, -1)
  return 1
end
local ended = redis.call('HINCRBY', job, 'ended', 1)
local is_over = total and ended >= tonumber(total) and complete({ job, due, follower, live }, { job_id, life_s }) == 1
if is_over or ended % LIVES_EVERY == 1 then
  for _, key in ipairs({ job, members, order, follower }) do redis.call('EXPIRE', key, life_s) end
end
return 1
