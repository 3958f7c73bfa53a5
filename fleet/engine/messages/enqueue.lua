-- Queues a batch of messages and rings the bell. A message with a marker is queued only if the marker was not there.
--
-- KEYS  bell            stream, one entry
-- ARGV  marker_life_s   life of a marker, s
--       separator       kombu's, in list keys
--       list_prefix     before queues, in list keys
--       waiting_prefix  of the keys that tell which queues have messages (sorted sets, one per priority)
--       messages        triples: marker key or '', list key, message
-- Reply number of messages queued
--
-- Marker and list keys come in triples, not as KEYS: the broker is one Redis, never a cluster, and a batch has
-- hundreds.
local marker_life_s, separator, list_prefix, waiting_prefix = unpack(ARGV)
local queued, lists = 0, {}
for i = MESSAGES + 1, #ARGV, 3 do
  local marker, list, message = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if marker == '' or redis.call('SET', marker, '1', 'NX', 'EX', marker_life_s) then
    redis.call('LPUSH', list, message)
    queued = queued + 1
    lists[list] = true
  end
end
if queued == 0 then return 0 end
for list in pairs(lists) do
  local cut, last = string.find(list, separator, 1, true)
  local queue = string.sub(list, #list_prefix + 1, cut and cut - 1 or -1)
  local step = last and string.sub(list, last + 1) or '0'
  redis.call('ZADD', waiting_prefix .. step, 0, queue)
end
redis.call('XADD', KEYS[BELL], 'MAXLEN', 1, '*', 'x', 1)
return queued
