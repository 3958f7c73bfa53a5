-- Move the minutes and hours, durations and errors of a pool from where releases up to 0.2 kept them. O(1).
--
-- What nobody has written anew is renamed; else both are added up, period by period, as `record.lua` would have done.
-- Repeatable: what was moved is gone from its old place in the same step.
--
-- KEYS  old_series, series   string: a ring of minutes, then a ring of hours, packed            TTL of all: life_s
--       old_sketch, sketch   string: a ring of sketches, then who of the pool's ladder serves, see record.lua
--       old_errors, errors   hash: bot|provider/model|type -> count
-- ARGV  life_s               life of the keys, s
-- Reply keys that were moved
local old_series, series, old_sketch, sketch, old_errors, errors = unpack(KEYS)
local MINUTES_EACH, PICOS = 60, 1000000
local EMPTY = string.rep('\0', 8)
local moved = 0

-- True when both keys are there; else the new one is all there is.
local function are_both(old, new)
  local how = rename({ old, new }, { ARGV[LIFE_S] })
  if how > 0 then moved = moved + 1 end
  return how == 2
end

local function period_at(place)
  local raw = redis.call('GETRANGE', series, place * PERIOD_BYTES, (place + 1) * PERIOD_BYTES - 1)
  return #raw == PERIOD_BYTES and { struct.unpack(PERIOD_FORMAT, raw) } or { PERIOD_ZEROS }
end

local function write_period(place, period)
  redis.call('SETRANGE', series, place * PERIOD_BYTES, struct.pack(PERIOD_FORMAT, unpack(period, 1, PERIOD_PLACES)))
end

local function sum_of(period, more)
  local number = period[NUMBER]
  for i = 1, PERIOD_PLACES do period[i] = period[i] + more[i] end
  period[NUMBER], period[COST_USD_MICROS] = number, math.floor(period[COST_USD_MICROS] * PICOS + 0.5) / PICOS
  return period
end

-- Add an hour, or a part of it: the newer number has the place, equal ones are summed.
local function add_hour(period)
  local place = MINUTES + period[NUMBER] % HOURS
  local there = period_at(place)
  if there[NUMBER] > period[NUMBER] then return end
  write_period(place, there[NUMBER] == period[NUMBER] and sum_of(there, period) or period)
end

local function fold(period)
  if period[NUMBER] > 0 then
    period[NUMBER] = math.floor(period[NUMBER] / MINUTES_EACH)
    add_hour(period)
  end
end

local function add_minute(place, period)
  local there = period_at(place)
  if there[NUMBER] == period[NUMBER] then
    write_period(place, sum_of(there, period))
  elseif there[NUMBER] > period[NUMBER] then
    fold(period)
  else
    fold(there)
    write_period(place, period)
  end
end

local function merge_series()
  local raw = redis.call('GET', old_series)
  for place = 0, math.floor(#raw / PERIOD_BYTES) - 1 do
    local at = place * PERIOD_BYTES + 1
    if string.sub(raw, at, at + 7) ~= EMPTY then
      local period = { struct.unpack(PERIOD_FORMAT, raw, at) }
      if place < MINUTES then add_minute(place, period) else add_hour(period) end
    end
  end
end

-- Add the counters of one sketch to that of the same ten minutes.
local function add_counters(raw, at)
  local counters, four = {}, string.sub(EMPTY, 1, 4)
  for offset = at + 4, at + SKETCH_BYTES - 4, 4 do
    local count = string.sub(raw, offset + 1, offset + 4)
    if count ~= four then
      local n = #counters
      counters[n + 1], counters[n + 2], counters[n + 3] = 'INCRBY', 'u32', '#' .. string.format('%d', offset / 4)
      counters[n + 4] = struct.unpack('>I4', count)
    end
  end
  if #counters > 0 then redis.call('BITFIELD', sketch, unpack(counters)) end
end

local function rungs_in(raw)
  local part = string.sub(raw, SKETCHES * SKETCH_BYTES + 1)
  return #part == RUNGS_BYTES and { struct.unpack(RUNGS_FORMAT, part) } or { RUNGS_ZEROS }
end

-- Who served last says who serves; tasks of the same ten minutes are summed.
local function merge_rungs(raw)
  local old, rungs = rungs_in(raw), rungs_in(redis.call('GET', sketch))
  if old[LAST_AT] == 0 then return end
  if old[LAST_AT] > rungs[LAST_AT] then
    rungs[SERVING], rungs[SINCE], rungs[LAST_AT] = old[SERVING], old[SINCE], old[LAST_AT]
  end
  for slot = 0, SKETCHES - 1 do
    local is_newer, is_same = old[SLOT + slot] > rungs[SLOT + slot], old[SLOT + slot] == rungs[SLOT + slot]
    for place = slot * RUNGS_COUNTED, (slot + 1) * RUNGS_COUNTED - 1 do
      if is_newer then rungs[SERVED + place] = old[SERVED + place] end
      if is_same then rungs[SERVED + place] = rungs[SERVED + place] + old[SERVED + place] end
    end
    if is_newer then rungs[SLOT + slot] = old[SLOT + slot] end
  end
  local packed = struct.pack(RUNGS_FORMAT, unpack(rungs, 1, RUNGS_PLACES))
  redis.call('SETRANGE', sketch, SKETCHES * SKETCH_BYTES, packed)
end

local function merge_sketch()
  local raw = redis.call('GET', old_sketch)
  for at = 0, math.min(#raw, SKETCHES * SKETCH_BYTES) - SKETCH_BYTES, SKETCH_BYTES do
    local there = redis.call('GETRANGE', sketch, at, at + 3)
    local number, known = struct.unpack('>I4', raw, at + 1), #there == 4 and struct.unpack('>I4', there) or 0
    if number > known then
      redis.call('SETRANGE', sketch, at, string.sub(raw, at + 1, at + SKETCH_BYTES))
    elseif number == known and number > 0 then
      add_counters(raw, at)
    end
  end
  merge_rungs(raw)
end

if are_both(old_series, series) then
  merge_series()
  redis.call('DEL', old_series)
end
if are_both(old_sketch, sketch) then
  merge_sketch()
  redis.call('DEL', old_sketch)
end
if are_both(old_errors, errors) then
  local counts = redis.call('HGETALL', old_errors)
  for i = 1, #counts, 2 do redis.call('HINCRBY', errors, counts[i], counts[i + 1]) end
  redis.call('DEL', old_errors)
end
return moved
