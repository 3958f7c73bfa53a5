-- Take a bot out of the order of checkouts: behind all others by OUT, where no checkout looks. O(log bots).
-- Runs alone, or as a function inside `health.lua`.
--
-- Its place keeps counting what it runs, so that it comes back with its true load. Out already: the new end and
-- reason hold.
--
-- KEYS  bots         sorted set: bot -> load * UNIT + ms of the last checkout, plus OUT while quarantined
--       quarantined  sorted set: bot -> end of its quarantine, us of Redis time (inf: until released)
--       reasons      hash: bot -> us of Redis time|who|why                           TTL of all three: life_s
-- ARGV  bot          its name
--       length_us    length of the quarantine ('': until released)
--       life_s       life of the keys, s
--       why          who|why
-- Reply 1 out now, 0 was out before, -1 no such bot
local bots, quarantined, reasons = unpack(KEYS)
local bot, length_us, life_s, why = unpack(ARGV)

local score = redis.call('ZSCORE', bots, bot)
if not score then
  return -1
end
local seconds, microseconds = unpack(redis.call('TIME'))
local now_us = seconds * 1000000 + microseconds
local ends = length_us ~= '' and string.format('%.0f', now_us + length_us) or '+inf'
local is_new = redis.call('ZADD', quarantined, ends, bot)
redis.call('HSET', reasons, bot, string.format('%.0f', now_us) .. '|' .. why)
if tonumber(score) < OUT / 2 then
  redis.call('ZADD', bots, string.format('%.0f', tonumber(score) + OUT), bot)
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, life_s)
end
return is_new
