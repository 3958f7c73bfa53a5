-- Writes a worker's report over its last one, and adds what it used since to this minute of the fleet. O(1).
--
-- Amounts are integrals over the time since the last report, so the workers' sum divided by 60 s is an average.
--
-- KEYS  1 workers    hash: worker -> JSON of its last report                          TTL of both: ARGV 3
--       2 resources  string: 64 minutes of 5 doubles: minute, cpu s, MB s, busy slot s, slot s
-- ARGV  1 worker  2 report, JSON  3 life of the keys, s  4 four doubles: cpu s, MB s, busy slot s, slot s
-- Reply 1
local workers, resources = KEYS[1], KEYS[2]
local BYTES, MINUTES = 40, 64

redis.call('HSET', workers, ARGV[1], ARGV[2])
local minute = math.floor(redis.call('TIME')[1] / 60)
local place = minute % MINUTES * BYTES
local raw = redis.call('GETRANGE', resources, place, place + BYTES - 1)
local sums = { 0, 0, 0, 0, 0 }
if #raw == BYTES then
  local stored = { struct.unpack('<ddddd', raw) }
  if stored[1] == minute then
    sums = stored
  end
end
sums[1] = minute
for i, amount in ipairs({ struct.unpack('<dddd', ARGV[4]) }) do
  if i <= 4 then  -- the fifth is where unpacking ended
    sums[1 + i] = sums[1 + i] + amount
  end
end
redis.call('SETRANGE', resources, place, struct.pack('<ddddd', unpack(sums, 1, 5)))
redis.call('EXPIRE', workers, ARGV[3])
redis.call('EXPIRE', resources, ARGV[3])
return 1
