-- Ask to lead, and for the remedies if they have changed: the one thing every process does every few seconds.
--
-- KEYS  1 leader    string: process that watches the classes   TTL: ARGV 2
--       2 version   string: grows with every change of the remedies; only read
--       3 remedies  hash: bot -> rung|generation; only read
-- ARGV  1 this process  2 life of the leader's lease, ms  3 version this process knows
-- Reply {leads (1 or 0), version, flat list of the remedies (empty when the version is known)}

local leader, version, remedies = KEYS[1], KEYS[2], KEYS[3]
local me, lease_ms, known = ARGV[1], ARGV[2], ARGV[3]

local leads = redis.call('GET', leader)
if not leads or leads == me then
  redis.call('SET', leader, me, 'PX', lease_ms)
end
local now = redis.call('GET', version) or '0'
return { (not leads or leads == me) and 1 or 0, tonumber(now), now ~= known and redis.call('HGETALL', remedies) or {} }
