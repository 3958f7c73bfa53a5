-- Renews a claim on a queue, while its walk goes on. O(log queues).
--
-- KEYS  ends     sorted set: queue -> the soonest end of a task that waits there (Redis time, s)
-- ARGV  queue    its name
--       claimed  score that the claim gave it, see finish_walk.lua
--       claim_s  seconds until the walk is begun anew by another, should whoever claims it die
-- Reply when the claim ends now; '' when it was lost
local queue, claimed, claim_s = unpack(ARGV)
local score = redis.call('ZSCORE', KEYS[ENDS], queue)
if not score or tonumber(score) ~= tonumber(claimed) then return '' end
local seconds, microseconds = unpack(redis.call('TIME'))
local at = string.format('%.3f', seconds + microseconds / 1000000 + claim_s)
redis.call('ZADD', KEYS[ENDS], at, queue)
return at
