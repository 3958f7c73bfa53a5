-- Looks whether tasks with an end were queued that only their messages tell of: those of plain Celery clients, and
-- tasks of the app beside the one for bots. Then the queue is to
-- be walked through at the soonest that is seen. A step: each message of a queue that stands is looked at once, from the
-- newest to the one that was the newest when the last such pass began. O(skip / 128 + count).
--
-- KEYS  ends        sorted set: queue -> the soonest end of a task that waits there (Redis time, s)    no TTL: its entries go
--       seen        string: JSON of how far each list is looked at, by its number, and `at` which it goes on   TTL: life_s
--       lists       of the queue, one per priority
-- ARGV  queue       its name
--       count       messages to look at
--       step_bytes  of messages to look at, about; one at least
--       most_bytes  of a message; a longer one is left to whoever takes it, as in withdraw.lua
--       settled_s   a score that comes so soon stays: it may be a running claim, or a pause between walks
--       life_s      of the pass, s: without it all is looked at again
-- Reply {1 when it is to be walked through sooner than was known, else 0; 1 when there is more to look at, else 0;
--       messages looked at}
--
-- Where messages were taken meanwhile some are looked at twice, and all of them when the newest is gone.
local GONE = 'withdrawn'
-- What tells messages apart, at their ends: kombu writes a delivery tag there, unique to each publishing.
local NAME_BYTES = 300
-- Messages copied at once at most: a message may have 16 MB, and how long it is shows only then.
local AT_ONCE = 16
-- Messages among which the last one that was looked at is sought: so many may be put back between two steps.
local BACK = 64
local queue, count, step_bytes, most_bytes, settled_s, life_s = unpack(ARGV)
count, step_bytes, most_bytes, settled_s = tonumber(count), tonumber(step_bytes), tonumber(most_bytes), tonumber(settled_s)
local is_known, passes = pcall(cjson.decode, redis.call('GET', KEYS[SEEN]) or '')
if not is_known or type(passes) ~= 'table' then passes = {} end
local soonest, looked_at, bytes = nil, 0, 0

local function name_of(message)
  return message ~= GONE and redis.sha1hex(string.sub(message, -NAME_BYTES)) or ''
end

local function note_end(message)
  if #message > most_bytes or string.find(message, '"fleet_expires"', 1, true) then return end
  local said = string.find(message, '"expires": "', 1, true)
  local text = said and string.match(message, '^"expires": "([^"]*)"', said)
  local at = text and iso_time({}, { text })
  if at and (not soonest or at < soonest) then soonest = at end
end

-- Returns where a pass goes on: behind the `last` message that it looked at. `left` messages lay between that and the end
-- that takes take from; what was put back there since is no part of them. Where the last one is gone, some are looked at
-- again: no more was put back than the list has grown, unless it lost messages elsewhere.
local function place_of(list, pass, length)
  local from, copied = math.max(0, length - pass.left), 0
  for place = from - 1, math.max(0, from - BACK), -1 do
    local message = redis.call('LINDEX', list, place)
    copied = copied + #message
    if name_of(message) == pass.last then return place + 1 end
    if copied >= step_bytes then break end
  end
  return math.max(0, from - BACK - math.max(0, length - (pass.length or length)))
end

-- Goes on with the pass through a list. Returns what is known then: `newest` of the last whole pass, and `first`, `last`,
-- `left` and `length` of one that has not come to its end.
local function look(list, pass)
  local length, at_once, longest, latest = redis.call('LLEN', list), 1, 1, nil
  if length == 0 then return nil end
  local from, first, newest = pass.left and place_of(list, pass, length) or 0, pass.left and pass.first, pass.newest
  while from < length and count > 0 and bytes < step_bytes do
    for _, message in ipairs(redis.call('LRANGE', list, from, from + math.min(at_once, count) - 1)) do
      from, count, looked_at, bytes = from + 1, count - 1, looked_at + 1, bytes + #message
      latest, longest, first = message, math.max(longest, #message), first or name_of(message)
      if newest and name_of(message) == newest then return { newest = first } end
      note_end(message)
    end
    at_once = math.max(1, math.min(AT_ONCE, math.floor((step_bytes - bytes) / longest)))
  end
  if from >= length then return { newest = first } end
  local last = name_of(latest)
  return { left = length - from, length = length, first = first, last = last ~= '' and last or nil, newest = newest }
end

local begin = tonumber(passes.at) or 1
passes.at = nil
for number = begin, #KEYS - LISTS do
  local list, name = KEYS[LISTS + number], tostring(number)
  local pass = nil
  if count > 0 and bytes < step_bytes then
    pass = redis.call('TYPE', list).ok == 'list' and look(list, passes[name] or {}) or nil
    if pass and pass.newest == '' then pass.newest = nil end
    passes[name] = pass
  else
    passes.at = number
  end
  if pass and pass.left then passes.at = number end
  if passes.at then break end
end
-- A walk that runs may have passed what was found, and one that pauses will tell: it is looked at again after that.
local settled_at = redis.call('TIME')[1] + 1 + settled_s
local score = soonest and tonumber(redis.call('ZSCORE', KEYS[ENDS], queue) or nil)
if score and score <= settled_at then return { 0, 0, looked_at } end
redis.call('SET', KEYS[SEEN], next(passes) and cjson.encode(passes) or '{}', 'EX', life_s)
local is_more = passes.at and 1 or 0
if not soonest or (score and score <= soonest) then return { 0, is_more, looked_at } end
redis.call('ZADD', KEYS[ENDS], string.format('%.3f', soonest), queue)
return { 1, is_more, looked_at }
