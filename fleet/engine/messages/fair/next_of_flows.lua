-- Takes the next message of a list whose queue has flows: of the flow whose turn it is. O(log flows).
-- A function inside take.lua.
--
-- KEYS  list       of one priority: place holders of what is in flows, and messages of clients that know of none
-- ARGV  first      the queue's list of its most urgent priority
--       separator  kombu's, in list keys
--       fair       what the keys of flows begin with, see flows.py
--       priorities of a queue (count)
-- Reply the message; 'withdrawn' for a place holder of a message that is gone; false: nothing waits
--
-- Each call takes one place out of the list, so that its length stays the number of messages that wait. A message that
-- stands there itself goes to the end of its flow first: of the one in its header, or of `-`, which is a flow like others.
-- A place may be missing (a worker of an earlier release has thrown it away): flows are served until they are empty.
--
-- A flow's turn is its start tag (start-time fair queueing, see flows.py): what has been served moves on by one over its
-- weight. A flow that is empty keeps its turn until that comes, so that nobody gains by queueing one message at a time.
local GONE, HEADERS_BYTES = 'withdrawn', 4096
local list = KEYS[LIST]
local first, separator, fair, priorities = unpack(ARGV)
local ring, flows = fair .. 'ring:' .. list, fair .. 'flow:'

-- Ends the flows of this list; and of the queue, when no other list of it has any.
local function dissolve()
  redis.call('DEL', ring)
  local rings = { fair .. 'ring:' .. first }
  for step = 1, priorities - 1 do rings[#rings + 1] = fair .. 'ring:' .. first .. separator .. step end
  if redis.call('EXISTS', unpack(rings)) == 0 then redis.call('DEL', fair .. 'has:' .. first) end
end

-- Moves a message that stands in the list to the end of its flow. False when there is no other one: it need not.
local function sort_in(message)
  local at = string.find(message, '_flow"', math.max(1, #message - HEADERS_BYTES), true)
  local flow = at and string.match(message, '^_flow": ?"(%x+)"', at) or '-'
  local known = redis.call('ZRANGE', ring, 0, 1, 'WITHSCORES')
  local own, now, other = unpack(known)
  own = own or flow
  if own == flow and not other and redis.call('EXISTS', flows .. flow .. ':' .. list) == 0 then return false end
  redis.call('LPUSH', flows .. flow .. ':' .. list, message)
  redis.call('ZADD', ring, 'NX', now or 0, flow)
  return true
end

local place = redis.call('RPOP', list)
if place and place ~= GONE and not sort_in(place) then
  dissolve()
  return place
end
while true do
  local flow, turn = unpack(redis.call('ZRANGE', ring, 0, 0, 'WITHSCORES'))
  if not flow then
    dissolve()
    return place
  end
  local message = redis.call('RPOP', flows .. flow .. ':' .. list)
  if message then
    local weight = tonumber(redis.call('HGET', fair .. 'weights', flow) or 1)
    redis.call('ZADD', ring, turn + 1 / weight, flow)
    return message
  end
  redis.call('ZREM', ring, flow)
end
