-- Check out the least-loaded bot of a pool; among equal loads the one whose last checkout is longest ago.
--
-- Nothing is checked out for a task that has a result already. The same token again answers the same bot.
-- Expired leases are reaped first, a bounded number per call: their holders died, so their bots' loads go down; so are
-- quarantines that are over. A quarantined bot's score has `out` added, so it comes after all others and is not taken.
--
-- KEYS  1 result  string: the task's result; only read
--       2 bots    sorted set: bot -> load * unit + ms of the last checkout   TTL of this and all below: ARGV 5
--       3 leases  sorted set: bot|token -> expiry, us of Redis time
--       4 claims  hash: token -> bot
--       5 quarantined  sorted set: bot -> end of its quarantine, us of Redis time
--       6 reasons      hash: bot -> who quarantined it, since when and why
-- ARGV  1 token  2 life of the lease, us  3 one unit of load  4 first ms of the clock  5 life of the keys, s
--       6 expired leases and quarantines reaped at most  7 out
-- Reply {code, bot}: {1, bot} checked out, {0, ''} the task has a result, {-1, ''} the pool has no bots,
--       {-2, ''} all of its bots are quarantined

local result, bots, leases, claims = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, lease_us, unit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local clock_start_ms, life_s, reap_most = tonumber(ARGV[4]), ARGV[5], ARGV[6]
local quarantined, reasons, out = KEYS[5], KEYS[6], tonumber(ARGV[7])

if redis.call('EXISTS', result) == 1 then
  return { 0, '' }
end

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000) - clock_start_ms

for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', string.format('%.0f', now_us), 'LIMIT', 0, reap_most)) do
  local bot, held_by = string.match(member, '^([^|]+)|(.*)$')
  redis.call('ZREM', leases, member)
  redis.call('HDEL', claims, held_by)
  local score = redis.call('ZSCORE', bots, bot)
  if score and tonumber(score) >= unit then
    redis.call('ZINCRBY', bots, string.format('%.0f', -unit), bot)
  end
end

for _, over in ipairs(redis.call('ZRANGEBYSCORE', quarantined, '-inf', string.format('%.0f', now_us), 'LIMIT', 0, reap_most)) do
  release({ bots, quarantined, reasons }, { over, ARGV[7] })
end

local bot = redis.call('HGET', claims, token)
if not bot then
  local first = redis.call('ZRANGE', bots, 0, 0, 'WITHSCORES')
  if #first == 0 then
    return { -1, '' }
  end
  if tonumber(first[2]) >= out / 2 then
    return { -2, '' }
  end
  bot = first[1]
  local load = math.floor(tonumber(first[2]) / unit)
  redis.call('ZADD', bots, string.format('%.0f', (load + 1) * unit + now_ms), bot)
  redis.call('HSET', claims, token, bot)
end
redis.call('ZADD', leases, string.format('%.0f', now_us + lease_us), bot .. '|' .. token)
redis.call('EXPIRE', bots, life_s)
redis.call('EXPIRE', leases, life_s)
redis.call('EXPIRE', claims, life_s)
redis.call('EXPIRE', quarantined, life_s)
redis.call('EXPIRE', reasons, life_s)
return { 1, bot }
