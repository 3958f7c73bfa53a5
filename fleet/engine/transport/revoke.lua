-- Marks tasks as revoked: whoever takes one of them does not start it. What is parked goes to the head of its list, for a
-- worker must meet it to tell who waits for it. O(ids x log marks).
--
-- KEYS  revoked       sorted set: task id -> time at which the mark may go (Redis time, s)     no TTL: its entries have
--       parked, openings   see park.lua
--       bell          stream, one entry
--       ends          sorted set: queue -> when to look there for what is over; '*': in all whose gate is closed
--       epochs        hash: list key -> times it was filled from empty
-- ARGV  life_s        life of a mark whose task nobody meets, s
--       order_prefix, waiting_prefix, separator   see open_parked.lua
--       list_prefix   before queues, in list keys
--       mark_prefix   of the marks of idempotency keys: a revoked task may be submitted again
--       fair          see enter.lua
--       ids           of the tasks
-- Reply for each task: 1 it was parked, 0 it was not
--
-- A mark lies as long as its task may wait, not as long as results do: `take.lua` shortens its life once the task was met.
local MOST_MARKS, EVERYWHERE = 1000000, '*'
local revoked, parked, openings, bell, ends, epochs = unpack(KEYS)
local life_s, order_prefix, waiting_prefix, separator, list_prefix, mark_prefix, fair = unpack(ARGV)
local now = tonumber(redis.call('TIME')[1])
local reply, side, flow = {}, 'RPUSH', ''

local function unpark(id, entry)
  local list, message = string.match(entry, '^([^\n]*)\n[^\n]*\n(.*)$')
  local cut, last = string.find(list, separator, 1, true)
  local queue, step = string.sub(list, #list_prefix + 1, cut and cut - 1 or -1), last and string.sub(list, last + 1) or '0'
  redis.call('HDEL', parked, id)
  redis.call('ZREM', order_prefix .. queue, id)
  enter({ epochs }, { side, list, message, flow, separator, fair, mark_prefix })
  redis.call('ZADD', waiting_prefix .. step, 0, queue)
  if redis.call('EXISTS', order_prefix .. queue) == 0 then redis.call('ZREM', openings, queue) end
end

redis.call('ZREMRANGEBYSCORE', revoked, '-inf', now)
for i = IDS + 1, #ARGV do
  local id = ARGV[i]
  redis.call('ZADD', revoked, now + life_s, id)
  redis.call('DEL', mark_prefix .. id)
  local entry = redis.call('HGET', parked, id)
  if entry then unpark(id, entry) end
  reply[#reply + 1] = entry and 1 or 0
end
redis.call('ZREMRANGEBYRANK', revoked, 0, -MOST_MARKS - 1)
redis.call('ZADD', ends, 'LT', now, EVERYWHERE)
redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1)
return reply
