-- Keeps a task that failed for good, over what was kept of it before. O(log letters).
-- Runs alone, or as a function inside the finishing script: then result and dead letter are one step.
--
-- At most DROP_MOST of the oldest make room per call: those beyond the bounds, and those whose time is over.
--
-- KEYS  1 result   string: the failed result as it stands, only read
--       2 letters  hash: task id -> head, newline, JSON; head is microseconds|pool|reason|sha1 of the result
--       3 bodies   hash: task id -> message body
--       4 order    sorted set, scores 0: scope|microseconds|task id, a letter in each of the scopes
--                  * (all), p:POOL, r:REASON, b:POOL:REASON
--       5 bytes    string: size of all letters and bodies         TTL of 2 to 5: ARGV 8, of 6: ARGV 9
--       6 totals   hash: counter -> integer
-- ARGV  1 task id  2 pool  3 reason (neither holds a `|`)  4 letter, JSON  5 message body
--       6 most letters  7 most bytes  8 life of a letter, s  9 life of the counters, s
--       10 name of the counter of letters  11 name of the counter of those that made room
-- Reply number of letters that made room
local result, letters, bodies, order, bytes, totals = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local task_id, pool, reason, body = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local most_letters, most_bytes, life_s = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local DROP_MOST = 64
local stores = { letters, bodies, order, bytes }

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local died_us = string.format('%016.0f', now_us)
local stored = redis.call('GET', result)
local head = died_us .. '|' .. pool .. '|' .. reason .. '|' .. (stored and redis.sha1hex(stored) or '')
local letter = head .. '\n' .. ARGV[4]

forget_dead_letter(stores, { task_id, '' })
local place = died_us .. '|' .. task_id
redis.call('HSET', letters, task_id, letter)
redis.call('HSET', bodies, task_id, body)
redis.call('ZADD', order, 0, '*|' .. place, 0, 'p:' .. pool .. '|' .. place, 0, 'r:' .. reason .. '|' .. place,
  0, 'b:' .. pool .. ':' .. reason .. '|' .. place)
local count = redis.call('HLEN', letters)
if count == 1 then
  redis.call('DEL', bytes)  -- starts over, should anybody have deleted the letters by hand
end
local size = redis.call('INCRBY', bytes, #letter + #body)

local dropped = 0
local expired = '*|' .. string.format('%016.0f', now_us - life_s * 1000000)
for _ = 1, DROP_MOST do
  local oldest = redis.call('ZRANGEBYLEX', order, '[*|', '(*}', 'LIMIT', 0, 1)[1]
  local is_over = oldest < expired
  if count <= 1 or not (is_over or count > most_letters or size > most_bytes) then
    break
  end
  forget_dead_letter(stores, { string.sub(oldest, 20), '' })
  count, size = count - 1, tonumber(redis.call('GET', bytes))
  if not is_over then
    dropped = dropped + 1
  end
end

for _, key in ipairs(stores) do
  redis.call('EXPIRE', key, life_s)
end
redis.call('HINCRBY', totals, ARGV[10], 1)
if dropped > 0 then
  redis.call('HINCRBY', totals, ARGV[11], dropped)
end
redis.call('EXPIRE', totals, ARGV[9])
return dropped
