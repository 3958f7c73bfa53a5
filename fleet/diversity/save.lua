-- Replace the state of one class, unless somebody else changed it meanwhile: another leader, or an operator.
--
-- KEYS  states  hash: pool|kind -> JSON; |pool|kind -> time of its alarm, Unix s     TTL: life_s
-- ARGV  field   of its class
--       before  JSON that the change began with ('': none)
--       after   new JSON
--       alarm_field  of the time of its alarm, beside it: earlier releases refuse a state with a field that they do not know
--       alarm_at     that time ('': there is no alarm)
--       life_s  life of the key, s
-- Reply 1 replaced, 0 it was another one
local states = KEYS[STATES]
local field, before, after, alarm_field, alarm_at, life_s = unpack(ARGV)
if (redis.call('HGET', states, field) or '') ~= before then
  return 0
end
redis.call('HSET', states, field, after)
if alarm_at == '' then
  redis.call('HDEL', states, alarm_field)
else
  redis.call('HSET', states, alarm_field, alarm_at)
end
redis.call('EXPIRE', states, life_s)
return 1
