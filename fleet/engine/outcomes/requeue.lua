-- Queues a dead letter's message again and rings the bell, once per death however often it is asked for. O(1).
--
-- KEYS  1 bell       stream
--       2 list       the queue
--       3 replayed   string: this death of the task was queued again         TTL: ARGV 2
--       4 submitted  string: the marker of the task's idempotency key; set, so that no producer queues it a second
--                    time beside this one                                    TTL: ARGV 3
-- ARGV  1 message  2 life of the mark of a replay, s  3 life of the idempotency marker, s
-- Reply 1 queued, 0 queued before
local bell, list, replayed, submitted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if not redis.call('SET', replayed, '1', 'NX', 'EX', ARGV[2]) then
  return 0
end
redis.call('SET', submitted, '1', 'EX', ARGV[3])
redis.call('LPUSH', list, ARGV[1])
redis.call('XADD', bell, 'MAXLEN', 1, '*', 'x', 1)
return 1
