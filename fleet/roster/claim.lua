-- Check out the bot that has done a task's work already, for its answer to be judged: it makes no call. O(log bots).
--
-- Its quarantine is no hindrance. The same token again answers the same.
--
-- KEYS  bots      sorted set: bot -> load * UNIT + ms of the last checkout    TTL of this and all below: life_s
--       leases    sorted set: bot|token -> expiry, us of Redis time
--       claims    hash: token -> bot
-- ARGV  bot       whose answer it is
--       token     unique per execution of the task
--       lease_us  life of the lease
--       life_s    life of the keys, s
-- Reply 1 checked out;  0 there is no such bot any more
local bots, leases, claims = unpack(KEYS)
local bot, token, lease_us, life_s = unpack(ARGV)
if not redis.call('ZSCORE', bots, bot) then return 0 end
local seconds, microseconds = unpack(redis.call('TIME'))
if redis.call('HSETNX', claims, token, bot) == 1 then redis.call('ZINCRBY', bots, UNIT, bot) end
redis.call('ZADD', leases, string.format('%.0f', seconds * 1000000 + microseconds + lease_us), bot .. '|' .. token)
redis.call('EXPIRE', leases, life_s)
redis.call('EXPIRE', claims, life_s)
return 1
