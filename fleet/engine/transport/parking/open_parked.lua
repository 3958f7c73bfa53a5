-- Opens what is parked and whose time has come: it goes to the end of its list, in the order of opening times, as if it
-- had been queued just then; or to the head, if it only waited: it has its old place then. O(opened x log parked), at
-- most `most` messages of 16 queues.
--
-- KEYS  parked, openings   see park.lua
--       bell            stream, one entry
--       epochs          hash: list key -> times it was filled from empty
-- ARGV  now             Redis time, s
--       most            messages to open (count)
--       order_prefix    of the sorted sets beside the queues
--       waiting_prefix  of the keys that tell which queues have messages
--       separator       kombu's, in list keys
--       mark_prefix, fair   see enter.lua
--       priorities      of a queue (count)
--       list_prefix     before queues, in list keys
-- Reply number of messages opened
--
-- Lists and sets are named by queue, not declared: the broker is one Redis, never a cluster. A queue is also due when its
-- hold opens: takes have struck it off meanwhile (take.lua), and find it again by this. An entry that names a list of another
-- queue goes into its own queue's: who may submit to one pool must not reach others (roles.py).
local QUEUES = 16
local parked, openings, bell, epochs = unpack(KEYS)
local now, most, order_prefix, waiting_prefix, separator, mark_prefix, priorities, fair, list_prefix = unpack(ARGV)
local opened, flow = 0, ''

-- Puts one message into its list, if it belongs to this end of it: a reason that says so goes to the head.
local function open(queue, entry, side)
  local list, reason, message = string.match(entry, '^([^\n]*)\n([^\n]*)\n(.*)$')
  if not list or (string.find(reason, '"to": "head"', 1, true) and 'RPUSH' or 'LPUSH') ~= side then return end
  local _, last = string.find(list, separator, 1, true)
  list = list_prefix .. queue .. (last and separator .. string.sub(list, last + 1) or '')
  enter({ epochs }, { side, list, message, flow, separator, fair, mark_prefix })
  redis.call('ZADD', waiting_prefix .. (last and string.sub(list, last + 1) or '0'), 0, queue)
end

for _, queue in ipairs(redis.call('ZRANGEBYSCORE', openings, '-inf', now, 'LIMIT', 0, QUEUES)) do
  local order = order_prefix .. queue
  local due = redis.call('ZRANGEBYSCORE', order, '-inf', now, 'LIMIT', 0, most - opened)
  if #due > 0 then
    local entries = redis.call('HMGET', parked, unpack(due))
    redis.call('HDEL', parked, unpack(due))
    redis.call('ZREM', order, unpack(due))
    for i = 1, #due do
      if entries[i] then open(queue, entries[i], 'LPUSH') end
    end
    for i = #due, 1, -1 do  -- the first ends at the head
      if entries[i] then open(queue, entries[i], 'RPUSH') end
    end
    opened = opened + #due
  end
  for step = 0, priorities - 1 do redis.call('ZADD', waiting_prefix .. step, 0, queue) end
  local _, next_at = unpack(redis.call('ZRANGE', order, 0, 0, 'WITHSCORES'))
  if next_at then redis.call('ZADD', openings, next_at, queue) else redis.call('ZREM', openings, queue) end
end
if opened > 0 then redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1) end
return opened
