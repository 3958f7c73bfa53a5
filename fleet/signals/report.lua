-- Writes a worker's report over its last one, and adds what it used since to this minute of the fleet. O(1).
--
-- Amounts are integrals over the time since the last report, so the workers' sum divided by 60 s is an average.
--
-- KEYS  workers    hash: worker and process -> JSON of its last report           TTL of both: life_s
--       resources  string: a ring of minutes, packed; places: ResourcePeriod in `windows.py`
-- ARGV  worker     its row
--       report     JSON
--       life_s     life of the keys, s
--       used       packed: what it used since, as a slot of the ring (its minute says nothing)
-- Reply what TIME says
local workers, resources = unpack(KEYS)
local life_s = ARGV[LIFE_S]

redis.call('HSET', workers, ARGV[WORKER], ARGV[REPORT])
local now = redis.call('TIME')
local minute = math.floor(now[1] / 60)
local place = minute % MINUTES * SLOT_BYTES
local raw = redis.call('GETRANGE', resources, place, place + SLOT_BYTES - 1)
local slot = { SLOT_ZEROS }
if #raw == SLOT_BYTES then
  slot = { struct.unpack(SLOT_FORMAT, raw) }
  if slot[NUMBER] ~= minute then slot = { SLOT_ZEROS } end
end
local used = { struct.unpack(SLOT_FORMAT, ARGV[USED]) }
for i = 1, SLOT_PLACES do slot[i] = slot[i] + used[i] end
slot[NUMBER] = minute
redis.call('SETRANGE', resources, place, struct.pack(SLOT_FORMAT, unpack(slot, 1, SLOT_PLACES)))
redis.call('EXPIRE', workers, life_s)
redis.call('EXPIRE', resources, life_s)
return now
