-- Looks whether plain Celery clients have queued tasks with an end: they say so in their messages only. Then the queue is to
-- be walked through now. O(lists x count), and a look into the middle of each list.
--
-- KEYS  ends        sorted set: queue -> the soonest end of a task that waits there (Redis time, s)    no TTL: its entries go
--       lists       of the queue, one per priority
-- ARGV  queue       its name
--       count       messages to look at in each list: so many of the newest, of the next ones, and of those in the middle
--       middle      where that begins, as a share of the list (0 to 1)
--       most_bytes  bytes of messages after which it looks no further
--       bot_task    how a message names the task of bots
-- Reply 1 when it is to be walked through, else 0
local count, left = tonumber(ARGV[COUNT]), tonumber(ARGV[MOST_BYTES])

local function has_end(list, from, to)
  for place = from, to do
    local message = left > 0 and redis.call('LINDEX', list, place)
    if not message then return false end
    left = left - #message
    local says = string.find(message, '"expires": "', 1, true) and not string.find(message, '"fleet_expires"', 1, true)
    if says and string.find(message, ARGV[BOT_TASK], 1, true) then return true end
  end
  return false
end

for i = LISTS + 1, #KEYS do
  local list = KEYS[i]
  if redis.call('TYPE', list).ok == 'list' then
    local length = redis.call('LLEN', list)
    local most = math.min(count, length)
    local middle = math.floor(ARGV[MIDDLE] * (length - most))
    if has_end(list, 0, most - 1) or has_end(list, -most, -1) or has_end(list, middle, middle + most - 1) then
      redis.call('ZADD', KEYS[ENDS], 'LT', redis.call('TIME')[1], ARGV[QUEUE])
      return 1
    end
  end
end
return 0
