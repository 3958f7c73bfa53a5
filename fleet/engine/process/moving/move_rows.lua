-- Move what is counted of each bot of a pool, and its last tasks, from where releases up to 0.2 kept them; where both are
-- there, of BOTS_A_STEP bots. O(1).
--
-- What nobody has written anew is renamed; else both are added up, and the old rows made empty, in one step. So it is
-- repeatable, as move_series.lua. The step of the last bots removes the old keys, unless somebody has written again.
--
-- KEYS  old_rows, rows     string: a packed row per bot of the pool                           TTL of all: life_s
--       old_tasks, tasks   string: the last tasks of each bot, packed
-- ARGV  life_s             life of the keys, s
--       first              number of the first bot of this step
-- Reply {keys that were moved, number of the first bot of the next step, 0: there is none}
local old_rows, rows, old_tasks, tasks = unpack(KEYS)
local first = tonumber(ARGV[FIRST])
local TASKS_BYTES = TASKS_EACH * LAST_BYTES

local function moved(old, new) return rename({ old, new }, { ARGV[LIFE_S] }) end

-- What the bots of this step have in a key, where each has so many bytes.
local function read_step(key, each)
  return redis.call('GETRANGE', key, first * each, (first + BOTS_A_STEP) * each - 1)
end

local function piece(raw, place, each)
  local found = string.sub(raw, place * each + 1, (place + 1) * each)
  return #found == each and found or found .. string.rep('\0', each - #found)
end

-- Put the last tasks of a bot that has done so many into a list, each with its time.
local function list_tasks(ring, completions, found)
  for nth = completions, math.max(1, completions - TASKS_EACH + 1), -1 do
    local packed = piece(ring, nth % TASKS_EACH, LAST_BYTES)
    local last = { struct.unpack(LAST_FORMAT, packed) }
    if last[AT] > 0 then found[#found + 1] = { packed, last[AT] } end
  end
end

local function merged_tasks(old, ring, before, completions)
  local found, places = {}, {}
  list_tasks(ring, completions, found)
  list_tasks(old, before, found)
  table.sort(found, function(one, other) return one[2] > other[2] end)
  for place = 1, TASKS_EACH do places[place] = piece(ring, place - 1, LAST_BYTES) end
  for place = 1, math.min(TASKS_EACH, #found) do
    places[(before + completions - place + 1) % TASKS_EACH + 1] = found[place][1]
  end
  return table.concat(places)
end

local function merge_hours(row, old)
  if old[HOUR] == row[HOUR] then
    row[THIS_HOUR], row[LAST_HOUR] = row[THIS_HOUR] + old[THIS_HOUR], row[LAST_HOUR] + old[LAST_HOUR]
  elseif old[HOUR] == row[HOUR] + 1 then
    row[HOUR], row[LAST_HOUR], row[THIS_HOUR] = old[HOUR], old[LAST_HOUR] + row[THIS_HOUR], old[THIS_HOUR]
  elseif old[HOUR] > row[HOUR] then
    row[HOUR], row[LAST_HOUR], row[THIS_HOUR] = old[HOUR], old[LAST_HOUR], old[THIS_HOUR]
  elseif old[HOUR] == row[HOUR] - 1 then
    row[LAST_HOUR] = row[LAST_HOUR] + old[THIS_HOUR]
  end
end

local function merge_row(row, old)
  merge_hours(row, old)
  row[COMPLETIONS], row[FAILED] = row[COMPLETIONS] + old[COMPLETIONS], row[FAILED] + old[FAILED]
  row[CALLS_FAILED], row[TOKENS] = row[CALLS_FAILED] + old[CALLS_FAILED], row[TOKENS] + old[TOKENS]
  row[COST_USD_MICROS], row[RAN_MS] = row[COST_USD_MICROS] + old[COST_USD_MICROS], row[RAN_MS] + old[RAN_MS]
  row[LAST_AT] = math.max(row[LAST_AT], old[LAST_AT])
end

-- Write what is known of the bots of this step, up to the last one that has changed.
local function write_step(key, each, pieces, last)
  if last > 0 then redis.call('SETRANGE', key, first * each, table.concat(pieces, '', 1, last)) end
end

local function merge_step(raw)
  local there, old_ring, ring = read_step(rows, ROW_BYTES), read_step(old_tasks, TASKS_BYTES), read_step(tasks, TASKS_BYTES)
  local empty, new_rows, new_tasks, last_row, last_tasks = string.rep('\0', ROW_BYTES), {}, {}, 0, 0
  for place = 0, math.ceil(#raw / ROW_BYTES) - 1 do
    local packed, nth = piece(raw, place, ROW_BYTES), place + 1
    new_rows[nth], new_tasks[nth] = piece(there, place, ROW_BYTES), piece(ring, place, TASKS_BYTES)
    if packed ~= empty then
      local old, row = { struct.unpack(ROW_FORMAT, packed) }, { struct.unpack(ROW_FORMAT, new_rows[nth]) }
      if first + place > 0 and old[COMPLETIONS] > 0 then
        local before = piece(old_ring, place, TASKS_BYTES)
        new_tasks[nth], last_tasks = merged_tasks(before, new_tasks[nth], old[COMPLETIONS], row[COMPLETIONS]), nth
      end
      merge_row(row, old)
      new_rows[nth], last_row = struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES)), nth
    end
  end
  write_step(rows, ROW_BYTES, new_rows, last_row)
  write_step(tasks, TASKS_BYTES, new_tasks, last_tasks)
  if last_row > 0 then redis.call('SETRANGE', old_rows, first * ROW_BYTES, string.rep('\0', #raw)) end
end

local how = moved(old_rows, rows)
if how == 0 then return { 0, 0 } end
if how == 1 then
  moved(old_tasks, tasks)
  return { 2, 0 }
end
merge_step(read_step(old_rows, ROW_BYTES))
local next_first = first + BOTS_A_STEP
if redis.call('STRLEN', old_rows) > next_first * ROW_BYTES then return { 0, next_first } end
local left = redis.call('GET', old_rows)
if left == string.rep('\0', #left) then redis.call('DEL', old_rows, old_tasks) end
redis.call('EXPIRE', tasks, ARGV[LIFE_S])
return { 2, 0 }
