-- Finds out which of many queues have messages, so that take.lua need not look at each list with every take: messages
-- of producers that do not say so (plain Celery clients), and those put back after a crash. O(queues x priorities).
--
-- KEYS[1] set     names of the queues that are taken from                      TTL of all: ARGV 2, but KEYS[2]
-- KEYS[2] string  somebody has looked a moment ago                             TTL: ARGV 1
-- KEYS[3 .. 2+p]  zsets, one per priority: names of queues that may have messages of it
-- ARGV[1] least time between two looks (ms) · ARGV[2] life of what was found (seconds)
-- ARGV[3] kombu's separator in list keys · ARGV[4 .. 3+p] priority steps · ARGV[4+p ..] names of the queues
--
-- The lists are named by queue, not declared: the broker is one Redis, never a cluster. A queue that has no messages
-- any more is struck off by take.lua.
-- Reply: 1 when it has looked, 0 when somebody else has just done so.
local ours, looked = KEYS[1], KEYS[2]
local life_s, separator, priorities = ARGV[2], ARGV[3], #KEYS - 2

if not redis.call('SET', looked, '1', 'NX', 'PX', ARGV[1]) then return 0 end
for i = 4 + priorities, #ARGV do
  local queue, lists = ARGV[i], {}
  for class = 1, priorities do
    local step = ARGV[3 + class]
    lists[class] = step == '0' and queue or queue .. separator .. step
  end
  if redis.call('EXISTS', unpack(lists)) > 0 then
    for class = 1, priorities do
      if redis.call('EXISTS', lists[class]) == 1 then redis.call('ZADD', KEYS[2 + class], 0, queue) end
    end
  end
  redis.call('SADD', ours, queue)
end
redis.call('EXPIRE', ours, life_s)
for class = 1, priorities do redis.call('EXPIRE', KEYS[2 + class], life_s) end
return 1
