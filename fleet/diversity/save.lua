-- Replace the state of one class, unless somebody else changed it meanwhile: another leader, or an operator.
--
-- KEYS  states  hash: pool|kind -> JSON                             TTL: life_s
-- ARGV  field   of its class
--       before  JSON that the change began with ('': none)
--       after   new JSON
--       life_s  life of the key, s
-- Reply 1 replaced, 0 it was another one
local states = KEYS[STATES]
local field, before, after, life_s = unpack(ARGV)
if (redis.call('HGET', states, field) or '') ~= before then
  return 0
end
redis.call('HSET', states, field, after)
redis.call('EXPIRE', states, life_s)
return 1
