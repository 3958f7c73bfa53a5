-- Queues a batch of messages and rings the bell. A message with a marker is queued only if the marker was not there, or
-- its task is nowhere any more.
--
-- KEYS  bell            stream, one entry
--       epochs          hash: list key -> times it was filled from empty
--       unacked         hash: tag -> list key, newline, message; only read
--       parked          hash: task id -> what waits until a time; only read
--       revoked         sorted set: task id -> time at which the mark may go; a task submitted again is revoked no more
--       ends            sorted set: queue -> the soonest end of a task that waits there
-- ARGV  marker_life_s   life of a marker, s; '': it is the mark of an idempotency key, which has no clock until its task
--                       is finished (see orphan_mark.lua)
--       separator       kombu's, in list keys
--       list_prefix     before queues, in list keys
--       mark_prefix     of the markers that belong to a task id
--       result_prefix   of the keys of results ('': they are on another Redis)
--       waiting_prefix  of the keys that tell which queues have messages (sorted sets, one per priority)
--       fair            what the keys of flows begin with, see flows.py
--       messages        triples: marker key or '', list key with a newline and the message's flow behind it if it has one,
--                       message
-- Reply number of messages queued
--
-- Marker and list keys come in triples, not as KEYS: the broker is one Redis, never a cluster, and a batch has
-- hundreds.
local WITHDRAWN = '"status": "REVOKED"'
-- What keeps the place of a message that is in a flow (enter.lua).
local GONE = 'withdrawn'
-- Messages in one command: Lua takes some thousands of arguments at most.
local PUSHED = 1000
local marker_life_s, separator, list_prefix, waiting_prefix, mark_prefix, result_prefix, fair = unpack(ARGV)
local queued, lists, routes, places, seen = 0, {}, {}, {}, {}
local are_revoked = redis.call('EXISTS', KEYS[REVOKED]) == 1

-- A revoked task that is submitted again may start, and what who waited was told is no result of it.
local function pardon(id)
  if redis.call('ZREM', KEYS[REVOKED], id) == 0 or result_prefix == '' then return end
  local stored = redis.call('GET', result_prefix .. id)
  if stored and string.sub(stored, 2, #WITHDRAWN + 1) == WITHDRAWN then redis.call('DEL', result_prefix .. id) end
end

-- What the mark of a message holds that goes into a list, or into the flows that a ring tells of.
local function place_in(home)
  if not places[home] then
    places[home] = 'q|' .. (redis.call('HGET', KEYS[EPOCHS], home) or '0') .. '|' .. home
  end
  return places[home]
end

-- A mark that is here twice is one task's: the first one's message is not where the mark says it is, until all are put.
local function may_queue(mark, home)
  if mark == '' then return true end
  if seen[mark] then return false end
  seen[mark] = true
  if marker_life_s ~= '' then return redis.call('SET', mark, '1', 'NX', 'EX', marker_life_s) end
  if redis.call('SET', mark, place_in(home), 'NX') then return true end
  local result = result_prefix ~= '' and result_prefix .. string.sub(mark, #mark_prefix + 1) or ''
  if orphan_mark({ mark, KEYS[EPOCHS], KEYS[UNACKED], KEYS[PARKED] }, { result }) == 0 then return false end
  redis.call('SET', mark, place_in(home))
  return true
end

-- What is known of a list, looked at once a call.
local function list_of(name)
  if lists[name] then return lists[name] end
  local base, last = string.find(name, separator, 1, true)
  local first = string.sub(name, 1, base and base - 1 or -1)
  lists[name] = { name = name, queue = string.sub(first, #list_prefix + 1), flag = fair .. 'has:' .. first,
    step = last and string.sub(name, last + 1) or '0', ring = fair .. 'ring:' .. name, in_flows = 0 }
  return lists[name]
end

-- Where messages go that name this place: a list, the name of the flow (nil: straight into the list), and the key of either.
local function route_of(place)
  if routes[place] then return routes[place] end
  local cut = string.find(place, '\n', 1, true)
  local list, flow = list_of(string.sub(place, 1, cut and cut - 1 or -1)), cut and string.sub(place, cut + 1)
  if not flow and redis.call('EXISTS', list.flag) == 1 then flow = '-' end
  local behind = flow and flow .. ':' .. list.name
  routes[place] = { list = list, flow = flow, key = flow and fair .. 'flow:' .. behind or list.name, messages = {},
    beside = flow and fair .. 'old:' .. behind, home = flow and list.ring or list.name }
  return routes[place]
end

-- Notes that a list, or the flows of one, is filled from empty: whatever a mark says is in it, is not.
local function begin(home)
  places[home] = 'q|' .. redis.call('HINCRBY', KEYS[EPOCHS], home, 1) .. '|' .. home
end

-- True when nothing waits where messages of this route go; a flow that was empty has its turn then.
local function is_empty(route)
  if redis.call('EXISTS', route.key) == 1 then return false end
  if not route.flow then return true end
  local ring, beside, name, flag, weights = route.list.ring, route.beside, route.flow, route.list.flag, fair .. 'weights'
  return begin_flow({ ring, beside }, { name, flag, weights }) == 1
end

-- Puts all messages of a route behind the others: a command for many.
local function put(key, messages)
  for first = 1, #messages, PUSHED do
    redis.call('LPUSH', key, unpack(messages, first, math.min(first + PUSHED - 1, #messages)))
  end
end

-- Keeps the places of what went into flows.
local function keep_places(list)
  local places = {}
  for i = 1, list.in_flows do places[i] = GONE end
  local was_empty = redis.call('EXISTS', list.name) == 0
  put(list.name, places)
  if was_empty then begin(list.name) end
end

for i = MESSAGES + 1, #ARGV, 3 do
  local marker, route, message = ARGV[i], route_of(ARGV[i + 1]), ARGV[i + 2]
  local list, home = route.list, route.home
  if may_queue(marker, home) then
    if #route.messages == 0 and is_empty(route) then
      begin(home)
      if marker ~= '' and marker_life_s == '' then redis.call('SET', marker, places[home]) end
    end
    route.messages[#route.messages + 1] = message
    queued = queued + 1
    list.is_used = true
    if route.flow then list.in_flows = list.in_flows + 1 end
    local at = string.find(message, '"fleet_expires"', 1, true)
    local over = at and tonumber(string.match(message, '^"fleet_expires": ?([%d.]+)', at))
    if over then list.ends = math.min(list.ends or over, over) end
    if marker_life_s == '' and marker ~= '' and are_revoked then pardon(string.sub(marker, #mark_prefix + 1)) end
  end
end
if queued == 0 then return 0 end
for _, route in pairs(routes) do put(route.key, route.messages) end
for _, list in pairs(lists) do
  if list.in_flows > 0 then keep_places(list) end
  if list.is_used then redis.call('ZADD', waiting_prefix .. list.step, 0, list.queue) end
  if list.ends then redis.call('ZADD', KEYS[ENDS], 'LT', string.format('%.3f', list.ends), list.queue) end
end
redis.call('XADD', KEYS[BELL], 'MAXLEN', 1, '*', 'x', 1)
return queued
