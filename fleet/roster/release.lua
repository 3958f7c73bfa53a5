-- Give a quarantined bot its place in the order of checkouts back, with the load it carries by now. O(log bots).
-- Runs alone, or as a function inside the checkout.
--
-- KEYS  bots         sorted set: bot -> load * UNIT + ms of the last checkout, plus OUT while quarantined
--       quarantined  sorted set: bot -> end of its quarantine, us of Redis time (inf: until released)
--       reasons      hash: bot -> us of Redis time|who|why                           TTL of all: as it was
-- ARGV  bot          its name
-- Reply 1 released, 0 it was not quarantined
local bots, quarantined, reasons = unpack(KEYS)
local bot = ARGV[BOT]
-- Beyond 2^60 a place is a multiple of 256: it must not come back as one in the future.
local MOST_BACK = 128

local was_out = redis.call('ZREM', quarantined, bot)
redis.call('HDEL', reasons, bot)
local score = redis.call('ZSCORE', bots, bot)
if score and tonumber(score) >= OUT / 2 then
  local place = math.max(0, tonumber(score) - OUT)
  redis.call('ZADD', bots, string.format('%.0f', place - math.min(MOST_BACK, place % UNIT)), bot)
end
return was_out
