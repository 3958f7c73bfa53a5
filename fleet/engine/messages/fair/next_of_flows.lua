-- Takes the next messages of a list whose queue has flows: of the flows whose turns they are. O(most log flows).
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
--       has_quick_pops  boolean: this Redis takes several from the end of a long list in one step
-- Reply false: the list has no flows, and nothing is taken; else the messages, among them 'withdrawn' for each place holder
--       whose message is gone; {}: nothing waits
--
-- Each call takes as many places out of the list, so that its length stays the number of messages that wait. A message
-- that stands there itself goes into its flow first: of the one in its header, or of `-`, a flow like others. There it goes
-- before what was queued into the flow at once: into a list of its own, which is served first.
-- A place may be missing (a worker of an earlier release has thrown it away): flows are served until they are empty. What was
-- withdrawn from a flow left it with its place: the hole that may be there still costs nobody a place, nor a turn.
--
-- A flow's turn is its start tag (start-time fair queueing, see flows.py): what has been served moves on by one over its
-- weight. A flow that is empty keeps its turn until that comes, so that nobody gains by queueing one message at a time.
--
-- Who takes many at once gets up to `AT_A_TURN` of a flow in its turn, which then moves on by as many: each turn is written
-- down, and costs as much as a message does (here: 100 tenants, 16 at once, a third of what turns cost). A flow that has
-- nobody beside it needs no turns, and costs one command for all.
local GONE, HEADERS_BYTES = 'withdrawn', 4096
-- Most messages of a flow in one turn (count), where so many such shares are taken.
local AT_A_TURN = 4
local list, epochs, ends = unpack(KEYS)
local most, weighted, first, separator, fair, priorities, mark_prefix, queue, has_quick_pops = unpack(ARGV)
local ring, olds, flag, weights = fair .. 'ring:' .. list, fair .. 'olds:' .. list, fair .. 'has:' .. first, fair .. 'weights'
-- Messages of a flow in one turn, of many flows.
local share = math.max(1, math.min(AT_A_TURN, math.floor(most / AT_A_TURN)))

-- Flows whose turns are next for so many messages, two at least, so that one alone is known as such; and whether these are all.
local function next_rows(wanted)
  local count = math.max(2, math.ceil(wanted / share))
  local rows = redis.call('ZRANGE', ring, 0, count - 1, 'WITHSCORES')
  return rows, #rows < 2 * count
end

local rows, are_all = next_rows(most)
if #rows == 0 then return false end
local behind, found, places, has_old = ':' .. list, {}, nil, redis.call('EXISTS', olds) == 1

-- Nearly always one message is wanted and a flow has it: then what is below need not even be read.
if most == 1 and not has_old then
  local place = redis.call('RPOP', list)
  local message = (not place or place == GONE) and redis.call('RPOP', fair .. 'flow:' .. rows[1] .. behind)
  if message and message ~= GONE then
    if #rows == 2 then return { message } end
    local weight = weighted == 'weighted' and redis.call('HGET', weights, rows[1]) or 1
    redis.call('ZADD', ring, rows[2] + 1 / weight, rows[1])
    return { message }
  end
  places = { place or nil }
end

local function key_of(flow) return fair .. 'flow:' .. flow .. behind end

local function old_of(flow) return fair .. 'old:' .. flow .. behind end

-- Takes some from the end of a list, the next one first; none: it is empty.
local function pop(key, count)
  if count == 1 then return { redis.call('RPOP', key) or nil } end
  if has_quick_pops then return redis.call('RPOP', key, count) or {} end
  local some, taken = redis.call('LRANGE', key, -count, -1), {}
  if #some > 0 then redis.call('LTRIM', key, 0, -#some - 1) end
  for i = #some, 1, -1 do taken[#taken + 1] = some[i] end
  return taken
end

-- Adds messages of one list to what is found, until there are `enough`; false: it has no more.
local function draw(key, enough)
  while #found < enough do
    local asked = enough - #found
    local some = pop(key, asked)
    for _, message in ipairs(some) do
      if message ~= GONE then found[#found + 1] = message end
    end
    if #some < asked then return false end
  end
  return true
end

-- Adds the next messages of a flow to what is found, as many as it has of `count`; returns how many.
local function serve(flow, count)
  local before, enough = #found, #found + count
  if has_old and not draw(old_of(flow), enough) then redis.call('SREM', olds, flow) end
  draw(key_of(flow), enough)
  return #found - before
end

-- Ends the flows of this list; and of the queue, when no other list of it has any.
local function dissolve()
  redis.call('DEL', ring, olds)
  local rings = { fair .. 'ring:' .. first }
  for step = 1, priorities - 1 do rings[#rings + 1] = fair .. 'ring:' .. first .. separator .. step end
  if redis.call('EXISTS', unpack(rings)) == 0 then redis.call('DEL', flag) end
end

-- True when there is something, and nothing of it is a place holder.
local function are_messages(some)
  for _, place in ipairs(some) do
    if place == GONE then return false end
  end
  return #some > 0
end

-- True when no flow of those next in turn has a message: what stands in the list need not be sorted in.
local function is_idle(rows)
  return #rows == 2 and redis.call('EXISTS', key_of(rows[1]), old_of(rows[1])) == 0
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
local function note(some, idle)
  local turns = {}
  for _, flow in ipairs(some) do
    if flow.is_served then turns[#turns + 1], turns[#turns + 2] = flow.turn, flow.name end
  end
  if #turns > 0 then redis.call('ZADD', ring, unpack(turns)) end
  if #idle > 0 then redis.call('ZREM', ring, unpack(idle)) end
end

-- Flows by name, turn, and what a turn costs.
local function told(rows)
  local some, names = {}, {}
  for i = 1, #rows, 2 do
    names[#names + 1] = rows[i]
    some[#some + 1] = { name = rows[i], turn = tonumber(rows[i + 1]), cost = 1 }
  end
  if weighted ~= 'weighted' then return some end
  for i, weight in ipairs(redis.call('HMGET', weights, unpack(names))) do some[i].cost = 1 / tonumber(weight or 1) end
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

-- Serves flows in turn until enough is found. Of some flows out of many, so often as there are of them: then another's turn
-- may have come. Of all there are, until one is left.
local function serve_in_turn(some, are_all)
  local idle, turns_left = {}, are_all and most or #some
  while #found < most and turns_left > 0 and #some > (are_all and 1 or 0) do
    local flow = some[1]
    local count = serve(flow.name, math.min(are_all and 1 or share, most - #found))
    if count > 0 then
      flow.turn, flow.is_served = flow.turn + count * flow.cost, true
      move_first(some)
    else
      idle[#idle + 1] = table.remove(some, 1).name
    end
    turns_left = turns_left - 1
  end
  note(some, idle)
end

places = places or pop(list, most)
if are_messages(places) and is_idle(rows) then
  dissolve()
  return places
end
for _, place in ipairs(places) do
  if place ~= GONE then
    sort_in(place)
    rows = nil
  end
end
while #found < most do
  if not rows then rows, are_all = next_rows(most - #found) end
  if #rows == 0 then
    dissolve()
    for _ = #found + 1, #places do found[#found + 1] = GONE end
    return found
  end
  if #rows > 2 then
    serve_in_turn(told(rows), are_all)
  elseif serve(rows[1], most - #found) == 0 then
    redis.call('ZREM', ring, rows[1])
  end
  rows = nil
end
return found
