-- Makes a dead letter ready to be queued again: removes its failed result, so that it is really run. O(1).
--
-- Only the very result that the letter was kept with is removed: a task that was queued again before, and finished,
-- keeps what it has.
--
-- KEYS  result   string: the task's result
--       letters  hash: task id -> microseconds|pool|reason|sha1 of its result, newline, JSON; only read
--       bodies   hash: task id -> message body; only read
-- ARGV  task_id
-- Reply {code, letter, body}: 1 ready, 0 there is no letter, 2 the task has another result since, 3 its body was not kept
local result, letters, bodies = unpack(KEYS)
local task_id = ARGV[TASK_ID]

local letter = redis.call('HGET', letters, task_id)
if not letter then
  return { 0, '', '' }
end
local stored = redis.call('GET', result)
if stored and redis.sha1hex(stored) ~= string.match(letter, '^%d+|[^|]*|[^|]*|([^\n]*)\n') then
  return { 2, letter, '' }
end
local body = redis.call('HGET', bodies, task_id)
if not body or body == '' then
  return { 3, letter, '' }
end
redis.call('DEL', result)
return { 1, letter, body }
