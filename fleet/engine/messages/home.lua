-- Says at which broker messages with markers belong: where their markers are already, else where they are to go, which is
-- noted. So a key has one broker, whatever pool and rule it is submitted with, and by whom at once. O(markers).
-- Runs at the main broker, where there are several. A note is `b|NAME` in place of the marker, which is at that broker.
--
-- KEYS  epochs, unacked, parked   see orphan_mark.lua
-- ARGV  life_s         life of the markers, s; '': they are marks of idempotency keys (see enqueue.lua)
--       known          names of the other brokers, each between bars: a note of one that is gone is none
--       mark_prefix    of the keys of marks
--       result_prefix  of the keys of results ('': they are on another Redis)
--       pairs          marker, name of the broker that its message is to go to ('': the main one)
-- Reply the name for each ('': the main one, also for what is known there and is not queued again)
--
-- The markers are named by whoever asks, not declared: the broker is one Redis, never a cluster.
local epochs, unacked, parked = unpack(KEYS)
local life_s, known, mark_prefix, result_prefix = unpack(ARGV)

local function is_free(mark, value)
  if not value then return true end
  if life_s ~= '' then return false end
  local result = result_prefix ~= '' and result_prefix .. string.sub(mark, #mark_prefix + 1) or ''
  return orphan_mark({ mark, epochs, unacked, parked }, { result }) == 1
end

local names = {}
for i = PAIRS + 1, #ARGV, 2 do
  local marker, wanted = ARGV[i], ARGV[i + 1]
  local value = redis.call('GET', marker) or nil
  local noted = value and string.match(value, '^b|(.*)$')
  if noted and not string.find(known, '|' .. noted .. '|', 1, true) then
    redis.call('DEL', marker)
    value, noted = nil, nil
  end
  if noted and life_s == '' then redis.call('PERSIST', marker) end
  if not noted and wanted ~= '' and is_free(marker, value) then
    if life_s == '' then redis.call('SET', marker, 'b|' .. wanted)
    else redis.call('SET', marker, 'b|' .. wanted, 'EX', life_s) end
    noted = wanted
  end
  names[#names + 1] = noted or ''
end
return names
