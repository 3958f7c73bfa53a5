-- Replaces the weights of tenants, in one step. O(tenants).
--
-- KEYS  weights  hash: flow -> weight of its tenant
-- ARGV  table    pairs of them
-- Reply how many there are
local weights = KEYS[WEIGHTS]
redis.call('DEL', weights)
for i = TABLE + 1, #ARGV, 2 do redis.call('HSET', weights, ARGV[i], ARGV[i + 1]) end
return (#ARGV - TABLE) / 2
