-- Stores that a member of a job was revoked, wakes who waits, and counts it, unless it has another result. O(1).
--
-- KEYS  result         string: JSON as Celery's Redis backend stores it; also the channel   TTL: result_life_s
--       job, members, order, due, follower, live   see end_member.lua
-- ARGV  payload        result JSON
--       result_life_s  s
--       job_id, position, ended_as, life_s   see end_member.lua
-- Reply 1 stored, 0 it has a result; one that says the same is counted, if it was not
local WITHDRAWN = '"status": "REVOKED"'
local result, job, members, order, due, follower, live = unpack(KEYS)
local payload, result_life_s, job_id, position, ended_as, life_s = unpack(ARGV)
local is_stored = redis.call('SET', result, payload, 'NX', 'EX', result_life_s)
if is_stored then
  redis.call('PUBLISH', result, payload)
elseif string.sub(redis.call('GET', result), 2, #WITHDRAWN + 1) ~= WITHDRAWN then
  return 0
end
end_member({ job, members, order, due, follower, live }, { job_id, position, ended_as, life_s })
return is_stored and 1 or 0
