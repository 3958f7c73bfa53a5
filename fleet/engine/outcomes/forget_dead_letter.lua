-- Removes one dead letter. O(log letters). Also a function inside `record_dead_letter.lua`.
--
-- KEYS  letters   hash: task id -> microseconds|pool|reason|sha1 of its result, newline, JSON      TTL: as they had
--       bodies    hash: task id -> message body
--       order     sorted set: scope|microseconds|task id, in four scopes per letter
--       bytes     string: size of all letters and bodies
-- ARGV  task_id
--       expected  microseconds of its death ('': whenever it died)
-- Reply 1 removed, 0 there was none, or it has died again since
local letters, bodies, order, bytes = unpack(KEYS)
local task_id, expected = unpack(ARGV)

local letter = redis.call('HGET', letters, task_id)
if not letter then
  return 0
end
local died_us, pool, reason = string.match(letter, '^(%d+)|([^|]*)|([^|]*)|')
if expected ~= '' and expected ~= died_us then
  return 0
end
local place = died_us .. '|' .. task_id
redis.call('ZREM', order, '*|' .. place, 'p:' .. pool .. '|' .. place, 'r:' .. reason .. '|' .. place,
  'b:' .. pool .. ':' .. reason .. '|' .. place)
redis.call('DECRBY', bytes, #letter + redis.call('HSTRLEN', bodies, task_id))
redis.call('HDEL', letters, task_id)
redis.call('HDEL', bodies, task_id)
return 1
