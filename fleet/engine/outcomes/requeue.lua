-- Queues a dead letter's message again and rings the bell, once per death however often it is asked for. O(1).
--
-- KEYS  bell           stream
--       list           the queue
--       replayed       string: this death of the task was queued again         TTL: replay_life_s
--       submitted      string: the marker of the task's idempotency key; set, so that no producer queues it a second
--                      time beside this one                                    TTL: marker_life_s
-- ARGV  message
--       replay_life_s  life of the mark of a replay, s
--       marker_life_s  life of the idempotency marker, s
-- Reply 1 queued, 0 queued before
local bell, list, replayed, submitted = unpack(KEYS)
local message, replay_life_s, marker_life_s = unpack(ARGV)
if not redis.call('SET', replayed, '1', 'NX', 'EX', replay_life_s) then
  return 0
end
redis.call('SET', submitted, '1', 'EX', marker_life_s)
redis.call('LPUSH', list, message)
redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1)
return 1
