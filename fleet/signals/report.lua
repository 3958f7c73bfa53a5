-- Writes a worker's report over its last one, and adds what it used since to this minute of the fleet. O(1).
--
-- Amounts are integrals over the time since the last report, so the workers' sum divided by 60 s is an average.
--
-- KEYS  workers    hash: worker and process -> JSON of its last report           TTL of both: life_s
--       resources  string: a ring of minutes, then a ring of hours, packed; places: ResourcePeriod in `windows.py`
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

local function read(place)
  local raw = redis.call('GETRANGE', resources, place * SLOT_BYTES, (place + 1) * SLOT_BYTES - 1)
  return #raw == SLOT_BYTES and { struct.unpack(SLOT_FORMAT, raw) } or { SLOT_ZEROS }
end

-- Add these amounts to a place of the ring, which becomes that of `number`.
local function add(place, number, amounts)
  local slot = read(place)
  if slot[NUMBER] > number then return end  -- a later one has the place already
  if slot[NUMBER] < number then slot = { SLOT_ZEROS } end
  for i = 1, SLOT_PLACES do slot[i] = slot[i] + amounts[i] end
  slot[NUMBER] = number
  redis.call('SETRANGE', resources, place * SLOT_BYTES, struct.pack(SLOT_FORMAT, unpack(slot, 1, SLOT_PLACES)))
end

local old = read(minute % MINUTES)
local over = math.floor(old[NUMBER] / 60)
if old[NUMBER] < minute and over > 0 then add(MINUTES + over % HOURS, over, old) end  -- its place is needed
add(minute % MINUTES, minute, { struct.unpack(SLOT_FORMAT, ARGV[USED]) })
redis.call('EXPIRE', workers, life_s)
redis.call('EXPIRE', resources, life_s)
return now
