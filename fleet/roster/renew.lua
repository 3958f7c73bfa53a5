-- Push the expiry of the leases that a worker process holds, of all its pools in one call. O(leases held).
--
-- A lease that has been reaped stays lost: its bot may carry other tasks by now.
--
-- KEYS  1.. leases, one per pool  sorted set: bot|token -> expiry, us of Redis time   TTL: ARGV 2
-- ARGV  1 life of the lease, us  2 life of the keys, s  3.. pairs: index into KEYS, member bot|token
-- Reply list of the positions (from 0) of the pairs whose lease is lost

local lease_us, life_s = tonumber(ARGV[1]), ARGV[2]
local time = redis.call('TIME')
local expiry_us = string.format('%.0f', time[1] * 1000000 + time[2] + lease_us)

local lost = {}
for position = 0, (#ARGV - 2) / 2 - 1 do
  local leases, member = KEYS[tonumber(ARGV[3 + 2 * position])], ARGV[4 + 2 * position]
  if redis.call('ZSCORE', leases, member) then
    redis.call('ZADD', leases, expiry_us, member)
  else
    lost[#lost + 1] = position
  end
end
for _, leases in ipairs(KEYS) do
  redis.call('EXPIRE', leases, life_s)
end
return lost
