-- Finds out which of many queues have messages, so that take.lua need not look at each list with every take: messages
-- of producers that do not say so (plain Celery clients), and those put back after a crash. O(queues x priorities).
--
-- KEYS  ours       set: names of the queues that are taken from                 TTL of all but `looked`: life_s
--       looked     string: somebody has looked a moment ago                     TTL: pause_ms
--       waiting    sorted sets, one per priority: names of queues that may have messages of it
-- ARGV  pause_ms   least time between two looks, ms
--       life_s     life of what was found, s
--       separator  kombu's, in list keys
--       list_prefix  before queues, in list keys
--       rest       priority steps, one per priority; then names of the queues
-- Reply 1 when it has looked, 0 when somebody else has just done so
--
-- The lists are named by queue, not declared: the broker is one Redis, never a cluster. A queue that has no messages
-- any more is struck off by take.lua.
local ours, looked = unpack(KEYS)
local pause_ms, life_s, separator, list_prefix = unpack(ARGV)
local priorities = #KEYS - WAITING

if not redis.call('SET', looked, '1', 'NX', 'PX', pause_ms) then return 0 end
for i = REST + priorities + 1, #ARGV do
  local queue, lists = ARGV[i], {}
  for class = 1, priorities do
    local step = ARGV[REST + class]
    lists[class] = list_prefix .. (step == '0' and queue or queue .. separator .. step)
  end
  if redis.call('EXISTS', unpack(lists)) > 0 then
    for class = 1, priorities do
      if redis.call('EXISTS', lists[class]) == 1 then redis.call('ZADD', KEYS[WAITING + class], 0, queue) end
    end
  end
  redis.call('SADD', ours, queue)
end
redis.call('EXPIRE', ours, life_s)
for class = 1, priorities do redis.call('EXPIRE', KEYS[WAITING + class], life_s) end
return 1
