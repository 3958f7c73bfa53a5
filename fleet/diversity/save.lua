-- Replace the state of one class, unless somebody else changed it meanwhile: another leader, or an operator.
--
-- KEYS  1 states  hash: pool|kind -> JSON   TTL: ARGV 4
-- ARGV  1 field of the class  2 JSON that the change began with ('': none)  3 new JSON  4 life of the key, s
-- Reply 1 replaced, 0 it was another one

local states = KEYS[1]
local class, before, after, life_s = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if (redis.call('HGET', states, class) or '') ~= before then
  return 0
end
redis.call('HSET', states, class, after)
redis.call('EXPIRE', states, life_s)
return 1
