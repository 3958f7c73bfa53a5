-- Takes the next messages of a list whose queue has flows: of the flows whose turns they are. O(most x flows in turn).
-- A function inside take.lua.
--
-- KEYS  list       of one priority: place holders of what is in flows, and messages of clients that know of none
--       epochs     hash: list key, or ring of its flows -> times it was filled from empty
--       ends       sorted set: queue -> the soonest end of a task that waits there
-- ARGV  most       messages to take (count)
--       weighted   'weighted': some flows have weights
--       first      the queue's list of its most urgent priority
--       separator  kombu's, in list keys
--       fair       what the keys of flows begin with, see flows.py
--       priorities of a queue (count)
--       mark_prefix  see enter.lua
--       queue      its name
-- Reply the messages; among them 'withdrawn' for each place holder whose message is gone; {}: nothing waits
--
-- Each call takes as many places out of the list, so that its length stays the number of messages that wait. A message
-- that stands there itself goes into its flow first: of the one in its header, or of `-`, a flow like others. There it goes
-- before what was queued into the flow at once: into a list of its own, which is served first.
-- A place may be missing (a worker of an earlier release has thrown it away): flows are served until they are empty. What was
-- withdrawn from a flow left it with its place: the hole that may be there still costs nobody a place, nor a turn.
--
-- A flow's turn is its start tag (start-time fair queueing, see flows.py): what has been served moves on by one over its
-- weight. A flow that is empty keeps its turn until that comes, so that nobody gains by queueing one message at a time.
local GONE, HEADERS_BYTES = 'withdrawn', 4096
-- Where the turn of the first flow is, among names and turns.
local FIRST_TURN = 2
local list, epochs, ends = unpack(KEYS)
local most, weighted, first, separator, fair, priorities, mark_prefix, queue = unpack(ARGV)
local ring, olds, flag, weights = fair .. 'ring:' .. list, fair .. 'olds:' .. list, fair .. 'has:' .. first, fair .. 'weights'
local behind, found, has_old = ':' .. list, {}, redis.call('EXISTS', olds) == 1

local function key_of(flow) return fair .. 'flow:' .. flow .. behind end

local function old_of(flow) return fair .. 'old:' .. flow .. behind end

local function pop(key)
  local message = redis.call('RPOP', key)
  while message == GONE do message = redis.call('RPOP', key) end
  return message
end

-- Returns the next message of a flow; false: it has none.
local function next_in(flow)
  local message = has_old and pop(old_of(flow))
  if message then return message end
  if has_old then redis.call('SREM', olds, flow) end
  return pop(key_of(flow))
end

-- Ends the flows of this list; and of the queue, when no other list of it has any.
local function dissolve()
  redis.call('DEL', ring, olds)
  local rings = { fair .. 'ring:' .. first }
  for step = 1, priorities - 1 do rings[#rings + 1] = fair .. 'ring:' .. first .. separator .. step end
  if redis.call('EXISTS', unpack(rings)) == 0 then redis.call('DEL', flag) end
end

-- Takes places out of the list; returns them, the next one first, and whether all of them are messages.
local function take_places()
  if most == 1 then
    local place = redis.call('RPOP', list)
    return { place or nil }, place and place ~= GONE
  end
  local places, taken, are_messages = redis.call('LRANGE', list, -most, -1), {}, true
  if #places > 0 then redis.call('LTRIM', list, 0, -#places - 1) end
  for i = #places, 1, -1 do
    taken[#taken + 1] = places[i]
    are_messages = are_messages and places[i] ~= GONE
  end
  return taken, are_messages and #taken > 0
end

-- True when no flow has a message: what stands in the list need not be sorted in.
local function is_idle()
  local known = redis.call('ZRANGE', ring, 0, 1)
  return #known == 0 or (#known == 1 and redis.call('EXISTS', key_of(known[1]), old_of(known[1])) == 0)
end

-- Notes an end that only its message tells of, that of a plain client's task: nobody seeks those in flows (seek_end.lua).
local function note_end(message)
  local from = math.max(8, #message - HEADERS_BYTES)
  if string.find(message, '_expires"', from, true) then return end
  local at = string.find(message, 'xpires": "', from, true)
  local text = at and string.match(message, '^"expires": "([^"]*)"', at - 2)
  local over = text and iso_time({}, { text })
  if over then redis.call('ZADD', ends, 'LT', string.format('%.3f', over), queue) end
end

-- Moves a message that stands in the list behind what is old in its flow, and tells its mark so.
local function sort_in(message)
  local at = string.find(message, '_flow"', math.max(1, #message - HEADERS_BYTES), true)
  local name = at and string.match(message, '^_flow": ?"(%x+)"', at) or '-'
  local beside, is_alone = key_of(name), false
  if redis.call('LPUSH', old_of(name), message) == 1 then
    is_alone = begin_flow({ ring, beside }, { name, flag, weights }) == 1
    has_old = redis.call('SADD', olds, name)
  end
  note_end(message)
  local epoch = is_alone and redis.call('HINCRBY', epochs, ring, 1)
  local marked = string.match(message, '^{"mark":"([^"]+)"')
  if not marked then return end
  epoch = epoch or redis.call('HGET', epochs, ring) or '0'
  redis.call('SET', mark_prefix .. marked, 'q|' .. epoch .. '|' .. ring, 'XX')
end

-- Writes down whose turns have moved, and who has none any more.
local function note(turns, idle)
  if #turns > 0 then redis.call('ZADD', ring, unpack(turns)) end
  if #idle > 0 then redis.call('ZREM', ring, unpack(idle)) end
end

-- Serves each of some flows once: their turns lie so close together that nobody's second comes before.
local function serve_each(rows)
  local turns, idle = {}, {}
  for i = 1, #rows, 2 do
    local message = next_in(rows[i])
    if message then
      found[#found + 1], turns[#turns + 1], turns[#turns + 2] = message, rows[i + 1] + 1, rows[i]
    else
      idle[#idle + 1] = rows[i]
    end
  end
  note(turns, idle)
end

-- Flows by name, turn, and what a turn costs.
local function told(rows)
  local some = {}
  for i = 1, #rows, 2 do
    local weight = weighted == 'weighted' and tonumber(redis.call('HGET', weights, rows[i]) or 1) or 1
    some[#some + 1] = { name = rows[i], turn = tonumber(rows[i + 1]), cost = 1 / weight }
  end
  return some
end

-- Moves the first of some flows to where its turn is now.
local function move_first(some)
  local moved, place = some[1], 1
  while some[place + 1] and (some[place + 1].turn < moved.turn
    or (some[place + 1].turn == moved.turn and some[place + 1].name < moved.name)) do
    some[place], place = some[place + 1], place + 1
  end
  some[place] = moved
end

-- Serves flows until enough is found, or those that were in turn have nothing more.
local function serve(some)
  local turns, idle = {}, {}
  while #found < most and #some > 0 do
    local flow = some[1]
    local message = next_in(flow.name)
    if message then
      found[#found + 1], flow.turn, flow.is_served = message, flow.turn + flow.cost, true
      move_first(some)
    else
      idle[#idle + 1] = table.remove(some, 1).name
    end
  end
  for _, flow in ipairs(some) do
    if flow.is_served then turns[#turns + 1], turns[#turns + 2] = flow.turn, flow.name end
  end
  note(turns, idle)
end

local places, are_messages = take_places()
if are_messages and is_idle() then
  dissolve()
  return places
end
for _, place in ipairs(places) do
  if place ~= GONE then sort_in(place) end
end
while #found < most do
  local rows = redis.call('ZRANGE', ring, 0, most - #found - 1, 'WITHSCORES')
  if #rows == 0 then
    dissolve()
    for _ = #found + 1, #places do found[#found + 1] = GONE end
    return found
  end
  if weighted == 'even' and tonumber(rows[#rows]) < rows[FIRST_TURN] + 1 then serve_each(rows) else serve(told(rows)) end
end
return found
