-- Take a bot out that a test has found bad, unless too many of its pool are out: then the alarm is an event. O(log bots).
-- A function inside `health.lua` and `grade.lua`.
--
-- KEYS  bots, quarantined, reasons   see quarantine.lua
--       probation    sorted set: bot -> tasks that it still has to do well
--       events       stream: what happened to the fleet, about 1,000 entries; TTL life_s
--       quiet        string: the cap's alarm was recorded a moment ago; TTL a minute
-- ARGV  bot          its name
--       pool         of the bot
--       reason       what is told
--       quarantines  quarantines that it had lately
--       quarantine_us  length of a first quarantine
--       most_out     most of a pool that may be out, a share
--       life_s       life of the keys, s
--       quarantined_event, cap_event   names of the events
-- Reply 1 it is out, 0 it stays in
local bots, quarantined, reasons, probation, events, quiet = unpack(KEYS)
local bot, pool, reason, quarantines, quarantine_us, most_out, life_s = unpack(ARGV)
-- Most times that a quarantine's length doubles.
local MOST_DOUBLED = 10
local MOST_EVENTS = 1000

local function tell(event, ...)
  redis.call('XADD', events, 'MAXLEN', '~', MOST_EVENTS, '*', 'event', event, 'pool', pool, 'bot', bot, ...)
  redis.call('EXPIRE', events, life_s)
end

local fleet_size = redis.call('ZCARD', bots)
local are_out = redis.call('ZCOUNT', bots, string.format('%.0f', OUT / 2), '+inf')
local allowed = math.floor(most_out * fleet_size)
if are_out + 1 > allowed then
  if allowed > 0 and redis.call('SET', quiet, 1, 'NX', 'EX', 60) then
    tell(ARGV[CAP_EVENT], 'out', are_out, 'of', fleet_size)
  end
  return 0
end
local seconds, microseconds = unpack(redis.call('TIME'))
math.randomseed((seconds * 1000000 + microseconds) % 2147483647)
local longer = 2 ^ math.min(quarantines, MOST_DOUBLED) * (0.8 + 0.4 * math.random())
local length_us, why = string.format('%.0f', quarantine_us * longer), 'health|' .. reason
quarantine({ bots, quarantined, reasons }, { bot, length_us, life_s, why })
redis.call('ZREM', probation, bot)
tell(ARGV[QUARANTINED_EVENT], 'by', 'health', 'reason', reason)
return 1
