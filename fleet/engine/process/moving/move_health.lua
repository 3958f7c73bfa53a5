-- Move how the bots of a pool stand, and what is usual in it, from where releases up to 0.2 kept it. O(bots).
--
-- What nobody has written anew is renamed. Else the heavier evidence stands and tasks are added up; what is usual is
-- weighed by tasks. Repeatable, as move_series.lua. Rows are as they were; these releases kept of each of the latest tasks
-- only the rates, not whether it was slow, and of a class all but its wrong tasks: these are 0 here.
--
-- KEYS  old_health, health   string: evidence against each bot, see health.lua                TTL of all: life_s
--       old_norms, norms     hash: task class -> packed, what is usual
-- ARGV  life_s               life of the keys, s
-- Reply keys that were moved
local old_health, health, old_norms, norms = unpack(KEYS)
local MOST_SINCE, MOST_TASKS = 65535, 4294967295
-- The latest tasks in the head. A wrong_tasks of 0, and a task that was not slow.
local SAMPLES, NO_WRONG_TASKS, NOT_SLOW = 31, string.rep('\0', 8), '\0'

local function merge_row(number, old)
  local at = HEAD_BYTES + number * ROW_BYTES
  local raw = redis.call('GETRANGE', health, at, at + ROW_BYTES - 1)
  local row = #raw == ROW_BYTES and { struct.unpack(ROW_FORMAT, raw) } or { ROW_ZEROS }
  for test = 1, TESTS do
    row[EVIDENCE + test] = math.max(row[EVIDENCE + test], old[EVIDENCE + test])
    if old[TASKS] > row[TASKS] then row[RATE + test] = old[RATE + test] end
  end
  if old[FAULTS] > row[FAULTS] then row[FAULT], row[FAULTS] = old[FAULT], old[FAULTS] end
  row[QUARANTINES] = math.max(row[QUARANTINES], old[QUARANTINES])
  row[TASKS] = math.min(MOST_TASKS, row[TASKS] + old[TASKS])
  row[SINCE] = math.min(MOST_SINCE, row[SINCE] + old[SINCE])
  redis.call('SETRANGE', health, at, struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES)))
end

local function merge_health()
  local raw, empty = redis.call('GET', old_health), string.rep('\0', ROW_BYTES)
  for number = 0, math.floor((#raw - HEAD_BYTES) / ROW_BYTES) - 1 do
    local at = HEAD_BYTES + number * ROW_BYTES
    local packed = string.sub(raw, at + 1, at + ROW_BYTES)
    if packed ~= empty then merge_row(number, { struct.unpack(ROW_FORMAT, packed) }) end
  end
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
end

local function move(old, new, adapt, merge)
  local how = rename({ old, new }, { ARGV[LIFE_S] })
  if how == 1 then adapt() end
  if how == 2 then
    merge()
    redis.call('DEL', old)
  end
  return math.min(how, 1)
end

return move(old_health, health, adapt_head, merge_health) + move(old_norms, norms, adapt_norms, merge_norms)
