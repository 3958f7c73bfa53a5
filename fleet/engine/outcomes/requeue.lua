-- Queues a dead letter's message again and rings the bell, once per death however often it is asked for. O(1).
--
-- KEYS  bell           stream
--       list           the queue
--       replayed       string: this death of the task was queued again         TTL: replay_life_s
--       epochs         hash: list key -> times it was filled from empty
--       unacked        hash: tag -> list key, newline, message; only read
--       parked         hash: task id -> what waits until a time; only read
-- ARGV  message
--       replay_life_s  life of the mark of a replay, s
--       mark           key of the mark of the task's idempotency key ('': it has none); set, so that no producer queues
--                      the task a second time beside this one, and it not beside theirs
--       flow, separator, fair, mark_prefix   see enter.lua
-- Reply 1 queued, 0 queued before
local bell, list, replayed, epochs, unacked, parked = unpack(KEYS)
local message, replay_life_s, mark, flow, separator, fair, mark_prefix = unpack(ARGV)
if not redis.call('SET', replayed, '1', 'NX', 'EX', replay_life_s) then
  return 0
end
local result = ''  -- it has none: it was removed before
if mark ~= '' and string.find(redis.call('GET', mark) or '', '^[qtp]|')
  and orphan_mark({ mark, epochs, unacked, parked }, { result }) == 0 then
  return 0
end
local side = 'LPUSH'
if mark ~= '' then redis.call('SET', mark, '') end
enter({ epochs }, { side, list, message, flow, separator, fair, mark_prefix })
redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1)
return 1
