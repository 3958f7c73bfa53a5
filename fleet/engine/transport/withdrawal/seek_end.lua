-- Looks whether plain Celery clients have queued tasks with an end: they say so in their messages only. Then the queue is to
-- be walked through at the soonest that is seen. A step: each message of a queue that stands is looked at once, from the
-- newest to the one that was the newest when the last such pass began. O(skip / 128 + count).
--
-- KEYS  ends        sorted set: queue -> the soonest end of a task that waits there (Redis time, s)    no TTL: its entries go
--       seen        string: JSON of how far each list is looked at, by its number   TTL: life_s
--       lists       of the queue, one per priority
-- ARGV  queue       its name
--       count       messages to look at
--       most_bytes  of a message; a longer one is left to whoever takes it, as in withdraw.lua
--       settled_s   a score that comes so soon stays: it may be a running claim, or a pause between walks
--       bot_task    how a message names the task of bots
--       life_s      of the pass, s: without it all is looked at again
-- Reply {1 when it is to be walked through sooner than was known, else 0; 1 when there is more to look at, else 0;
--       messages looked at; their bytes}
--
-- What is put back, at the end that takes take from, was looked at by who took it. Where messages were taken meanwhile some
-- are looked at twice, and all of them when the newest is gone.
local GONE = 'withdrawn'
-- What tells messages apart, at their ends: kombu writes a delivery tag there, unique to each publishing.
local NAME_BYTES = 300
local queue, count, most_bytes, settled_s, bot_task, life_s = unpack(ARGV)
count, most_bytes, settled_s = tonumber(count), tonumber(most_bytes), tonumber(settled_s)
local is_known, passes = pcall(cjson.decode, redis.call('GET', KEYS[SEEN]) or '')
if not is_known or type(passes) ~= 'table' then passes = {} end
local soonest, looked_at, bytes, is_more = nil, 0, 0, 0

local function name_of(message)
  return message ~= GONE and redis.sha1hex(string.sub(message, -NAME_BYTES)) or ''
end

local function note_end(message)
  if #message > most_bytes or string.find(message, '"fleet_expires"', 1, true) then return end
  local said = string.find(message, '"expires": "', 1, true)
  local text = said and string.match(message, '^"expires": "([^"]*)"', said)
  local at = text and string.find(message, bot_task, 1, true) and iso_time({}, { text })
  if at and (not soonest or at < soonest) then soonest = at end
end

-- Goes on with the pass through a list: `left` messages are to be looked at, from the end that takes take from. Returns
-- what is known then: `newest` of the last whole pass, and `first`, `left` of one that has not come to its end.
local function look(list, pass)
  local length = redis.call('LLEN', list)
  if length == 0 then return nil end
  local left, first, newest = pass.left, pass.first, pass.newest
  if not left then left, first = length, name_of(redis.call('LINDEX', list, 0)) end
  local from = math.max(0, length - left)
  local messages = redis.call('LRANGE', list, from, from + count - 1)
  for _, message in ipairs(messages) do
    count, looked_at, bytes = count - 1, looked_at + 1, bytes + #message
    if newest and name_of(message) == newest then return { newest = first } end
    note_end(message)
  end
  left = length - from - #messages
  return left > 0 and { left = left, first = first, newest = newest } or { newest = first }
end

for i = LISTS + 1, #KEYS do
  local number = tostring(i - LISTS)
  if count > 0 then
    passes[number] = redis.call('TYPE', KEYS[i]).ok == 'list' and look(KEYS[i], passes[number] or {}) or nil
    if passes[number] and passes[number].newest == '' then passes[number].newest = nil end
  end
  if count <= 0 then is_more = 1 end
end
-- A walk that runs may have passed what was found, and one that pauses will tell: it is looked at again after that.
local settled_at = redis.call('TIME')[1] + 1 + settled_s
local score = soonest and tonumber(redis.call('ZSCORE', KEYS[ENDS], queue) or nil)
if score and score <= settled_at then return { 0, 0, looked_at, bytes } end
redis.call('SET', KEYS[SEEN], next(passes) and cjson.encode(passes) or '{}', 'EX', life_s)
if not soonest or (score and score <= soonest) then return { 0, is_more, looked_at, bytes } end
redis.call('ZADD', KEYS[ENDS], string.format('%.3f', soonest), queue)
return { 1, is_more, looked_at, bytes }
