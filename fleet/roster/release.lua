-- Give a quarantined bot its place in the order of checkouts back, with the load it carries by now. O(log bots).
-- Runs alone, or as a function inside the checkout.
--
-- KEYS  1 bots         sorted set: bot -> load * unit + ms of the last checkout, plus `out` while quarantined
--       2 quarantined  sorted set: bot -> end of its quarantine, us of Redis time (inf: until released)
--       3 reasons      hash: bot -> who quarantined it, since when and why
-- ARGV  1 bot  2 out
-- Reply 1 released, 0 it was not quarantined
local bots, quarantined, reasons = KEYS[1], KEYS[2], KEYS[3]
local bot, out = ARGV[1], tonumber(ARGV[2])

local was_out = redis.call('ZREM', quarantined, bot)
redis.call('HDEL', reasons, bot)
local score = redis.call('ZSCORE', bots, bot)
if score and tonumber(score) >= out / 2 then
  -- Beyond 2^60 a place is a multiple of 256: it must not come back as one in the future.
  local place = math.max(0, tonumber(score) - out)
  redis.call('ZADD', bots, string.format('%.0f', place - math.min(128, place % 2 ^ 40)), bot)
end
return was_out
