-- Keeps a task that failed for good, over what was kept of it before. O(log letters).
-- A function inside the finishing script: result and dead letter are one step.
--
-- At most DROP_MOST of the oldest make room per call: those beyond the bounds, and those whose time is over. Refused
-- messages are counted apart and make room for each other only: any client can send them without end.
--
-- KEYS  result           string: the failed result as it stands, only read
--       letters          hash: task id -> head, newline, JSON; head is microseconds|pool|reason|sha1 of the result
--       bodies           hash: task id -> message body
--       order            sorted set, scores 0: scope|microseconds|task id, a letter in each of the scopes
--                        * (all), p:POOL, r:REASON, b:POOL:REASON
--       bytes            string: size of all letters and bodies         TTL of the four above: letter_life_s
--       totals           hash: counter -> integer                       no TTL
-- ARGV  task_id
--       letter_pool      its pool
--       reason           of its death (neither holds a `|`)
--       letter           JSON
--       body             of the message
--       most_letters     kept, the refused ones not counted
--       refused          reasons of refused messages, each in a share of its own
--       most_refused     of each of them kept (count)
--       most_bytes       kept
--       letter_life_s    life of a letter, s
--       letters_counter  name of the counter of letters
--       dropped_counter  name of the counter of those that made room
-- Reply number of letters that made room
local DROP_MOST = 64
local result, letters, bodies, order, bytes, totals = unpack(KEYS)
local task_id, letter_pool, reason, letter, body, most_letters, refused, most_refused, most_bytes, letter_life_s, letters_counter,
  dropped_counter = unpack(ARGV)

local seconds, microseconds = unpack(redis.call('TIME'))
local now_us = seconds * 1000000 + microseconds
local died_us = string.format('%016.0f', now_us)
local expired = string.format('%016.0f', now_us - letter_life_s * 1000000)
local expected = ''  -- whenever it died
local is_refused = string.find(' ' .. refused .. ' ', ' ' .. reason .. ' ', 1, true)

local function count_of(one)
  return redis.call('ZLEXCOUNT', order, '[r:' .. one .. '|', '(r:' .. one .. '}')
end

local function file()
  local stored = redis.call('GET', result)
  local head = died_us .. '|' .. letter_pool .. '|' .. reason .. '|' .. (stored and redis.sha1hex(stored) or '')
  local filed, place = head .. '\n' .. letter, died_us .. '|' .. task_id
  redis.call('HSET', letters, task_id, filed)
  redis.call('HSET', bodies, task_id, body)
  redis.call('ZADD', order, 0, '*|' .. place, 0, 'p:' .. letter_pool .. '|' .. place, 0, 'r:' .. reason .. '|' .. place,
    0, 'b:' .. letter_pool .. ':' .. reason .. '|' .. place)
  return #filed + #body
end

-- Let the oldest of a scope go; return whether it was for want of room. Nil: none had to.
local function drop_oldest(scope, has_room)
  local oldest = redis.call('ZRANGEBYLEX', order, '[' .. scope .. '|', '(' .. scope .. '}', 'LIMIT', 0, 1)[1]
  if not oldest then return nil end
  local died_at = string.sub(oldest, #scope + 2, #scope + 1 + #died_us)
  local is_over = died_at < expired
  if redis.call('HLEN', letters) <= 1 or (has_room and not is_over) then return nil end
  local task_id = string.sub(oldest, #scope + 1 + #died_us + 2)
  forget_dead_letter({ letters, bodies, order, bytes }, { task_id, expected })
  return not is_over
end

-- True while no letter has to go for the new one.
local function has_room()
  if is_refused then return count_of(reason) <= tonumber(most_refused) end
  local refusals = 0
  for one in string.gmatch(refused, '%S+') do refusals = refusals + count_of(one) end
  return redis.call('HLEN', letters) - refusals <= tonumber(most_letters)
    and tonumber(redis.call('GET', bytes)) <= tonumber(most_bytes)
end

forget_dead_letter({ letters, bodies, order, bytes }, { task_id, expected })
local filed_bytes = file()
if redis.call('HLEN', letters) == 1 then
  redis.call('DEL', bytes)  -- starts over, should anybody have deleted the letters by hand
end
redis.call('INCRBY', bytes, filed_bytes)

local dropped = 0
for _ = 1, DROP_MOST do
  local made_room = drop_oldest(is_refused and 'r:' .. reason or '*', has_room())
  if made_room == nil then break end
  if made_room then dropped = dropped + 1 end
end

for _, key in ipairs({ letters, bodies, order, bytes }) do
  redis.call('EXPIRE', key, letter_life_s)
end
redis.call('HINCRBY', totals, letters_counter, 1)
if dropped > 0 then
  redis.call('HINCRBY', totals, dropped_counter, dropped)
end
return dropped
