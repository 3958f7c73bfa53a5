-- Ends a claim on a queue: it is walked through again at its next end. O(log queues).
--
-- KEYS  ends     sorted set: queue -> the soonest end of a task that waits there (Redis time, s)
-- ARGV  queue    its name
--       claimed  score that the claim gave it: who queues a task with a sooner end meanwhile has lowered it
--       next_at  the soonest end that was seen; '': none
--       pause_s  seconds until the next walk at least
-- Reply 1, or 0 when the claim was lost
local queue, claimed, next_at, pause_s = unpack(ARGV)
local score = redis.call('ZSCORE', KEYS[ENDS], queue)
if not score or tonumber(score) ~= tonumber(claimed) then return 0 end
if next_at == '' then return redis.call('ZREM', KEYS[ENDS], queue) end
local not_before = redis.call('TIME')[1] + pause_s
redis.call('ZADD', KEYS[ENDS], math.max(tonumber(next_at), not_before), queue)
return 1
