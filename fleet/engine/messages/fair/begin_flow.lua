-- Gives a flow that was empty its turn, unless it has one still: now, as who has waited longest for theirs. O(log flows).
-- A function inside the scripts that queue messages.
--
-- KEYS  ring     sorted set of a list: flow -> its turn
--       beside   list: the flow's other part (flow_keys.old, flow_keys.flow)
-- ARGV  name     of the flow
--       flag     string: the list's queue has flows; 'weighted' when some may have weights
--       weights  hash: flow -> weight of its tenant
-- Reply 1 when no other flow has a turn, and nothing is in its other part, else 0
--
-- The keys are named by list and queue, not declared: the broker is one Redis, never a cluster.
local ring, beside = unpack(KEYS)
local name, flag, weights = unpack(ARGV)
local other, now = unpack(redis.call('ZRANGE', ring, 0, 0, 'WITHSCORES'))
redis.call('ZADD', ring, 'NX', now or 0, name)
redis.call('SET', flag, redis.call('EXISTS', weights) == 1 and 'weighted' or 'even')
local is_alone = not other or (other == name and redis.call('ZCARD', ring) == 1)
return is_alone and redis.call('EXISTS', beside) == 0 and 1 or 0
