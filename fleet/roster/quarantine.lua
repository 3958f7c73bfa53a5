-- Take a bot out of the order of checkouts: behind all others by `out`, where no checkout looks. O(log bots).
--
-- Its place keeps counting what it runs, so that it comes back with its true load. Out already: the new end and
-- reason hold.
--
-- KEYS  1 bots         sorted set: bot -> load * unit + ms of the last checkout, plus `out` while quarantined
--       2 quarantined  sorted set: bot -> end of its quarantine, us of Redis time (inf: until released)
--       3 reasons      hash: bot -> us of Redis time|who|why            TTL of all three: ARGV 4
-- ARGV  1 bot  2 out  3 length of the quarantine, us ('': until released)  4 life of the keys, s  5 who|why
-- Reply 1 out now, 0 was out before, -1 no such bot
local bots, quarantined, reasons = KEYS[1], KEYS[2], KEYS[3]
local bot, out, length_us, life_s = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local score = redis.call('ZSCORE', bots, bot)
if not score then
  return -1
end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local ends = length_us and string.format('%.0f', now_us + length_us) or '+inf'
local is_new = redis.call('ZADD', quarantined, ends, bot)
redis.call('HSET', reasons, bot, string.format('%.0f', now_us) .. '|' .. ARGV[5])
if tonumber(score) < out / 2 then
  redis.call('ZADD', bots, string.format('%.0f', tonumber(score) + out), bot)
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, life_s)
end
return is_new
