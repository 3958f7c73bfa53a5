-- Replaces the weights of tenants, in one step, and says so where flows wait. O(tenants + queues).
--
-- KEYS  weights  hash: flow -> weight of its tenant
--       flags    strings, one per queue: present while it has flows, see flows.py
-- ARGV  table    pairs of a flow and its weight
-- Reply how many there are
local weights, count = KEYS[WEIGHTS], (#ARGV - TABLE) / 2
redis.call('DEL', weights)
for i = TABLE + 1, #ARGV, 2 do redis.call('HSET', weights, ARGV[i], ARGV[i + 1]) end
for i = FLAGS + 1, #KEYS do redis.call('SET', KEYS[i], count > 0 and 'weighted' or 'even', 'XX') end
return count
