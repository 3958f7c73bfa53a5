-- Ask to lead, and for the remedies if they have changed: the one thing every process does every few seconds.
--
-- KEYS  leader    string: process that watches the classes          TTL: lease_ms
--       version   string: grows with every change of the remedies; only read
--       remedies  hash: bot -> rung|generation; only read
-- ARGV  me        this process
--       lease_ms  life of the leader's lease, ms
--       known     version this process knows
-- Reply {leads (1 or 0), version, flat list of the remedies (empty when the version is known)}
local leader, version, remedies = unpack(KEYS)
local me, lease_ms, known = unpack(ARGV)

local leads = redis.call('GET', leader)
if not leads or leads == me then
  redis.call('SET', leader, me, 'PX', lease_ms)
end
local now = redis.call('GET', version) or '0'
return { (not leads or leads == me) and 1 or 0, tonumber(now), now ~= known and redis.call('HGETALL', remedies) or {} }
