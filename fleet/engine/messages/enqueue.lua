-- Queues a batch of messages and rings the bell. A message with a marker is queued only if the marker was not there.
--
-- KEYS[1] stream  bell
-- ARGV[1] life of a marker (seconds) · ARGV[2] kombu's separator in list keys · ARGV[3] prefix of the keys that tell
-- which queues have messages (sorted sets, one per priority) · ARGV[4..] triples: marker key or '' · list key · message
--
-- Marker and list keys come in triples, not as KEYS: the broker is one Redis, never a cluster, and a batch has
-- hundreds. Reply: number of messages queued.
local queued, lists = 0, {}
for i = 4, #ARGV, 3 do
  if ARGV[i] == '' or redis.call('SET', ARGV[i], '1', 'NX', 'EX', ARGV[1]) then
    redis.call('LPUSH', ARGV[i + 1], ARGV[i + 2])
    queued = queued + 1
    lists[ARGV[i + 1]] = true
  end
end
if queued == 0 then return 0 end
for list in pairs(lists) do
  local cut, last = string.find(list, ARGV[2], 1, true)
  local queue, step = cut and string.sub(list, 1, cut - 1) or list, last and string.sub(list, last + 1) or '0'
  redis.call('ZADD', ARGV[3] .. step, 0, queue)
end
redis.call('XADD', KEYS[1], 'MAXLEN', 1, '*', 'x', 1)
return queued
