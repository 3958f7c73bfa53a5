-- Push the expiry of the leases that a worker process holds, of all its pools in one call. O(leases held).
--
-- A lease that has been reaped stays lost: its bot may carry other tasks by now.
--
-- KEYS  leases    one per pool, sorted set: bot|token -> expiry, us of Redis time   TTL: life_s
-- ARGV  lease_us  life of the lease
--       life_s    life of the keys, s
--       pairs     index into KEYS, member bot|token
-- Reply list of the positions (from 0) of the pairs whose lease is lost
local seconds, microseconds = unpack(redis.call('TIME'))
local expiry_us = string.format('%.0f', seconds * 1000000 + microseconds + ARGV[LEASE_US])

local lost, position = {}, 0
for i = PAIRS + 1, #ARGV, 2 do
  local leases, member = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  if redis.call('ZSCORE', leases, member) then
    redis.call('ZADD', leases, expiry_us, member)
  else
    lost[#lost + 1] = position
  end
  position = position + 1
end
for _, leases in ipairs(KEYS) do
  redis.call('EXPIRE', leases, ARGV[LIFE_S])
end
return lost
