-- Queues a batch of messages and rings the bell. A message with a marker is queued only if the marker was not there.
--
-- KEYS[1] stream  bell
-- ARGV[1] life of a marker (seconds) · ARGV[2..] triples: marker key or '' · list key · message
--
-- Marker and list keys come in triples, not as KEYS: the broker is one Redis, never a cluster, and a batch has
-- hundreds. Reply: number of messages queued.
local queued = 0
for i = 2, #ARGV, 3 do
  if ARGV[i] == '' or redis.call('SET', ARGV[i], '1', 'NX', 'EX', ARGV[1]) then
    redis.call('LPUSH', ARGV[i + 1], ARGV[i + 2])
    queued = queued + 1
  end
end
if queued > 0 then redis.call('XADD', KEYS[1], 'MAXLEN', 1, '*', 'x', 1) end
return queued
