-- Take over whom workers of releases up to 0.2 have put out, and reap the leases that they left behind. O(bots out).
--
-- A bot that they found bad is out here too, until the later of both ends. Their own order of bots, quarantines, and the
-- leases that their living processes hold, stay where these know them: as it starts, one of them lets every bot in that is
-- out without a quarantine. What was taken over is noted, so that a release here lasts. A lease is reaped there once it
-- has run out, and its task is noted here to have begun. Repeatable, as move_series.lua.
--
-- KEYS  old_quarantined, quarantined   sorted set: bot -> end of its quarantine, us of Redis time    TTL of all but the
--                                      old ones: life_s
--       old_reasons, reasons           hash: bot -> us of Redis time|who|why
--       old_probation, probation       sorted set: bot -> tasks that it still has to do well
--       old_classes, classes           sorted set: class of grades -> time of the last one
--       old_bots, bots                 sorted set: bot -> load * UNIT + ms of the last checkout, plus OUT while quarantined
--       old_leases                     sorted set: bot|token -> expiry, us of Redis time
--       old_claims                     hash: token -> bot
--       reaped                         sorted set: token -> s: leases that ran out, the newest REAPED_KEPT
--       taken_over                     hash: bot -> end|since (us) of its old quarantine
-- ARGV  life_s                         life of the keys, s
-- Reply keys that were moved, quarantines that were taken over, and leases that were reaped
-- Leases that are reaped in one step, at most.
local REAP_MOST = 1000
local old_quarantined, quarantined, old_reasons, reasons, old_probation, probation, old_classes, classes, old_bots, bots,
  old_leases, old_claims, reaped, taken_over = unpack(KEYS)
local life_s = ARGV[LIFE_S]
local moved = 0

local function put_out(bot, ends, reason)
  local there = redis.call('ZSCORE', quarantined, bot)
  if there and tonumber(there) >= tonumber(ends) then return end
  redis.call('ZADD', quarantined, ends, bot)
  if reason then redis.call('HSET', reasons, bot, reason) end
  local score = tonumber(redis.call('ZSCORE', bots, bot) or OUT)
  if score < OUT / 2 then redis.call('ZADD', bots, string.format('%.0f', score + OUT), bot) end
end

local function take_over_quarantines()
  local out = redis.call('ZRANGE', old_quarantined, 0, -1, 'WITHSCORES')
  if #out == 0 then return end
  for i = 1, #out, 2 do
    local bot, ends, reason = out[i], out[i + 1], redis.call('HGET', old_reasons, out[i])
    local told = ends .. '|' .. string.match(reason or '', '^%d*')
    if redis.call('HGET', taken_over, bot) ~= told then
      put_out(bot, ends, reason)
      redis.call('HSET', taken_over, bot, told)
      moved = moved + 1
    end
  end
  redis.call('EXPIRE', taken_over, life_s)
  redis.call('EXPIRE', quarantined, life_s)
  redis.call('EXPIRE', reasons, life_s)
end

local function take_over_probations()
  local tried = redis.call('ZRANGE', old_probation, 0, -1, 'WITHSCORES')
  for i = 1, #tried, 2 do
    if not redis.call('ZSCORE', quarantined, tried[i]) then redis.call('ZADD', probation, 'NX', tried[i + 1], tried[i]) end
  end
  moved = moved + redis.call('DEL', old_probation)
  redis.call('EXPIRE', probation, life_s)
end

local function take_over_classes()
  if redis.call('EXISTS', old_classes) == 0 then return end
  redis.call('ZUNIONSTORE', classes, 2, classes, old_classes, 'AGGREGATE', 'MAX')
  redis.call('EXPIRE', classes, life_s)
  moved = moved + redis.call('DEL', old_classes)
end

local function reap()
  local seconds, microseconds = unpack(redis.call('TIME'))
  local now_us = string.format('%.0f', seconds * 1000000 + microseconds)
  local over = redis.call('ZRANGEBYSCORE', old_leases, '-inf', now_us, 'LIMIT', 0, REAP_MOST)
  for _, member in ipairs(over) do
    local bot, token = string.match(member, '^([^|]+)|(.*)$')
    redis.call('ZREM', old_leases, member)
    redis.call('HDEL', old_claims, token)
    redis.call('ZADD', reaped, seconds, token)
    local score = redis.call('ZSCORE', old_bots, bot)
    if score and tonumber(score) >= UNIT then redis.call('ZINCRBY', old_bots, -UNIT, bot) end
  end
  if #over > 0 then
    redis.call('ZREMRANGEBYRANK', reaped, 0, -REAPED_KEPT - 1)
    redis.call('EXPIRE', reaped, life_s)
  end
  return #over
end

take_over_quarantines()
take_over_probations()
take_over_classes()
return moved + reap()
