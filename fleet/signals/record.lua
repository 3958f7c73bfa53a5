-- Adds one finished task to the moving windows: nine commands in most calls, whatever their size. O(1).
-- A function inside the finishing script, so windows never disagree with results. Layouts: `windows.py`.
--
-- A slot whose minute is over is added to its hour when it is written anew: so hours cost nothing per task.
--
-- KEYS  1 series    string: 64 minutes, then 48 hours, 16 doubles each           TTL of all: ARGV 6
--       2 rows      string: one row per bot of the pool, 6 u32 and 4 doubles
--       3 tasks     string: the last 4 tasks of each bot, 48 bytes each
--       4 sketch    string: 7 sketches of ten minutes: number, 3 * 512 counters, u32
--       5 recent    string: the last 1,000 completions of the fleet, 32 bytes each
--       6 failures  list: the last 1,000 failures, "time|JSON", the newest first
--       7 events    stream: what happened to the fleet
-- ARGV  1 number of this completion in the fleet ('0': the result was discarded, only what it cost counts)
--       2 sample: 18 doubles, see sample_of()  3 task id, cut  4 line for failures ('': it did not fail)
--       5 reason of its dead letter ('': none)  6 life of the keys, s  7 pool  8 event of a dead letter
--       9 packed shares of other bots that have worked on it, 5 doubles each: bot, calls failed, cost, tokens, ms
-- Reply 1 when this is the pool's first in this minute, else 0
local series, rows, tasks, sketch, recent, failures, events = unpack(KEYS)
local nth, task_id, line, reason, life_s = tonumber(ARGV[1]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local input, output, cost, calls, calls_failed, limited_429, bot, status, queued_ms, limited_ms, ran_ms,
  queued_bucket, limited_bucket, ran_bucket, pool, api, err = struct.unpack('<ddddddddddddddddd', ARGV[2])
local SLOT, SLOT_BYTES, MINUTES, HOURS = '<dddddddddddddddd', 128, 64, 48
local ROW, ROW_BYTES, TASK_BYTES, TASKS = '<I4I4I4I4I4I4dddd', 56, 48, 4
local SKETCH_BYTES, SKETCHES, SKETCH_S, BUCKETS = 6148, 7, 600, 512
local stands = nth > 0

local time = redis.call('TIME')
local now_s = tonumber(time[1])
local now = now_s + time[2] / 1000000
local minute, hour = math.floor(now_s / 60), math.floor(now_s / 3600)

local function read_slot(at)
  local raw = redis.call('GETRANGE', series, at, at + SLOT_BYTES - 1)
  local slot = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  if #raw == SLOT_BYTES then
    slot = { struct.unpack(SLOT, raw) }
  end
  return slot
end

local function write_slot(at, slot)
  redis.call('SETRANGE', series, at, struct.pack(SLOT, unpack(slot, 1, 16)))
end

local place = minute % MINUTES * SLOT_BYTES
local slot = read_slot(place)
local fresh = slot[1] ~= minute
if fresh then
  local over = math.floor(slot[1] / 60)
  local hour_place = (MINUTES + over % HOURS) * SLOT_BYTES
  local sums = read_slot(hour_place)
  if over > 0 and sums[1] <= over then
    for i = 2, 16 do
      sums[i] = slot[i] + (sums[1] == over and sums[i] or 0)
    end
    sums[1] = over
    write_slot(hour_place, sums)
  end
  slot = { minute, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
end
local earned = { 1, status == 0 and 1 or 0, status == 1 and 1 or 0, status == 2 and 1 or 0 }
local spent = { input, output, cost, calls, calls_failed, limited_429 }
for i = 1, 6 do slot[5 + i] = slot[5 + i] + spent[i] end
if stands then
  for i = 1, 4 do slot[1 + i] = slot[1 + i] + earned[i] end
  slot[12], slot[13], slot[14] = slot[12] + queued_ms, slot[13] + limited_ms, slot[14] + ran_ms
else
  slot[15] = slot[15] + 1
end
if reason ~= '' and stands then
  slot[16] = slot[16] + 1
  if slot[16] == 1 then  -- one event a minute: an outage must not push everything else out
    redis.call('XADD', events, 'MAXLEN', '~', 1000, '*', 'event', ARGV[8], 'pool', ARGV[7], 'reason', reason, 'task', task_id)
    redis.call('EXPIRE', events, life_s)
  end
end
write_slot(place, slot)

local function read_row(number)
  local raw = redis.call('GETRANGE', rows, number * ROW_BYTES, number * ROW_BYTES + ROW_BYTES - 1)
  if #raw == ROW_BYTES then
    return { struct.unpack(ROW, raw) }
  end
  return { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
end

local function write_row(number, row)
  redis.call('SETRANGE', rows, number * ROW_BYTES, struct.pack(ROW, unpack(row, 1, 10)))
end

local others_ms = 0
for at = 1, #ARGV[9], 40 do
  local other, failed, paid, tokens, ms = struct.unpack('<ddddd', ARGV[9], at)
  local row = read_row(other)
  row[3], row[8], row[9], row[10] = row[3] + failed, row[8] + paid, row[9] + tokens, row[10] + (stands and ms or 0)
  write_row(other, row)
  calls_failed, cost, input, others_ms = calls_failed - failed, cost - paid, input - tokens, others_ms + ms
end
local row = read_row(bot)
row[3], row[8], row[9] = row[3] + calls_failed, row[8] + cost, row[9] + input + output
if stands then
  if row[4] ~= hour then
    row[6] = row[4] == hour - 1 and row[5] or 0
    row[4], row[5] = hour, 0
  end
  row[1], row[2], row[5] = row[1] + 1, row[2] + earned[4], row[5] + 1
  row[7], row[10] = math.floor(now * 1000) / 1000, row[10] + math.max(0, ran_ms - others_ms)
end
write_row(bot, row)

if stands then
  if bot > 0 then
    local entry = struct.pack('<c36I4I4BBBB', task_id .. string.rep('\0', 36 - #task_id), now_s, ran_ms, status, 0, 0, 0)
    redis.call('SETRANGE', tasks, (bot * TASKS + row[1] % TASKS) * TASK_BYTES, entry)
  end
  redis.call('SETRANGE', recent, nth % 1000 * 32,
    struct.pack('<dI4I4I4I2BBI4I4', now, pool, api, err, bot, status, 0, queued_ms, ran_ms))
  local period = math.floor(now_s / SKETCH_S)
  local sketch_place = period % SKETCHES * SKETCH_BYTES
  if fresh and redis.call('GETRANGE', sketch, sketch_place, sketch_place + 3) ~= struct.pack('>I4', period) then
    redis.call('SETRANGE', sketch, sketch_place, struct.pack('>I4', period) .. string.rep('\0', SKETCH_BYTES - 4))
  end
  local first = sketch_place / 4 + 1
  local counters = {}
  for part, bucket in ipairs({ queued_bucket, limited_bucket, ran_bucket }) do
    if bucket >= 0 then
      counters[#counters + 1] = 'INCRBY'
      counters[#counters + 1] = 'u32'
      counters[#counters + 1] = '#' .. string.format('%d', first + (part - 1) * BUCKETS + bucket)
      counters[#counters + 1] = 1
    end
  end
  redis.call('BITFIELD', sketch, unpack(counters))
  if line ~= '' then
    redis.call('LPUSH', failures, string.format('%.3f', now) .. '|' .. line)
    redis.call('LTRIM', failures, 0, 999)
    redis.call('EXPIRE', failures, life_s)
  end
end
if fresh or slot[2] == 1 then
  for i = 1, 5 do redis.call('EXPIRE', KEYS[i], life_s) end
end
return fresh and 1 or 0
