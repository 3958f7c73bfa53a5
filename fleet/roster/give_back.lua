-- Checks bots in whose task has not ended: it waits, and nothing is counted for or against them. O(log bots).
--
-- KEYS  bots    sorted set: bot -> load * UNIT + ms of the last checkout
--       leases  sorted set: bot|token -> expiry, us of Redis time
--       claims  hash: token -> bot
-- ARGV  pairs   bot, token of each
-- Reply bots checked in; a lease that had run out before is none
local bots, leases, claims = unpack(KEYS)
local count = 0
for i = PAIRS + 1, #ARGV, 2 do
  local bot, token = ARGV[i], ARGV[i + 1]
  if redis.call('ZREM', leases, bot .. '|' .. token) == 1 then
    redis.call('HDEL', claims, token)
    local score = redis.call('ZSCORE', bots, bot)
    if score and tonumber(score) >= UNIT then redis.call('ZINCRBY', bots, -UNIT, bot) end
    count = count + 1
  end
end
return count
