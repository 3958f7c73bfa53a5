-- Read how the bots of pools stand; changes nothing. O(bots at work, out or on probation).
--
-- KEYS  sets   of each pool four sorted sets: bots (bot -> load * UNIT + ms of the last checkout), leases (bot|token ->
--              expiry, us of Redis time), quarantined (bot -> end, us), probation (bot -> tasks to do well)
-- ARGV  unit   score of one task in hand
-- Reply for each pool {bots at work or out with their scores, checkouts that run, quarantined bots with their ends, bots
--       on probation, leases that ran out and that no checkout has reaped yet (the first DEAD_MOST)}
local DEAD_MOST = 10000
local seconds, micros = unpack(redis.call('TIME'))
local now_us, reply = seconds .. string.format('%06d', micros), {}
for i = SETS + 1, #KEYS, 4 do
  reply[#reply + 1] = {
    redis.call('ZRANGEBYSCORE', KEYS[i], ARGV[UNIT], '+inf', 'WITHSCORES'),
    redis.call('ZCOUNT', KEYS[i + 1], now_us, '+inf'),
    redis.call('ZRANGE', KEYS[i + 2], 0, -1, 'WITHSCORES'),
    redis.call('ZRANGE', KEYS[i + 3], 0, -1),
    redis.call('ZRANGEBYSCORE', KEYS[i + 1], '-inf', '(' .. now_us, 'LIMIT', 0, DEAD_MOST),
  }
end
return reply
