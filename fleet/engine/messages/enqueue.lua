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
--       mark_prefix     of the keys of marks
--       result_prefix   of the keys of results ('': they are on another Redis)
--       messages        triples: marker key or '', list key, message
-- Reply number of messages queued
--
-- Marker and list keys come in triples, not as KEYS: the broker is one Redis, never a cluster, and a batch has
-- hundreds.
local WITHDRAWN = '"status": "REVOKED"'
local marker_life_s, separator, list_prefix, waiting_prefix, mark_prefix, result_prefix = unpack(ARGV)
local queued, lists, places, ends = 0, {}, {}, {}
local are_revoked = redis.call('EXISTS', KEYS[REVOKED]) == 1

-- A revoked task that is submitted again may start, and what who waited was told is no result of it.
local function pardon(id)
  if redis.call('ZREM', KEYS[REVOKED], id) == 0 or result_prefix == '' then return end
  local stored = redis.call('GET', result_prefix .. id)
  if stored and string.sub(stored, 2, #WITHDRAWN + 1) == WITHDRAWN then redis.call('DEL', result_prefix .. id) end
end

-- What the mark of a message in a list holds.
local function place_in(list)
  if not places[list] then
    places[list] = 'q|' .. (redis.call('HGET', KEYS[EPOCHS], list) or '0') .. '|' .. list
  end
  return places[list]
end

local function may_queue(mark, list)
  if mark == '' then return true end
  if marker_life_s ~= '' then return redis.call('SET', mark, '1', 'NX', 'EX', marker_life_s) end
  if redis.call('SET', mark, place_in(list), 'NX') then return true end
  local result = result_prefix ~= '' and result_prefix .. string.sub(mark, #mark_prefix + 1) or ''
  if orphan_mark({ mark, KEYS[EPOCHS], KEYS[UNACKED], KEYS[PARKED] }, { result }) == 0 then return false end
  redis.call('SET', mark, place_in(list))
  return true
end

for i = MESSAGES + 1, #ARGV, 3 do
  local marker, list, message = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if may_queue(marker, list) then
    if redis.call('LPUSH', list, message) == 1 then  -- it was empty: whatever a mark says is in it, is not
      places[list] = 'q|' .. redis.call('HINCRBY', KEYS[EPOCHS], list, 1) .. '|' .. list
      if marker ~= '' and marker_life_s == '' then redis.call('SET', marker, places[list]) end
    end
    queued = queued + 1
    lists[list] = true
    local at = string.find(message, '"fleet_expires"', 1, true)
    local over = at and tonumber(string.match(message, '^"fleet_expires": ?([%d.]+)', at))
    if over then ends[list] = math.min(ends[list] or over, over) end
    if marker_life_s == '' and marker ~= '' and are_revoked then pardon(string.sub(marker, #mark_prefix + 1)) end
  end
end
if queued == 0 then return 0 end
for list in pairs(lists) do
  local cut, last = string.find(list, separator, 1, true)
  local queue = string.sub(list, #list_prefix + 1, cut and cut - 1 or -1)
  local step = last and string.sub(list, last + 1) or '0'
  redis.call('ZADD', waiting_prefix .. step, 0, queue)
  if ends[list] then redis.call('ZADD', KEYS[ENDS], 'LT', string.format('%.3f', ends[list]), queue) end
end
redis.call('XADD', KEYS[BELL], 'MAXLEN', 1, '*', 'x', 1)
return queued
