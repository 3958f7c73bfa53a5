-- Tells whether a task was queued under an idempotency key and is nowhere any more: no result, no message. O(1).
-- A function inside `enqueue.lua` and `sweep_marks.lua`.
--
-- A mark tells where its message is; who moves the message writes it. `q|epoch|list`: in that list, as long as the list
-- has not been empty since; `q|epoch|ring`: in a flow of a list, likewise (enter.lua). `t|tag`: taken by a worker under
-- that tag. `p|id`: parked under that id. `done`: finished. Anything else, as a note of another broker (home.lua): not to be judged.
-- What it cannot see: a list deleted by hand and filled again by plain publishes only, before anything else is queued.
--
-- KEYS  mark     string; TTL only once its task is finished
--       epochs   hash: list key, or ring of its flows -> times it was filled from empty
--       unacked  hash: tag -> list key, newline, message
--       parked   hash: task id -> what waits until a time
-- ARGV  result   key of the task's result ('': it is not on this Redis, and counts as none)
-- Reply 1 orphan, 0 not
local mark, epochs, unacked, parked = unpack(KEYS)
local result = ARGV[RESULT]

if result ~= '' and redis.call('EXISTS', result) == 1 then return 0 end
local value = redis.call('GET', mark)
if not value or value == 'done' then return 1 end
local tag = string.match(value, '^t|(.*)$')
if tag then return 1 - redis.call('HEXISTS', unacked, tag) end
local id = string.match(value, '^p|(.*)$')
if id then return 1 - redis.call('HEXISTS', parked, id) end
local epoch, list = string.match(value, '^q|(%d+)|(.*)$')
if not epoch then return 0 end
if redis.call('EXISTS', list) == 0 or redis.call('HGET', epochs, list) ~= epoch then return 1 end
return 0
