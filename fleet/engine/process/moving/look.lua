-- Tell what there is to move of pools; changes nothing. O(keys).
--
-- KEYS  places  of each pool, by its old names: leases (sorted set), quarantined (sorted set), then all that is moved whole
-- ARGV  sizes   of each pool: how many of these keys are its own
-- Reply for each pool 0 nothing, 1 bots that are out or leases that ran out, 2 more than that
local seconds, microseconds = unpack(redis.call('TIME'))
local now_us = string.format('%.0f', seconds * 1000000 + microseconds)
local found, leases = {}, PLACES + 1
for pool = SIZES + 1, #ARGV do
  local next_leases, quarantined = leases + ARGV[pool], leases + 1
  found[#found + 1] = 0
  if redis.call('EXISTS', unpack(KEYS, quarantined + 1, next_leases - 1)) > 0 then
    found[#found] = 2
  elseif redis.call('EXISTS', KEYS[quarantined]) + redis.call('ZCOUNT', KEYS[leases], '-inf', now_us) > 0 then
    found[#found] = 1
  end
  leases = next_leases
end
return found
