-- Claims the queue in which a task's end has passed, or a task was revoked, for one walk through it. O(log queues).
--
-- KEYS  ends     sorted set: queue -> the soonest end of a task that waits there (Redis time, s)     no TTL: its entries go
-- ARGV  claim_s  seconds until the walk is begun anew by another, should whoever claims it die
-- Reply {queue, when the claim ends}; {} when none is due
local seconds, microseconds = unpack(redis.call('TIME'))
local now = seconds + microseconds / 1000000
local queue = unpack(redis.call('ZRANGEBYSCORE', KEYS[ENDS], '-inf', now, 'LIMIT', 0, 1))
if not queue then return {} end
local at = string.format('%.3f', now + ARGV[CLAIM_S])
redis.call('ZADD', KEYS[ENDS], at, queue)
return { queue, at }
