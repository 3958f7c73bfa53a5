-- Move what is counted of each bot of a pool, and its last tasks, from where releases up to 0.2 kept them. O(bots).
--
-- What nobody has written anew is renamed; else both are added up. Repeatable, as move_series.lua.
--
-- KEYS  old_rows, rows     string: a packed row per bot of the pool                           TTL of all: life_s
--       old_tasks, tasks   string: the last tasks of each bot, packed
-- ARGV  life_s             life of the keys, s
-- Reply keys that were moved
local old_rows, rows, old_tasks, tasks = unpack(KEYS)

local function moved(old, new) return rename({ old, new }, { ARGV[LIFE_S] }) end

-- The last tasks of a bot that has done so many, the newest first, each with its time.
local function last_tasks(key, bot, completions)
  local found, bytes = {}, TASKS_EACH * LAST_BYTES
  local raw = redis.call('GETRANGE', key, bot * bytes, (bot + 1) * bytes - 1)
  for nth = completions, math.max(1, completions - TASKS_EACH + 1), -1 do
    local at = nth % TASKS_EACH * LAST_BYTES
    local packed = string.sub(raw, at + 1, at + LAST_BYTES)
    if #packed == LAST_BYTES then
      local last = { struct.unpack(LAST_FORMAT, packed) }
      found[#found + 1] = { packed, last[AT] }
    end
  end
  return found
end

local function merge_tasks(bot, before, completions)
  local found = last_tasks(tasks, bot, completions)
  for _, one in ipairs(last_tasks(old_tasks, bot, before)) do found[#found + 1] = one end
  table.sort(found, function(one, other) return one[2] > other[2] end)
  for place = 1, math.min(TASKS_EACH, #found) do
    local nth = before + completions - place + 1
    redis.call('SETRANGE', tasks, (bot * TASKS_EACH + nth % TASKS_EACH) * LAST_BYTES, found[place][1])
  end
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

local function merge_row(bot, old)
  local raw = redis.call('GETRANGE', rows, bot * ROW_BYTES, (bot + 1) * ROW_BYTES - 1)
  local row = #raw == ROW_BYTES and { struct.unpack(ROW_FORMAT, raw) } or { ROW_ZEROS }
  if bot > 0 and old[COMPLETIONS] > 0 then merge_tasks(bot, old[COMPLETIONS], row[COMPLETIONS]) end
  merge_hours(row, old)
  row[COMPLETIONS], row[FAILED] = row[COMPLETIONS] + old[COMPLETIONS], row[FAILED] + old[FAILED]
  row[CALLS_FAILED], row[TOKENS] = row[CALLS_FAILED] + old[CALLS_FAILED], row[TOKENS] + old[TOKENS]
  row[COST_USD_MICROS], row[RAN_MS] = row[COST_USD_MICROS] + old[COST_USD_MICROS], row[RAN_MS] + old[RAN_MS]
  row[LAST_AT] = math.max(row[LAST_AT], old[LAST_AT])
  redis.call('SETRANGE', rows, bot * ROW_BYTES, struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES)))
end

local how = moved(old_rows, rows)
if how == 0 then return 0 end
if how == 1 then
  moved(old_tasks, tasks)
  return 2
end
local raw, empty = redis.call('GET', old_rows), string.rep('\0', ROW_BYTES)
for bot = 0, math.floor(#raw / ROW_BYTES) - 1 do
  local packed = string.sub(raw, bot * ROW_BYTES + 1, (bot + 1) * ROW_BYTES)
  if packed ~= empty then merge_row(bot, { struct.unpack(ROW_FORMAT, packed) }) end
end
redis.call('DEL', old_rows, old_tasks)
redis.call('EXPIRE', tasks, ARGV[LIFE_S])
return 2
