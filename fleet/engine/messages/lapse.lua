-- Gives notes of brokers (home.lua) an end whose tasks are nowhere any more. Whoever submits the key again takes it back;
-- who has noted it only just now has so long to queue the task. O(pairs).
--
-- KEYS  none
-- ARGV  life_s  s
--       pairs   mark, value that was seen
-- Reply number of notes that have an end now
--
-- The marks are named by whoever asks, not declared: the broker is one Redis, never a cluster.
local lapsed = 0
for i = PAIRS + 1, #ARGV, 2 do
  if redis.call('GET', ARGV[i]) == ARGV[i + 1] and redis.call('TTL', ARGV[i]) == -1 then
    lapsed = lapsed + redis.call('EXPIRE', ARGV[i], ARGV[LIFE_S])
  end
end
return lapsed
