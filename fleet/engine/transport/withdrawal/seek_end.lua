-- Looks whether plain Celery clients have queued tasks with an end: they say so in their messages only. Then the queue is to
-- be walked through at the soonest that is seen. O(lists x count), at the two ends of each list.
--
-- KEYS  ends        sorted set: queue -> the soonest end of a task that waits there (Redis time, s)    no TTL: its entries go
--       lists       of the queue, one per priority
-- ARGV  queue       its name
--       count       messages to look at in each list: so many of the newest, and of the next ones
--       most_bytes  of a message; a longer one is left to whoever takes it, as in withdraw.lua
--       sought_bytes  bytes of messages after which it looks no further
--       settled_s   a score that comes so soon stays: it may be a running claim, or a pause between walks
--       bot_task    how a message names the task of bots
-- Reply 1 when it is to be walked through sooner than was known, else 0
local count, most_bytes, left = tonumber(ARGV[COUNT]), tonumber(ARGV[MOST_BYTES]), tonumber(ARGV[SOUGHT_BYTES])
local settled_s, soonest = tonumber(ARGV[SETTLED_S]), nil

local function end_in(message)
  if #message > most_bytes or string.find(message, '"fleet_expires"', 1, true) then return nil end
  local said = string.find(message, '"expires": "', 1, true)
  local text = said and string.match(message, '^"expires": "([^"]*)"', said)
  return text and string.find(message, ARGV[BOT_TASK], 1, true) and iso_time({}, { text }) or nil
end

local function look(list, from, to)
  for place = from, to do
    local message = left > 0 and redis.call('LINDEX', list, place)
    if not message then return end
    left = left - #message
    local ends = end_in(message)
    if ends and (not soonest or ends < soonest) then soonest = ends end
  end
end

for i = LISTS + 1, #KEYS do
  local list = KEYS[i]
  if redis.call('TYPE', list).ok == 'list' then
    local length = redis.call('LLEN', list)
    local newest = math.min(count, length)
    look(list, 0, newest - 1)
    look(list, -math.min(count, length - newest), -1)
  end
end
if not soonest then return 0 end
local at = string.format('%.3f', soonest)
local settled_at = redis.call('TIME')[1] + 1 + settled_s
local score = redis.call('ZSCORE', KEYS[ENDS], ARGV[QUEUE])
if score and tonumber(score) <= math.max(settled_at, tonumber(at)) then return 0 end
redis.call('ZADD', KEYS[ENDS], at, ARGV[QUEUE])
return 1
