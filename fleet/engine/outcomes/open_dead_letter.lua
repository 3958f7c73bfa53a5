-- Makes a dead letter ready to be queued again: removes its failed result, so that it is really run. O(1).
--
-- Only the very result that the letter was kept with is removed: a task that was queued again before, and finished,
-- keeps what it has.
--
-- KEYS  1 result   string: the task's result
--       2 letters  hash: task id -> microseconds|pool|reason|sha1 of its result, newline, JSON
--       3 bodies   hash: task id -> message body
-- ARGV  1 task id
-- Reply {code, letter, body}: 1 ready, 0 there is no letter, 2 the task has another result since
local result, letters, bodies, task_id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]

local letter = redis.call('HGET', letters, task_id)
if not letter then
  return { 0, '', '' }
end
local stored = redis.call('GET', result)
if stored and redis.sha1hex(stored) ~= string.match(letter, '^%d+|[^|]*|[^|]*|([^\n]*)\n') then
  return { 2, letter, '' }
end
redis.call('DEL', result)
return { 1, letter, redis.call('HGET', bodies, task_id) or '' }
