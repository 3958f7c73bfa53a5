-- Move how the bots of a pool stand, and what is usual in it, from where releases up to 0.2 kept it; where both are there,
-- of BOTS_A_STEP bots. O(classes).
--
-- What nobody has written anew is renamed. Else the heavier evidence stands and tasks are added up; what is usual is
-- weighed by tasks. Repeatable, as move_series.lua. Rows are as they were; these releases kept of each of the latest tasks
-- only the rates, not whether it was slow, and of a class all but its wrong tasks: these are 0 here.
-- Old rows are made empty in the step that adds them up. That of the last bots removes the old keys, unless somebody has
-- written again.
--
-- KEYS  old_health, health   string: evidence against each bot, see health.lua                TTL of all: life_s
--       old_norms, norms     hash: task class -> packed, what is usual
-- ARGV  life_s               life of the keys, s
--       first                number of the first bot of this step
-- Reply {keys that were moved, number of the first bot of the next step, 0: there is none}
local old_health, health, old_norms, norms = unpack(KEYS)
local MOST_SINCE, MOST_TASKS = 65535, 4294967295
-- The latest tasks in the head. A wrong_tasks of 0, and a task that was not slow.
local SAMPLES, NO_WRONG_TASKS, NOT_SLOW = 31, string.rep('\0', 8), '\0'

local function merge_row(row, old)
  for test = 1, TESTS do
    row[EVIDENCE + test] = math.max(row[EVIDENCE + test], old[EVIDENCE + test])
    if old[TASKS] > row[TASKS] then row[RATE + test] = old[RATE + test] end
  end
  if old[FAULTS] > row[FAULTS] then row[FAULT], row[FAULTS] = old[FAULT], old[FAULTS] end
  row[QUARANTINES] = math.max(row[QUARANTINES], old[QUARANTINES])
  row[TASKS] = math.min(MOST_TASKS, row[TASKS] + old[TASKS])
  row[SINCE] = math.min(MOST_SINCE, row[SINCE] + old[SINCE])
end

local function piece(raw, place)
  local found = string.sub(raw, place * ROW_BYTES + 1, (place + 1) * ROW_BYTES)
  return #found == ROW_BYTES and found or string.rep('\0', ROW_BYTES)
end

-- Add up the rows of this step; reply the first bot of the next one, 0: there is none.
local function merge_health()
  local first = tonumber(ARGV[FIRST])
  local from, till = HEAD_BYTES + first * ROW_BYTES, HEAD_BYTES + (first + BOTS_A_STEP) * ROW_BYTES
  local raw, there = redis.call('GETRANGE', old_health, from, till - 1), redis.call('GETRANGE', health, from, till - 1)
  local empty, pieces, last = string.rep('\0', ROW_BYTES), {}, 0
  for place = 0, math.floor(#raw / ROW_BYTES) - 1 do
    local packed, nth = piece(raw, place), place + 1
    pieces[nth] = piece(there, place)
    if packed ~= empty then
      local row = { struct.unpack(ROW_FORMAT, pieces[nth]) }
      merge_row(row, { struct.unpack(ROW_FORMAT, packed) })
      pieces[nth], last = struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES)), nth
    end
  end
  if last > 0 then
    redis.call('SETRANGE', health, from, table.concat(pieces, '', 1, last))
    redis.call('SETRANGE', old_health, from, string.rep('\0', #raw))
  end
  if redis.call('STRLEN', old_health) > till then return first + BOTS_A_STEP end
  local left = redis.call('GETRANGE', old_health, HEAD_BYTES, -1)
  if left == string.rep('\0', #left) then redis.call('DEL', old_health) end
  return 0
end

local function adapt_head()
  local head, samples = redis.call('GETRANGE', health, 0, SAMPLES * TESTS - 1), {}
  for place = 0, math.floor(#head / TESTS) - 1 do
    samples[place + 1] = string.sub(head, place * TESTS + 1, (place + 1) * TESTS) .. NOT_SLOW
  end
  redis.call('SETRANGE', health, 0, table.concat(samples))
end

local function adapted(packed)
  return #packed == NORM_BYTES - #NO_WRONG_TASKS and packed .. NO_WRONG_TASKS or packed
end

local function adapt_norms()
  local flat = redis.call('HGETALL', norms)
  for i = 1, #flat, 2 do redis.call('HSET', norms, flat[i], adapted(flat[i + 1])) end
end

local function merge_norm(kind, packed)
  local there = redis.call('HGET', norms, kind)
  if there and #there == NORM_BYTES and #packed == NORM_BYTES then
    local norm, before = { struct.unpack(NORM_FORMAT, there) }, { struct.unpack(NORM_FORMAT, packed) }
    local share = before[TASKS] / math.max(1, norm[TASKS] + before[TASKS])
    norm[CHARS] = norm[CHARS] + (before[CHARS] - norm[CHARS]) * share
    norm[MS] = norm[MS] + (before[MS] - norm[MS]) * share
    norm[COST] = norm[COST] + (before[COST] - norm[COST]) * share
    norm[TASKS], norm[GOOD_TASKS] = norm[TASKS] + before[TASKS], norm[GOOD_TASKS] + before[GOOD_TASKS]
    norm[BAD_TASKS], norm[WRONG_TASKS] = norm[BAD_TASKS] + before[BAD_TASKS], norm[WRONG_TASKS] + before[WRONG_TASKS]
    packed = struct.pack(NORM_FORMAT, unpack(norm, 1, NORM_PLACES))
  end
  if #packed == NORM_BYTES then redis.call('HSET', norms, kind, packed) end
end

local function merge_norms()
  local flat = redis.call('HGETALL', old_norms)
  for i = 1, #flat, 2 do merge_norm(flat[i], adapted(flat[i + 1])) end
  redis.call('DEL', old_norms)
end

local function moved(old, new) return rename({ old, new }, { ARGV[LIFE_S] }) end

local how = moved(old_health, health)
if how == 1 then adapt_head() end
local next_first = how == 2 and merge_health() or 0
if next_first > 0 then return { 0, next_first } end
local how_norms = moved(old_norms, norms)
if how_norms == 1 then adapt_norms() end
if how_norms == 2 then merge_norms() end
return { math.min(how, 1) + math.min(how_norms, 1), 0 }
